"""Train on subsets, test on real images: what one process does at a time."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Num, Shaped
from torch import Tensor, nn

from yoco import models
from yoco.data.normalise import normalise, to_floats
from yoco.data.spaces import Space, TestSet
from yoco.training import network as train
from yoco.training import resumable, stacked
from yoco.training.protocol import Protocol
from yoco.training.state import State
from yoco.utils import digests

# images, labels and training seed
Subset = tuple[Num[Tensor, "_ channels size size"], Shaped[Tensor, "_ *_"], int]


@dataclass(frozen=True)
class Checks:
    """What one network reached on the test images during its training.

    accuracies: in % by the number of epochs done, ascending; at least one.
    """

    accuracies: Mapping[int, float]

    @property
    def last(self) -> float:
        """The accuracy after the last epoch in %."""
        return self.accuracies[max(self.accuracies)]

    @property
    def best(self) -> float:
        """The highest accuracy of all checks in %: chosen on the test images."""
        return max(self.accuracies.values())


def train_and_test(
    tests: Mapping[Space | None, TestSet],
    subsets: Sequence[Subset],
    space: Space | None,
    protocol: Protocol,
    device: torch.device,
    compiled_test: bool = False,
) -> list[float]:
    """Train a network on each of `subsets` and test it; return the accuracies in %.

    Args:
        tests: the test images by the space that networks train in.
        subsets: images, labels and training seed of each; several are a group of
            `stacked.grouped`.
        space: the space of the subsets.
        protocol, device: how and where they are trained.
        compiled_test: whether to compile the test.
    """
    test, shape = tests[space], subsets[0][0].shape
    protocol = protocol.resolved(device, protocol.epochs * shape[0], shape[-1])
    runs = [_run(test, subset, protocol, device) for subset in subsets]
    stacked.fit(runs)
    return [_tested(run.network.eval(), test, protocol, device, compiled_test) for run in runs]


def train_and_check(
    test: TestSet,
    subset: Subset,
    protocol: Protocol,
    device: torch.device,
    every: int,
    checkpoint: str | Path | None = None,
) -> Checks:
    """Train a network and test it after every `every` epochs and after the last one.

    Args:
        test: the test images.
        subset: images, labels and training seed.
        protocol, device: how and where it is trained.
        every: at least 1.
        checkpoint: a file to resume from if it exists, written every minute.
    """
    (images, _, seed), epochs = subset, protocol.epochs
    when = {*range(every, epochs, every), epochs}
    compiled = protocol.resolved(device, len(when) * len(test.labels), images.shape[-1]).compiled
    protocol = protocol.resolved(device, epochs * len(images), images.shape[-1])

    def tested(network: nn.Module) -> float:
        return _tested(network, test, protocol, device, bool(compiled))

    checked = _Checked(_run(test, subset, protocol, device), when, tested)
    identity: dict[str, Any] = {
        digests.MADE_FROM: {} if checkpoint is None else _digests(test, subset),
        "seed": seed,
        **protocol.told,
        **models.layout(protocol.model, images.shape[1], test.classes, images.shape[-1]),
        "every": every,
    }
    resumable.run(checked, epochs, identity, checkpoint=checkpoint, progress=False)
    return Checks(checked.found)


def _digests(test: TestSet, subset: Subset) -> dict[str, str]:
    """Return the digests of all data that a training and its tests use, by part."""
    held = map(np.ascontiguousarray, (test.images, test.labels))
    return {
        "images": digests.of_tensor(subset[0]),
        "labels": digests.of_tensor(subset[1]),
        "test images": digests.of_bytes(*(array.data for array in held)),
        "mean and std": digests.of_text((test.mean, test.std, test.bounded)),
    }


class _Checked(resumable.Stepper):
    """A training whose network is tested now and then; a step is an epoch.

    Args:
        run: at its start.
        when: the numbers of epochs after which the network is tested.
        test: returns a network's accuracy in %.

    Attributes:
        found: the accuracies so far, by the number of epochs.
    """

    def __init__(
        self, run: train.Run, when: Collection[int], test: Callable[[nn.Module], float]
    ) -> None:
        self.run, self.when, self.test = run, when, test
        self.found: dict[int, float] = {}

    def step(self, number: int) -> float:
        """Train for epoch `number` and test. Returns 0: an epoch itself notices divergence."""
        self.run.epoch()
        if self.run.epochs in self.when:
            self.found[self.run.epochs] = self.test(self.run.network.eval())
        return 0.0

    def state(self) -> State:
        """Return the state of the training and the accuracies so far."""
        return self.run.state() | {
            "found.epochs": torch.tensor(list(self.found), dtype=torch.int64),
            "found.accuracies": torch.tensor(list(self.found.values()), dtype=torch.float64),
        }

    def restore(self, state: State) -> None:
        self.run.restore(state)
        epochs, accuracies = state["found.epochs"], state["found.accuracies"]
        self.found = dict(zip(epochs.tolist(), accuracies.tolist()))


def _run(test: TestSet, subset: Subset, protocol: Protocol, device: torch.device) -> train.Run:
    """Return a training run at its start."""
    images, labels, seed = subset
    inputs = to_floats(images.detach()).to(device)
    inputs = normalise(inputs, test.mean, test.std) if test.bounded else inputs
    labels = labels.to(device)
    return train.Run(inputs, labels, test.classes, protocol, seed, mean=test.mean, std=test.std)


def _tested(
    network: nn.Module,
    test: TestSet,
    protocol: Protocol,
    device: torch.device,
    compiled: bool,
) -> float:
    """Return the accuracy of a trained network in %."""

    def test_batch(part: slice) -> Tensor:
        return normalise(to_floats(torch.tensor(test.images[part]).to(device)), test.mean, test.std)

    logits = train.outputs(
        network, test_batch, len(test.labels), protocol.precision, compiled=compiled
    )
    return (logits.argmax(1).cpu() == torch.tensor(test.labels)).double().mean().item() * 100
