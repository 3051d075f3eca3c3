"""How long planned work takes on this machine, announced before it begins.

The speed is measured within a second or two.
"""

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch

from yoco import augment, models
from yoco.training import network as training
from yoco.utils import device, seeds

WORTH_SAYING = 30.0  # seconds: shorter work starts without an announcement
# pixels that go through a network in training; fewer take less than that on any machine
LEAST_PIXELS = 1_000_000
PATIENCE = 1.0  # seconds of measuring
# pixels of a measured batch: a step of large images on a slow processor takes a second at most
BATCH_PIXELS = 64 * 64**2


class Unit(Protocol):
    """One of many equal pieces of work; hashable. pixels: its cost, to an order of magnitude."""

    @property
    def pixels(self) -> int: ...

    def per_second(self, threads: int, patience: float) -> float:
        """Return how many a process with `threads` threads does per second.

        patience: seconds to measure for, roughly; 0 measures once.
        """


@dataclass(frozen=True)
class Network:
    """An image that a network trains on, with all that its speed depends on.

    precision: "float32" or "bfloat16".
    """

    model: str
    width: int | None
    channels: int
    classes: int
    size: int
    precision: str
    device: torch.device

    @classmethod
    def of(
        cls,
        protocol: training.Protocol,
        channels: int,
        classes: int,
        size: int,
        where: torch.device,
    ) -> "Network":
        """Return the network that `protocol` trains on images [N, channels, size, size]."""
        return cls(
            protocol.model,
            protocol.width,
            channels,
            classes,
            size,
            device.choose_precision(protocol.precision, where),
            where,
        )

    @property
    def pixels(self) -> int:
        return self.size**2

    def per_second(self, threads: int, patience: float) -> float:
        return images_per_second(self, threads, patience)


Speed = Callable[[Unit, int, float], float]
Work = TypeVar("Work", bound=Unit)


@functools.cache
def images_per_second(network: Network, threads: int, patience: float) -> float:
    """Return the images per second of eager training steps on random images, with augmentation.

    No random state is touched.

    Args:
        network: what is trained.
        threads: threads of the training process.
        patience: seconds to measure for; 0 measures a single step.
    """
    n, source, before = network, seeds.generator(0), torch.get_num_threads()
    own_source = seeds.for_device(source, network.device)
    batch = max(1, min(64, BATCH_PIXELS // n.size**2))
    images = torch.rand(batch, n.channels, n.size, n.size, generator=source).to(n.device)
    model = models.build_seeded(0, n.model, n.channels, n.classes, n.size, width=n.width).to(
        n.device
    )
    step, labels = (
        training.Step(model, training.Optimiser().build(model), n.precision),
        torch.zeros(batch, dtype=torch.long, device=n.device),
    )
    options: dict[str, Any] = {
        "classes": n.classes,
        "augmentation": augment.Augmentation(augment.EVALUATION),
        "batch_size": batch,
    }
    torch.set_num_threads(threads)
    try:
        training.epoch(step, images, labels, own_source, **options)  # a first step takes longer
        began, done = time.monotonic(), 0
        while not done or time.monotonic() - began < patience:
            training.epoch(step, images, labels, own_source, **options)
            next(model.parameters()).sum().item()  # waits for a GPU
            done += batch
        return done / (time.monotonic() - began)
    finally:
        torch.set_num_threads(before)


def _measured(unit: Unit, threads: int, patience: float) -> float:
    return unit.per_second(threads, patience)


def seconds(work: Mapping[Work, int], jobs: int = 1, speed: Speed = _measured) -> float:
    """Return the seconds that work takes on this machine, `jobs` pieces at a time.

    The result is only a rough bound if it is below `WORTH_SAYING`.

    Args:
        work: how many of each unit: images that go through a network, in all epochs of all
            training runs.
        jobs: pieces at once, each in a process with one thread; a single one has all threads.
        speed: measures units per second; as `Unit.per_second`.
    """
    if sum(unit.pixels * count for unit, count in work.items()) < LEAST_PIXELS:
        return 0.0
    threads, total = torch.get_num_threads() if jobs == 1 else 1, 0.0
    for patience in (0.0, PATIENCE):  # a single step tells whether measuring is worthwhile
        total = (
            sum(count / speed(unit, threads, patience) for unit, count in work.items() if count)
            / jobs
        )
        if total < WORTH_SAYING:
            break
    return total


def say(
    work: Mapping[Work, int], jobs: int = 1, budget: float | None = None, speed: Speed = _measured
) -> None:
    """Print how long `work` will take if it is long (see `seconds`).

    budget: seconds after which it is stopped.
    """
    if budget is not None and budget < WORTH_SAYING:
        return
    announce(seconds(work, jobs, speed), jobs, budget)


def announce(taken: float, jobs: int = 1, budget: float | None = None) -> None:
    """Print how long work takes, given in seconds, if it is long.

    budget: seconds after which it is stopped.
    """
    if taken >= WORTH_SAYING:
        stops = (
            f"; this call stops after {spelt(budget)}"
            if budget is not None and budget < taken
            else ""
        )
        print(
            f"about {spelt(taken)} on this machine"
            + (f" ({jobs} at a time)" if jobs > 1 else "")
            + stops,
            flush=True,
        )


@functools.cache
def say_compiling() -> None:
    """Print, once per process, that the work begins with compiling."""
    print(
        "compiling for this processor first: a minute or two, once (YOCO_COMPILE=0 does without)",
        flush=True,
    )


def spelt(taken: float) -> str:
    """Return a duration for readers: "40 s", "4 min", "2.5 h"."""
    if taken < 95:
        return f"{10 * round(taken / 10)} s"
    return f"{round(taken / 60)} min" if taken < 5400 else f"{taken / 3600:.1f} h"
