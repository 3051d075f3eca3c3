"""Train on subsets, test on real images: what one process does at a time."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Num, Shaped
from torch import Tensor, nn

from yoco.data.normalise import normalise, to_floats
from yoco.data.spaces import Space, TestSet
from yoco.training import network as train
from yoco.training import stacked
from yoco.training.protocol import Protocol


def train_and_test(
    tests: Mapping[Space | None, TestSet],
    subsets: Sequence[tuple[Num[Tensor, "_ channels size size"], Shaped[Tensor, "_ *_"], int]],
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
    runs = []
    for images, labels, seed in subsets:
        inputs = to_floats(images.detach()).to(device)
        inputs = normalise(inputs, test.mean, test.std) if test.bounded else inputs
        labels = labels.to(device)
        runs.append(
            train.Run(inputs, labels, test.classes, protocol, seed, mean=test.mean, std=test.std)
        )
    stacked.fit(runs)
    return [_tested(run.network.eval(), test, protocol, device, compiled_test) for run in runs]


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
