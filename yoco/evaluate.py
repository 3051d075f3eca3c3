"""Train on a subset, test on real images: one run, or many (appendix B.1.2; design §6)."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from torch import Tensor
from tqdm.auto import tqdm

from yoco import checks, train
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


def _accuracy(images: Tensor, labels: Tensor, test: TestSet, protocol: Protocol, seed: int, device: torch.device) -> float:
    protocol = protocol.resolved(device, protocol.epochs * len(images), images.shape[-1])
    inputs = normalise(to_floats(images).to(device), test.mean, test.std)
    network = train.fit(inputs, labels.to(device), test.classes, protocol, seed)
    real = torch.tensor(test.images).to(device)

    def test_batch(part: slice) -> Tensor:
        return normalise(to_floats(real[part]), test.mean, test.std)

    logits = train.outputs(network, test_batch, len(real), protocol.precision)
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
    """`evaluate` each subset under each seed. Returns a table with columns subset, seed, accuracy (%), in that order of work.

    subsets: name -> (images, labels). jobs: trainings at once, see `accuracies`. Raises as `evaluate`, before any training.
    """
    wanted = [(name, seed) for name in subsets for seed in seeds]
    for images, labels in subsets.values():
        check_subset(images, labels, data)
    work = [(*subsets[name], seed) for name, seed in wanted]
    protocol = Protocol(epochs=epochs, model=model, **options)
    results = dict(accuracies(work, data, protocol, device=device, jobs=jobs, progress=progress))
    rows = [(*key, results[number]) for number, key in enumerate(wanted)]
    return pd.DataFrame(rows, columns=["subset", "seed", "accuracy"])


def accuracies(
    work: Sequence[tuple[Tensor, Tensor, int]],
    data: ImageData,
    protocol: Protocol,
    *,
    device: str | torch.device = "auto",
    jobs: int | None = None,
    progress: bool = True,
) -> Iterator[tuple[int, float]]:
    """Yield (number, accuracy in %) of each (images, labels, seed) in `work` as it finishes, in any order.

    jobs: trainings at once, each in a process of one thread; None: as many as there are cores on a CPU, where small
    trainings leave a second thread idle, else one. One job runs here, with all threads.
    """
    where = devices.choose(device)
    if jobs is None:
        jobs = min(torch.get_num_threads(), len(work)) if where.type == "cpu" else 1
    checks.whole("jobs", jobs, 1)
    images = sum(len(images) for images, _, _ in work) * protocol.epochs // jobs
    protocol = protocol.resolved(where, images, data.size)  # for all alike: one compilation serves them
    test = TestSet.of(data)
    with tqdm(total=len(work), desc="training", unit="run", disable=not progress) as bar:
        if jobs == 1:
            results = ((i, _accuracy(*item[:2], test, protocol, item[2], where)) for i, item in enumerate(work))
        else:
            calls = (delayed(_in_worker)(i, item, test, protocol, where) for i, item in enumerate(work))
            results = Parallel(n_jobs=jobs, return_as="generator_unordered")(calls)
        for result in results:
            bar.update()
            yield result


def _in_worker(number: int, item: tuple[Tensor, Tensor, int], test: TestSet, protocol: Protocol, device: torch.device) -> tuple[int, float]:
    torch.set_num_threads(1)
    images, labels, seed = item
    return number, _accuracy(images, labels, test, protocol, seed, device)
