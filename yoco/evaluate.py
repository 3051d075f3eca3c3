"""Train on a subset, test on real images: one run, or many (appendix B.1.2; design §6)."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from yoco import checks, train, workers
from yoco import device as devices
from yoco.condensed import normalise
from yoco.data import ImageData, to_floats
from yoco.train import Protocol

Subset = tuple[Tensor, Tensor]


class TestSet(NamedTuple):
    """What a training needs of the real data. Arrays in place of tensors, so that joblib shares them between processes."""

    images: np.ndarray
    labels: np.ndarray
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, data: ImageData) -> "TestSet":
        return cls(data.test_images.numpy(), data.test_labels.numpy(), len(data.classes), data.mean, data.std)


def evaluate(
    images: Tensor,
    labels: Tensor,
    data: ImageData,
    *,
    epochs: int,
    seed: int,
    model: str = "convnet",
    device: str | torch.device = "auto",
    **options: Any,
) -> float:
    """Train a fresh network on a subset, test it on all test images. Returns the accuracy of the last epoch in %.

    images: float [n, C, S, S] in 0..1 (formed images) or uint8; labels: int64 [n]. options: fields of `train.Protocol`.
    Augmented by colour, and one of crop, scale and rotate, and flip, a draw an image, with CutMix. Raises ValueError
    or TypeError where images or labels do not fit `data`, FloatingPointError where training diverges.
    """
    check_subset(images, labels, data)
    return _accuracy(images, labels, TestSet.of(data), Protocol(epochs=epochs, model=model, **options), seed, devices.choose(device))


def check_subset(images: Tensor, labels: Tensor, data: ImageData) -> None:
    """Raise TypeError or ValueError unless images and labels are a training set for `data`'s classes and shape."""
    checks.images("images", images)
    checks.labels("labels", labels, len(images), len(data.classes))
    if images.shape[1:] != data.test_images.shape[1:]:
        raise ValueError(f"images must have shape {list(data.test_images.shape[1:])} each, as {data.name}'s, got {list(images.shape[1:])}")


def _accuracy(
    images: Tensor, labels: Tensor, test: TestSet, protocol: Protocol, seed: int, device: torch.device, compiled_test: bool = False
) -> float:
    protocol = protocol.resolved(device, protocol.epochs * len(images), images.shape[-1])
    inputs = normalise(to_floats(images).to(device), test.mean, test.std)
    network = train.fit(inputs, labels.to(device), test.classes, protocol, seed)
    real = torch.tensor(test.images).to(device)

    def test_batch(part: slice) -> Tensor:
        return normalise(to_floats(real[part]), test.mean, test.std)

    logits = train.outputs(network, test_batch, len(real), protocol.precision, compiled=compiled_test)
    return (logits.argmax(1).cpu() == torch.tensor(test.labels)).double().mean().item() * 100


def evaluate_many(
    subsets: Mapping[Hashable, Subset],
    data: ImageData,
    *,
    epochs: int,
    seeds: Sequence[int],
    model: str = "convnet",
    device: str | torch.device = "auto",
    jobs: int | None = None,
    progress: bool = True,
    **options: Any,
) -> pd.DataFrame:
    """`evaluate` each subset under each seed. Returns a table with columns subset, seed, precision, accuracy (%), in order of work.

    subsets: name -> (images, labels). jobs: trainings at once, see `accuracies`. Raises as `evaluate`, before any training.
    """
    wanted = [(name, seed) for name in subsets for seed in seeds]
    for images, labels in subsets.values():
        check_subset(images, labels, data)
    work = [(*subsets[name], seed) for name, seed in wanted]
    protocol = Protocol(epochs=epochs, model=model, **options)
    results = dict(accuracies(work, data, protocol, device=device, jobs=jobs, progress=progress))
    precision = devices.choose_precision(protocol.precision, devices.choose(device))
    rows = [(*key, precision, results[number]) for number, key in enumerate(wanted)]
    return pd.DataFrame(rows, columns=["subset", "seed", "precision", "accuracy"])


def accuracies(
    work: Sequence[tuple[Tensor, Tensor, int]],
    data: ImageData,
    protocol: Protocol,
    *,
    only: Sequence[int] | None = None,
    device: str | torch.device = "auto",
    jobs: int | None = None,
    progress: bool = True,
) -> Iterator[tuple[int, float]]:
    """Yield (number, accuracy in %) of each (images, labels, seed) in `work` as it finishes, in any order.

    only: the numbers that are still to be done. How they are done (compiled, how many at once) is decided by the whole
    of `work`, so that a study that was interrupted ends with the numbers of one that was not.

    jobs: trainings at once, see `workers` (None: as many as there are cores on a CPU, else one).
    """
    where = devices.choose(device)
    jobs = workers.default_jobs(where, len(work)) if jobs is None else checks.whole("jobs", jobs, 1)
    test = TestSet.of(data)
    tested = len(test.labels) * len(work) // jobs
    compiled_test = devices.worth_compiling(where, tested, data.size) if protocol.compiled is None else protocol.compiled
    protocol = protocol.resolved(where, sum(len(images) for images, _, _ in work) * protocol.epochs // jobs, data.size)
    todo = sorted(range(len(work)) if only is None else only, key=lambda number: -len(work[number][0]))  # a long one last would keep one core waiting
    calls = [(*work[number][:2], test, protocol, work[number][2], where, compiled_test) for number in todo]
    with tqdm(total=len(todo), desc="training", unit="run", disable=not progress) as bar:
        for position, accuracy in workers.run(_accuracy, calls, jobs):
            bar.update()
            yield todo[position], accuracy
