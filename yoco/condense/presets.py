"""The presets of gradient matching: `paper` (design §6), `laptop` and `smoke`, each with its name;
IDC's among them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import nn

from yoco import models
from yoco.condense.base import LARGE, Settings
from yoco.condense.gradient_matching import DISTANCES
from yoco.data.image_data import ImageData
from yoco.training import timing
from yoco.utils import checks

PRESETS = ("paper", "laptop", "smoke")
# the paper's image step is for 200,000 steps; hundreds of them move too little (README, "Image
# step")
SHORT_RUN_LR = 20
SHORTEST_RUN_LR = 80  # for the few steps of smoke
SMOKE_WIDTH = 24  # channels of the ConvNet in the smoke preset
Given = TypeVar("Given", bound=Settings)


@dataclass(frozen=True)
class MatchingSettings(Settings):
    """What every gradient matching method is set by."""

    model: str = "convnet"
    width: int | None = None  # channels of the ConvNet's layers; None: 128
    distance: str = "l2"  # between gradients
    outer_loops: int = 2000  # each with a fresh network
    inner_loops: int = 100  # image steps with that network, a network step after each
    real_batch: int = 64  # real images a class and image step
    # cells of a class that take part in an image step, at most: random ones
    synthetic_batch: int = 128
    image_lr: float = 0.005
    image_momentum: float = 0.5
    network_batch: int = 64
    network_lr: float = 0.01
    network_momentum: float = 0.9
    network_weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", models.check_matchable(self.model))
        checks.one_of("distance", self.distance, DISTANCES)
        for name in (
            "outer_loops",
            "inner_loops",
            "real_batch",
            "synthetic_batch",
            "network_batch",
        ):
            checks.whole(name, getattr(self, name), 1)
        if self.width is not None:
            checks.whole("width", self.width, 1)
        for name in ("image_lr", "network_lr", "network_weight_decay"):
            checks.real(name, getattr(self, name), 0)
        for name in ("image_momentum", "network_momentum"):
            checks.real(name, getattr(self, name), 0, 1)

    @property
    def steps(self) -> int:
        return self.outer_loops * self.inner_loops

    def work(self, classes: int, formed: int) -> int:
        # second derivatives cost thrice
        return classes * (self.real_batch + 3 * min(formed, self.synthetic_batch))


@dataclass(frozen=True)
class IdcSettings(MatchingSettings):
    """Settings of IDC. The defaults are the paper's for CIFAR."""

    pretrain_epochs: int = 0  # of each fresh network, on the real images
    network_images: int = 2000  # real images of a network step

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("pretrain_epochs", "network_images"):
            checks.whole(name, getattr(self, name), 0)

    def work(self, classes: int, formed: int) -> int:
        return super().work(classes, formed) + self.network_images


@dataclass(frozen=True)
class Scale:
    """How long and how wide the trainings on a condensed set are, in a preset."""

    epochs: int
    recorded: int  # epochs of a run whose dynamics are recorded
    width: int | None = None  # None: the paper's 128
    batch_size: int = 64


# in smoke, small batches make the most steps of few images: 40 of them take 3 an epoch
SCALES = {
    "paper": Scale(1000, 1000),
    "laptop": Scale(200, 200),
    "smoke": Scale(10, 20, SMOKE_WIDTH, batch_size=16),
}


def default_model(size: int) -> str:
    """The paper's network for images of side `size`."""
    return "resnet10ap" if size >= LARGE else "convnet"


def unit_of(settings: Any, data: ImageData, precision: str, device: torch.device) -> timing.Network:
    """An image of `data` that passes the network of `settings` (its model and width), as `timing`
    counts them.
    """
    return timing.Network(
        settings.model,
        settings.width,
        data.channels,
        len(data.classes),
        data.size,
        precision,
        device,
    )


def network_of(settings: Any, data: ImageData, seed: int) -> nn.Module:
    """A fresh network of `settings` (its model and width) for `data`.

    Raises ValueError if condensing cannot take it.
    """
    return models.build_matchable(
        seed, settings.model, *models.shape_of(data), width=settings.width
    )


def overridden(settings: Given, overrides: Mapping[str, Any]) -> Given:
    """A preset with single values overridden.

    Raises ValueError at an unknown setting or a bad value.
    """
    for name in overrides:
        checks.one_of("setting", name, [field.name for field in fields(settings)])
    return replace(settings, **{name: checks.plain(value) for name, value in overrides.items()})


def smoke_width(overrides: Mapping[str, Any], model: str = "convnet") -> int | None:
    """Channels in the smoke preset, where the network is one whose width can be set."""
    return SMOKE_WIDTH if overrides.get("model", model) == "convnet" else None


def settings_for(preset: str, size: int, ipc: int, overrides: Mapping[str, Any]) -> IdcSettings:
    """IDC's preset for images of side `size`, scaled to `ipc`, with single values overridden.

    Raises ValueError at an unknown preset, setting or value.
    """
    return overridden(idc_preset(preset, size, ipc, overrides), overrides)


def idc_preset(preset: str, size: int, ipc: int, overrides: Mapping[str, Any]) -> IdcSettings:
    """The preset itself; of the overrides the model is looked at, which decides whether there is a
    width to set.
    """
    checks.one_of("preset", preset, PRESETS)
    large = size >= LARGE
    if large:
        base = IdcSettings(
            model=default_model(size),
            distance="l1",
            outer_loops=500,
            pretrain_epochs=10,
            network_images=500,
        )
    else:
        base = IdcSettings()
    # the paper scales the step with the number of pixels that share the gradient
    base = replace(
        base,
        image_lr=(0.003 if large else 0.005) * (ipc / 10) * (size / (224 if large else 32)) ** 2,
    )
    if preset == "laptop":
        base = replace(
            base,
            outer_loops=20,
            inner_loops=50,
            network_images=512,
            pretrain_epochs=min(base.pretrain_epochs, 1),
        )
    elif preset == "smoke":
        width = smoke_width(overrides, base.model)
        base = replace(
            base,
            outer_loops=2,
            inner_loops=8,
            real_batch=32,
            network_images=128,
            pretrain_epochs=0,
            width=width,
        )
    if preset != "paper":
        base = replace(
            base, image_lr=base.image_lr * (SHORTEST_RUN_LR if preset == "smoke" else SHORT_RUN_LR)
        )
    return base
