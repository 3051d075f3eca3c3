"""Train on a subset, test on real images: one run or many (appendix B.1.2; design §6)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor
from tqdm.auto import tqdm

from yoco import models
from yoco.data.image_data import ImageData
from yoco.data.spaces import Space, TestSet
from yoco.parallel import pool
from yoco.training import stacked, timing
from yoco.training.protocol import BEFORE, Protocol
from yoco.training.trials import Checks as Checks
from yoco.training.trials import train_and_check, train_and_test
from yoco.utils import checks, tensor_files
from yoco.utils import device as devices
from yoco.utils.foreign import Factory
from yoco.utils.lazy import pd

Images = Num[Tensor, "images channels size size"]
Labels = Int[Tensor, "images"] | Float[Tensor, "images classes"]
Subset = tuple[Images, Labels]


def evaluate(
    images: Images,
    labels: Labels,
    data: ImageData,
    *,
    epochs: int,
    seed: int,
    model: str | Factory = "convnet",
    device: str | torch.device = "auto",
    space: Space | None = None,
    checkpoint: str | Path | None = None,
    **options: Any,
) -> float:
    """Train a fresh network on a subset and test it on all test images.

    Training images are augmented by colour, one of crop, scale and rotate, and flip, with one draw
    per image, and by CutMix; or, with augmentation="imagenet", as in the published code for
    ImageNet-10 (see `protocol.augmentation_of`).

    Args:
        images: at least one, float in 0..1 (formed images) or uint8.
        labels: int64, or soft targets.
        data: the real data whose test images are used.
        epochs: epochs of training.
        seed: training seed.
        model: a name, a factory (channels, classes, size) -> nn.Module, or its path.
        device: "auto" or a device of torch.
        space: `condensed.space`: training and test images are normalised by the set's mean and
            std, and images of an unbounded set are taken as they are. None: `data`'s mean and std.
        checkpoint: a file to resume from if it exists, written every minute; an interrupted
            training resumes to the same result.
        **options: fields of `protocol.Protocol`, and `protocol`, "even", "paper" or "ncfm" (see
            `Protocol.of`).

    Returns:
        The accuracy of the last epoch in %.

    Raises:
        TypeError, ValueError: if images or labels do not fit `data`.
        FloatingPointError: if training diverges; other errors as `resumable.run`.
    """
    how: dict[str, Any] = {"model": model, "device": device, "space": space, **options}
    how |= {"every": epochs, "checkpoint": checkpoint}
    return checked(images, labels, data, epochs=epochs, seed=seed, **how).last


def checked(
    images: Images,
    labels: Labels,
    data: ImageData,
    *,
    epochs: int,
    seed: int,
    every: int = 20,
    model: str | Factory = "convnet",
    device: str | torch.device = "auto",
    space: Space | None = None,
    checkpoint: str | Path | None = None,
    **options: Any,
) -> Checks:
    """Train as `evaluate` does, and test the network during training as well.

    NCFM's published code reports the best of such checks, every 20 epochs at IPC 1 and 10, averaged
    over 10 networks. The best is chosen on the test images, so it is never below the last.

    Args:
        images, labels, data, epochs, seed, model, device, space, checkpoint, options: see
            `evaluate`.
        every: epochs between two checks, at least 1; the last epoch is always checked.

    Returns:
        The accuracies; `.last` is the result of `evaluate`.

    Raises:
        Exception: as `evaluate`.
    """
    check_subset(images, labels, data, space)
    checks.seed("seed", seed)
    protocol = Protocol.of(epochs=epochs, model=model, **options)
    checks.whole("every", every, 1)
    models.check_takes(protocol.model, *models.shape_of(data))
    test, where = TestSet.of(data, space), devices.choose(device)
    file = tensor_files.file("checkpoint", checkpoint)
    return train_and_check(test, (images, labels, seed), protocol, where, every, file)


def check_subset(
    images: Images, labels: Labels, data: ImageData, space: Space | None = None
) -> None:
    """Raise TypeError or ValueError unless images and labels fit `data`'s classes and shape."""
    if space is None or checks.instance("space", space, Space).bounded:
        try:
            checks.images("images", images)
        except ValueError as error:
            raise ValueError(
                f"{error}; images of an unbounded set need space=condensed.space"
            ) from error
    else:
        checks.finite("images", checks.float_images("images", images))
    checks.targets(
        "labels", labels, len(images), len(checks.instance("data", data, ImageData).classes)
    )
    if images.shape[1:] != data.test_images.shape[1:]:
        raise ValueError(
            f"images must have shape {list(data.test_images.shape[1:])} each, as {data.name}'s, "
            f"got {list(images.shape[1:])}"
        )


@pool.without_backend
def evaluate_many(
    subsets: Mapping[Hashable, Subset],
    data: ImageData,
    *,
    epochs: int,
    seeds: Sequence[int],
    model: str | Factory = "convnet",
    device: str | torch.device = "auto",
    jobs: int | None = None,
    executor: Executor | None = None,
    progress: bool = True,
    space: Space | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Evaluate each subset with each seed, as `evaluate` does.

    Args:
        subsets: name -> (images, labels), at least one, all of `space`.
        data, epochs, model, space, options: see `evaluate`.
        seeds: at least one.
        device, jobs, executor, progress: see `accuracies`.

    Returns:
        A table in the order of the work, with columns subset, seed, last_batch, augmentation,
            precision, accuracy (%). These columns do not tell protocol="ncfm" from "paper".

    Raises:
        TypeError, ValueError: as `evaluate`, before any training.
    """
    checks.instance("subsets", subsets, Mapping)  # type: ignore[type-abstract]  # isinstance takes it
    for name in checks.sequence("subsets", subsets.keys()):
        if not isinstance(subsets[name], (tuple, list)) or len(subsets[name]) != 2:
            raise TypeError(
                f"subsets[{name!r}] must be a pair of images and labels, got "
                f"{checks.shown(subsets[name])}"
            )
        check_subset(*subsets[name], data, space)
    chosen = [checks.seed("seeds", seed) for seed in checks.sequence("seeds", seeds)]
    wanted = [(name, seed) for name in subsets for seed in chosen]
    protocol = Protocol.of(epochs=epochs, model=model, **options)
    work = [Training(*subsets[name], seed, protocol, space) for name, seed in wanted]
    names = [f"subset {name!r}, seed {seed}" for name, seed in wanted]
    results = dict(
        accuracies(
            work, data, names=names, device=device, jobs=jobs, executor=executor, progress=progress
        )
    )
    precision = devices.choose_precision(protocol.precision, devices.choose(device))
    told = {name: getattr(protocol, name) for name in BEFORE}
    rows = [
        {"subset": name, "seed": seed, **told, "precision": precision, "accuracy": results[number]}
        for number, (name, seed) in enumerate(wanted)
    ]
    return pd.DataFrame(rows, columns=["subset", "seed", *told, "precision", "accuracy"])


class Training(NamedTuple):
    """One training run of many.

    Attributes:
        images: float in 0..1 or uint8, or any floats of `space`.
        labels: int64, or soft targets.
        seed: seed of the training.
        protocol: how it is trained.
        space: see `evaluate`.
    """

    images: Images
    labels: Labels
    seed: int
    protocol: Protocol
    space: Space | None = None

    @property
    def passes(self) -> int:
        """Images that go through the network in training, over all epochs."""
        return self.protocol.epochs * len(self.images)

    @property
    def kind(self) -> tuple[Protocol, torch.Size, Hashable]:
        """What runs share that train at once, see `stacked.grouped`."""
        return self.protocol, self.images.shape, (self.labels.shape, self.space)


@pool.without_backend
def accuracies(
    work: Sequence[Training],
    data: ImageData,
    *,
    only: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    device: str | torch.device = "auto",
    jobs: int | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> Iterator[tuple[int, float]]:
    """Yield (number, accuracy in %) of each training run in `work` as it finishes, in any order.

    How networks are trained (compiled, how many at once) is decided from the whole of `work`, so
    that an interrupted study ends with the same numbers as an uninterrupted one; on a GPU, up to
    rounding, as runs of one shape train at once there (see `stacked`). The progress bar
    counts images, in training and in tests, so that its estimate of the time left holds for runs of
    any length. With a bar, an estimate of the time that long work takes on this machine is printed
    first (see `timing`).

    Args:
        work: the training runs.
        data: the real data whose test images are used.
        only: numbers of the runs that are still to be done (None: all).
        names: names of all of `work`, for the error if the process of a run dies at every attempt.
        device: "auto" or a device of torch.
        jobs: runs in parallel (None: one per core on a CPU, else one per GPU). With an executor:
            its number of workers, which decides on compiling and the estimated time.
        executor: trains instead of processes on this machine.
        progress: show a progress bar.
    """
    where = devices.choose(device)
    jobs = pool.jobs_for(jobs, where, len(work), executor)
    for model in {training.protocol.model for training in work}:
        models.check_takes(model, *models.shape_of(data))
    tests = {space: TestSet.of(data, space) for space in {training.space for training in work}}
    compiled = {
        model: _compiled([t for t in work if t.protocol.model == model], where, jobs, data)
        for model in {t.protocol.model for t in work}
    }
    # a test has no backward pass
    cost = [training.passes + len(data.test_labels) // 3 for training in work]
    # longest first: a long one at the end would leave other cores idle
    todo = sorted(range(len(work)) if only is None else only, key=lambda number: -cost[number])
    kinds = [work[number].kind for number in todo]
    groups = [[todo[place] for place in group] for group in stacked.grouped(kinds, where, jobs)]
    calls = [
        _call([work[number] for number in group], where, *compiled[work[group[0]].protocol.model])
        for group in groups
    ]
    if progress:
        timing.say(_passes(work, todo, cost, data, where), min(jobs, max(1, len(todo))))
        if any(protocol.compiled for _, _, protocol, *_ in calls):
            timing.say_compiling()
    with tqdm(
        total=sum(cost[number] for number in todo),
        desc="training",
        unit="image",
        unit_scale=True,
        disable=not progress,
    ) as bar:
        said = names and ["; ".join(names[number] for number in group) for group in groups]
        done = 0
        for position, found in pool.run(
            train_and_test, calls, jobs, shared=(tests,), executor=executor, names=said
        ):
            for number, accuracy in zip(groups[position], found):
                done += 1
                bar.set_postfix_str(f"{done} of {len(todo)} runs", refresh=False)
                bar.update(cost[number])
                yield number, accuracy


def _passes(
    work: Sequence[Training],
    todo: Sequence[int],
    cost: Sequence[int],
    data: ImageData,
    where: torch.device,
) -> Counter[timing.Network]:
    """Return the images that go through each network in the runs `todo`."""
    passes: Counter[timing.Network] = Counter()
    for number in todo:
        how = work[number].protocol
        passes[timing.Network.of(how, data, how.precision, where)] += cost[number]
    return passes


def _compiled(
    work: Sequence[Training], where: torch.device, jobs: int, data: ImageData
) -> tuple[bool, bool]:
    """Return whether compiling the training step, and the test, pays in each process.

    All of `work` uses the same network.
    """
    trained, tested = sum(training.passes for training in work), len(data.test_labels) * len(work)
    pays = work[0].protocol.pays_to_compile
    return pays(where, trained // jobs, data.size), pays(where, tested // jobs, data.size)


def _call(
    work: Sequence[Training], where: torch.device, compiled: bool, compiled_test: bool
) -> tuple[Any, ...]:
    """Return the arguments of `train_and_test` after the test sets, for runs of one group.

    If the protocol says whether to compile, that takes precedence.
    """
    first = work[0]
    if first.protocol.compiled is not None:
        compiled = compiled_test = first.protocol.compiled
    protocol = replace(first.protocol, compiled=compiled).resolved(
        where, first.passes, first.images.shape[-1]
    )
    subsets = [(training.images, training.labels, training.seed) for training in work]
    return subsets, first.space, protocol, where, compiled_test
