"""Settings of NCFM and its presets (design §5)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from yoco.condense.base import Settings
from yoco.condense.expert_settings import PairSettings
from yoco.condense.presets import PRESETS, default_model, overridden, smoke_width
from yoco.utils import checks


@dataclass(frozen=True)
class NcfmSettings(Settings):
    """Settings of NCFM. The defaults are the published ones for CIFAR-10 at ipc 10.

    The published code steps class after class and halves the learning rate when the loss stalls.
    Here all classes step at once, and the rate is constant for the first half of the run and then
    falls by a cosine to `final_lr`. Raises TypeError or ValueError if a value is out of range.
    """

    model: str = "convnet"  # network of the pool
    width: int | None = None  # channels of the ConvNet's layers; None: 128
    iterations: int = 20_000  # image steps
    real_batch: int = 1024  # real images per class and step
    frequencies: int = 4096
    # Gaussians in the learned mixture from which frequencies are drawn; 0: standard normal
    sampler: int = 0
    image_lr: float = 0.001
    final_lr: float = 0.0001
    calibration: float = 1.0  # weight of the cross-entropy under a trained network
    calibrate_every: int = 1  # steps
    # share of a nested prefix's gradient that reaches the smaller prefixes inside it; 0: these
    # follow only their own losses, and the smallest is condensed as if it were alone; 1: all of it
    prefix_share: float = 0.0
    pool_networks: int = 20
    pool_epochs: int = 60
    # random real images per network, at most; each has a subset of its own; None: all
    pool_images: int | None = None
    pool_lr: float = 0.04
    pool_batch: int = 256
    pool_seed: int = 0  # independent of the run's seed, so that runs can share a pool

    def __post_init__(self) -> None:
        for name in ("iterations", "real_batch", "frequencies", "calibrate_every", "pool_networks"):
            checks.whole(name, getattr(self, name), 1)
        checks.whole("sampler", self.sampler, 0)
        for name in ("image_lr", "final_lr", "calibration", "pool_lr"):
            checks.real(name, getattr(self, name), 0)
        checks.real("prefix_share", self.prefix_share, 0, 1)
        for name in ("pool_epochs", "pool_batch"):
            checks.whole(name, getattr(self, name), 1)
        if self.pool_images is not None:
            checks.whole("pool_images", self.pool_images, 1)
        checks.seed("pool_seed", self.pool_seed)
        object.__setattr__(self, "model", self.pool.model)  # checked and turned into text

    @property
    def steps(self) -> int:
        return self.iterations

    @property
    def pool(self) -> PairSettings:
        """How the networks are trained."""
        network: dict[str, Any] = {
            "model": self.model,
            "width": self.width,
            "lr": self.pool_lr,
            "batch_size": self.pool_batch,
        }
        return PairSettings(epochs=self.pool_epochs, images=self.pool_images, **network)

    def work(self, classes: int, formed: int) -> int:
        """Return roughly the images that go through a network per step.

        This decides whether compiling pays.
        """
        return classes * (self.real_batch + 4 * formed)

    def lr_at(self, number: int) -> float:
        """Return the learning rate of step `number`."""
        late = max(0.0, 2 * number / self.steps - 1)
        return self.final_lr + (self.image_lr - self.final_lr) * (1 + math.cos(math.pi * late)) / 2


def settings_for(preset: str, size: int, ipc: int, overrides: Mapping[str, Any]) -> NcfmSettings:
    """Return the preset for images of side `size`, with single values overridden.

    `laptop` and `smoke` take fewer and larger steps. Raises ValueError if a preset, setting or
    value is unknown.
    """
    checks.one_of("preset", preset, PRESETS)
    values: dict[str, Any] = {"model": default_model(size)}
    if preset != "paper":
        values |= {"image_lr": 0.01, "final_lr": 0.001}
    if preset == "laptop":
        values |= {"iterations": 2500, "real_batch": 64, "frequencies": 1024}
        values |= {"pool_networks": 3, "pool_epochs": 12}
    elif preset == "smoke":
        values |= {
            "width": smoke_width(overrides, values["model"]),
            "iterations": 80,
            "real_batch": 16,
            "frequencies": 128,
        }
        values |= {"image_lr": 0.03, "final_lr": 0.003}
        values |= {"pool_networks": 2, "pool_epochs": 3, "pool_batch": 64}
    return overridden(NcfmSettings(), {**values, **overrides})
