"""How long planned work takes on this machine, announced before it begins.

The speed is measured within a second or two.
"""

import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

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


@runtime_checkable
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
    def of(cls, how: Any, data: Any, precision: str, where: torch.device) -> "Network":
        """Return the network of `how`, which has `model` and `width`, on images of `data`.

        how: a `Protocol`, or settings of a condensation. data: see `models.shape_of`.
        """
        shape, chosen = models.shape_of(data), device.choose_precision(precision, where)
        return cls(how.model, how.width, *shape, chosen, where)

    @property
    def pixels(self) -> int:
        return self.size**2

    @functools.cache  # noqa: B019  # networks are few and small values
    def per_second(self, threads: int, patience: float) -> float:
        """Return the images per second of eager training steps on random images, augmented.

        No random state is touched. patience: seconds to measure for; 0 measures a single step.
        """
        source = seeds.generator(0)
        own_source = seeds.for_device(source, self.device)
        batch = max(1, min(64, BATCH_PIXELS // self.size**2))
        images = torch.rand(batch, self.channels, self.size, self.size, generator=source)
        shape = self.channels, self.classes, self.size
        model = models.build_seeded(0, self.model, *shape, width=self.width).to(self.device)
        optimizer = training.Optimiser().build(model.parameters())
        step = training.Step(model, optimizer, self.precision)
        pixels = images.to(self.device)
        labels = torch.zeros(batch, dtype=torch.long, device=self.device)
        learn = functools.partial(
            training.epoch,
            step,
            pixels,
            labels,
            own_source,
            classes=self.classes,
            augmentation=augment.Augmentation(augment.EVALUATION),
            batch_size=batch,
        )
        with device.threads(threads):
            learn()  # a first step takes longer
            began, done = time.monotonic(), 0
            while not done or time.monotonic() - began < patience:
                learn()
                next(model.parameters()).sum().item()  # waits for a GPU
                done += batch
            return done / (time.monotonic() - began)


def seconds(work: Mapping[Any, int], jobs: int = 1) -> float:
    """Return the seconds that work takes on this machine, `jobs` pieces at a time.

    The result is only a rough bound if it is below `WORTH_SAYING`.

    Args:
        work: how many of each `Unit`: images that go through a network, in all epochs of all
            training runs.
        jobs: pieces at once, each in a process with one thread; a single one has all threads.
    """
    if sum(unit.pixels * count for unit, count in work.items()) < LEAST_PIXELS:
        return 0.0
    threads, total = torch.get_num_threads() if jobs == 1 else 1, 0.0
    for patience in (0.0, PATIENCE):  # a single step tells whether measuring is worthwhile
        total = (
            sum(count / unit.per_second(threads, patience) for unit, count in work.items() if count)
            / jobs
        )
        if total < WORTH_SAYING:
            break
    return total


def say(work: Mapping[Any, int], jobs: int = 1, budget: float | None = None) -> None:
    """Print how long `work` will take if it is long (see `seconds`).

    budget: seconds after which it is stopped.
    """
    if budget is not None and budget < WORTH_SAYING:
        return
    announce(seconds(work, jobs), jobs, budget)


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
        "compiling for this processor first: a minute or two, once (YOCO_COMPILE=0 turns it off)",
        flush=True,
    )


def spelt(taken: float) -> str:
    """Return a duration for readers: "40 s", "4 min", "2.5 h"."""
    if taken < 95:
        return f"{10 * round(taken / 10)} s"
    return f"{round(taken / 60)} min" if taken < 5400 else f"{taken / 3600:.1f} h"
