"""Train on subsets, test on real images: what one process does at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Num, Shaped
from torch import Tensor, nn

from yoco.data.normalise import normalise, to_floats
from yoco.data.spaces import Space, TestSet
from yoco.training import network as train
from yoco.training import stacked
from yoco.training.protocol import Protocol

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
    test: TestSet, subset: Subset, protocol: Protocol, device: torch.device, every: int
) -> Checks:
    """Train a network and test it after every `every` epochs and after the last one.

    Args:
        test: the test images.
        subset: images, labels and training seed.
        protocol, device: how and where it is trained.
        every: at least 1.
    """
    count, size = len(subset[0]), subset[0].shape[-1]
    when = sorted({*range(every, protocol.epochs, every), protocol.epochs})
    compiled = protocol.resolved(device, len(when) * len(test.labels), size).compiled
    protocol = protocol.resolved(device, protocol.epochs * count, size)
    run, found = _run(test, subset, protocol, device), {}
    for epochs in when:
        while run.epochs < epochs:
            run.epoch()
        found[epochs] = _tested(run.network.eval(), test, protocol, device, bool(compiled))
    return Checks(found)


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
