"""Settings of gradient matching and the presets `paper` (design §6), `laptop` and `smoke`.

IDC's presets are defined here as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, TypeVar

from torch import nn

from yoco import models
from yoco.condense.base import LARGE, NetworkSettings, Settings
from yoco.condense.gradient_matching import DISTANCES
from yoco.data.image_data import ImageData
from yoco.utils import checks
from yoco.utils.fields import Count, Rate, Share, Whole, among

PRESETS = ("paper", "laptop", "smoke")
# factors of the paper's step size, which is for 200,000 image steps: a few hundred of them would
# move too little (docs/condensation.md)
FASTER = {"paper": 1, "laptop": 20, "smoke": 80}
SMOKE_WIDTH = 24  # channels of the ConvNet in the smoke preset
# what IDC's presets change of the paper's settings for CIFAR: for large images, and for short runs
LARGE_IMAGES = {"distance": "l1", "outer_loops": 500, "network_images": 500}
PRETRAIN_EPOCHS = {"paper": 10, "laptop": 1, "smoke": 0}  # for large images
RUNS: dict[str, dict[str, Any]] = {
    "paper": {},
    "laptop": {"outer_loops": 20, "inner_loops": 50, "network_images": 512},
    "smoke": {"outer_loops": 2, "inner_loops": 8, "real_batch": 32, "network_images": 128},
}
Given = TypeVar("Given", bound=Settings)


@dataclass(frozen=True)
class MatchingSettings(NetworkSettings):
    """The settings that every gradient matching method has."""

    distance: Annotated[str, among(DISTANCES)] = "l2"  # between gradients
    outer_loops: Count = 2000  # each with a fresh network
    inner_loops: Count = 100  # image steps with that network, each followed by a network step
    real_batch: Count = 64  # real images per class and image step
    # random cells of a class that take part in an image step, at most
    synthetic_batch: Count = 128
    image_lr: Rate = 0.005
    image_momentum: Share = 0.5
    network_batch: Count = 64
    network_lr: Rate = 0.01
    network_momentum: Share = 0.9
    network_weight_decay: Rate = 5e-4

    @property
    def steps(self) -> int:
        return self.outer_loops * self.inner_loops

    def work(self, classes: int, formed: int) -> int:
        # second derivatives cost three times as much
        return classes * (self.real_batch + 3 * min(formed, self.synthetic_batch))


@dataclass(frozen=True)
class IdcSettings(MatchingSettings):
    """Settings of IDC. The defaults are the paper's for CIFAR."""

    pretrain_epochs: Whole = 0  # of each fresh network, on the real images
    network_images: Whole = 2000  # real images per network step

    def work(self, classes: int, formed: int) -> int:
        return super().work(classes, formed) + self.network_images


@dataclass(frozen=True)
class Scale:
    """A preset's epochs and network width for training on a condensed set."""

    epochs: int
    recorded: int  # epochs of a run that records dynamics
    width: int | None = None  # None: the paper's 128
    batch_size: int = 64


# in smoke, small batches give more steps with few images: 40 images make 3 steps per epoch
SCALES = {
    "paper": Scale(1000, 1000),
    "laptop": Scale(200, 200),
    "smoke": Scale(10, 20, SMOKE_WIDTH, batch_size=16),
}


def default_model(size: int) -> str:
    """Return the paper's network for images of side `size`."""
    return "resnet10ap" if size >= LARGE else "convnet"


def network_of(settings: Any, data: ImageData, seed: int) -> nn.Module:
    """Return a fresh network for `data`, with the model and width of `settings`.

    Raises ValueError if condensing cannot use it.
    """
    return models.build_matchable(
        seed, settings.model, *models.shape_of(data), width=settings.width
    )


def overridden(settings: Given, overrides: Mapping[str, Any]) -> Given:
    """Return a preset with single values overridden.

    Raises ValueError if a setting is unknown or a value is bad.
    """
    for name in overrides:
        checks.one_of("setting", name, [field.name for field in fields(settings)])
    return replace(settings, **{name: checks.plain(value) for name, value in overrides.items()})


def values_of(
    preset: str,
    runs: Mapping[str, Mapping[str, Any]],
    size: int,
    overrides: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the values that a preset sets: its network and its row of `runs`.

    The network is the paper's for images of side `size`. A ConvNet is narrow in `smoke`, also if it
    is an override. Raises ValueError if the preset is unknown.
    """
    model = default_model(size)
    row = {"model": model, **runs[checks.one_of("preset", preset, PRESETS)]}
    if preset == "smoke" and overrides.get("model", model) == "convnet":
        row["width"] = SMOKE_WIDTH
    return row


def settings_for(preset: str, size: int, ipc: int, overrides: Mapping[str, Any]) -> IdcSettings:
    """Return IDC's preset for images of side `size`, scaled to `ipc`.

    `overrides` replace single values. Raises ValueError if a preset, setting or value is unknown.
    """
    return overridden(IdcSettings(**idc_values(preset, size, ipc, overrides)), overrides)


def idc_values(preset: str, size: int, ipc: int, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that IDC's preset sets, before overriding; see `values_of`."""
    values = values_of(preset, RUNS, size, overrides)
    rate, native = 0.005, 32
    if size >= LARGE:
        values = {**LARGE_IMAGES, "pretrain_epochs": PRETRAIN_EPOCHS[preset], **values}
        rate, native = 0.003, 224
    # the paper scales the step size with the number of pixels that share the gradient
    return {**values, "image_lr": rate * (ipc / 10) * (size / native) ** 2 * FASTER[preset]}
