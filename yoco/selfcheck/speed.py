"""Two pieces of work at CIFAR-10's shapes, whose speed characterises a machine.

One is an inner loop of IDC, the other a short training run on 400 images. `make bench` times the
same work against the literal implementation.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor

from yoco import condense
from yoco.condense.idc import GradientMatching
from yoco.data.image_data import ImageData
from yoco.data.normalise import CIFAR_MEAN, CIFAR_STD
from yoco.sets.condensed_set import CondensedSet
from yoco.training import network as train
from yoco.training.protocol import Protocol
from yoco.utils import device as devices
from yoco.utils import seeds
from yoco.utils.graphs import WARM_UP

Work = Callable[[], Any]


def noise(classes: int = 10, per_class: int = 300, test: int = 64, size: int = 32) -> ImageData:
    """Return noise in CIFAR-10's shapes: time does not depend on the content of images."""
    source = seeds.generator(0)

    def split(count: int) -> tuple[Tensor, Tensor]:
        images = torch.randint(0, 256, (count, 3, size, size), generator=source, dtype=torch.uint8)
        return images, torch.arange(classes).repeat_interleave(-(-count // classes))[:count]

    names = tuple(map(str, range(classes)))
    return ImageData(
        "noise", *split(classes * per_class), *split(test), names, CIFAR_MEAN, CIFAR_STD
    )


def noise_set(per_class: int) -> CondensedSet:
    """Return a set of `per_class` formed images of noise in each of 10 classes, factor 2."""
    return condense.real_set(noise(), per_class // 4, 2, 0)


def inner_loop(
    device: torch.device,
    *,
    compiled: bool,
    classes: int = 10,
    ipc: int = 10,
    per_class: int = 300,
) -> Work:
    """One inner loop of IDC with the paper's settings, factor 2, in the default precision.

    Every class is matched, then the image step and the network step on 2,000 images.
    """
    data = noise(classes, per_class)
    settings = condense.settings_for("paper", data.size, ipc, {})
    precision = devices.choose_precision("auto", device)
    steps = GradientMatching(
        data, ipc, 2, settings, seeds.generator(0), device, precision, compiled
    )
    return lambda: steps.step(1)


def training(device: torch.device, *, compiled: bool, per_class: int = 40, epochs: int = 4) -> Work:
    """Train one network on 10 × `per_class` formed images, with augmentation.

    The schedule is the paper's, shortened to `epochs`.
    """
    condensed = noise_set(per_class)
    images, labels = condensed.form()
    images = condensed.normalise(images)
    protocol = Protocol(epochs=epochs, compiled=compiled).resolved(device, 0, condensed.size)
    return lambda: train.fit(images.to(device), labels.to(device), 10, protocol, 0)


WORK: dict[str, Callable[..., Work]] = {"inner_loop": inner_loop, "train_400": training}


def wait(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if devices.is_gpu(device):
        torch.cuda.synchronize(device)


def timed(
    work: Work, device: torch.device, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return the seconds of one run, the device's work included."""
    wait(device)
    began = clock()
    work()
    wait(device)
    return clock() - began


def seconds(name: str, device: torch.device, patience: float = 8.0, most: int = 9) -> float:
    """Return the median seconds of the work `name` without compiling.

    The first runs, in which a GPU records its graphs, count only if a single one takes more than a
    third of `patience`.

    Args:
        name: in `WORK`.
        device: where it is done.
        patience: seconds after which no further run begins.
        most: most runs that count.
    """
    work, began, runs = WORK[name](device, compiled=False), time.monotonic(), list[float]()
    first = 1 + (WARM_UP if devices.is_gpu(device) else 0)
    while len(runs) < first + most and (not runs or time.monotonic() - began < patience):
        runs.append(timed(work, device))
        if runs[-1] > patience / 3:
            first = 0
    return median(runs[first:] or runs)
