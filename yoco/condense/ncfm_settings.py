"""Settings of NCFM and its presets (design §5)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from yoco.condense.base import NetworkSettings
from yoco.condense.expert_training import PairSettings
from yoco.condense.presets import overridden, values_of
from yoco.utils.fields import Count, Rate, Seed, Share, Whole

RUNS: dict[str, dict[str, Any]] = {
    "paper": {},
    "laptop": {
        "iterations": 2500,
        "real_batch": 64,
        "frequencies": 1024,
        "image_lr": 0.01,
        "final_lr": 0.001,
        "pool_networks": 3,
        "pool_epochs": 12,
    },
    "smoke": {
        "iterations": 80,
        "real_batch": 16,
        "frequencies": 128,
        "image_lr": 0.03,
        "final_lr": 0.003,
        "pool_networks": 2,
        "pool_epochs": 3,
        "pool_batch": 64,
    },
}


@dataclass(frozen=True)
class NcfmSettings(NetworkSettings):
    """Settings of NCFM. The defaults are the published ones for CIFAR-10 at ipc 10.

    The published code steps class after class and halves the learning rate when the loss stalls.
    Here all classes step at once, and the rate is constant for the first half of the run and then
    falls by a cosine to `final_lr`. Raises TypeError or ValueError if a value is out of range.
    """

    iterations: Count = 20_000  # image steps
    real_batch: Count = 1024  # real images per class and step
    frequencies: Count = 4096
    # Gaussians in the learned mixture from which frequencies are drawn; 0: standard normal
    sampler: Whole = 0
    image_lr: Rate = 0.001
    final_lr: Rate = 0.0001
    calibration: Rate = 1.0  # weight of the cross-entropy under a trained network
    calibrate_every: Count = 1  # steps
    # share of a nested prefix's gradient that reaches the smaller prefixes inside it; 0: these
    # follow only their own losses, and the smallest is condensed as if it were alone; 1: all of it
    prefix_share: Share = 0.0
    pool_networks: Count = 20
    pool_epochs: Count = 60
    # random real images per network, at most; each has a subset of its own; None: all
    pool_images: Count | None = None
    pool_lr: Rate = 0.04
    pool_batch: Count = 256
    pool_seed: Seed = 0  # independent of the run's seed, so that runs can share a pool

    @property
    def steps(self) -> int:
        return self.iterations

    @property
    def pool(self) -> PairSettings:
        """How the networks are trained."""
        return PairSettings(
            epochs=self.pool_epochs,
            model=self.model,
            width=self.width,
            images=self.pool_images,
            lr=self.pool_lr,
            batch_size=self.pool_batch,
        )

    def work(self, classes: int, formed: int) -> int:
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
    return overridden(NcfmSettings(), {**values_of(preset, RUNS, size, overrides), **overrides})
