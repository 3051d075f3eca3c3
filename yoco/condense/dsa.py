"""DSA: gradient matching of every layer by row-wise cosine (design §6).

Each step has one siamese augmentation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor

from yoco import augment, formation
from yoco.condense.base import Condenser
from yoco.condense.gradient_matching import DISTANCES, layer_weights
from yoco.condense.idc import LOSS, UNENDING, GradientMatching
from yoco.condense.presets import MatchingSettings, overridden, values_of
from yoco.training import timing
from yoco.utils.fields import Rate, Share, Whole, among

# by ipc: image steps per network, network epochs after each
LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}


@dataclass(frozen=True)
class DsaSettings(MatchingSettings):
    """Settings of DSA.

    image_lr is for normalised images: a pixel in 0..1 moves by image_lr · std² · its gradient. The
    network's optimiser is plain SGD.
    """

    distance: Annotated[str, among(DISTANCES)] = "cosine"
    image_lr: Rate = 0.1
    network_momentum: Share = 0.0
    network_weight_decay: Rate = 0.0

    # on the condensed images, after each image step except a network's last
    network_epochs: Whole = 50

    def work(self, classes: int, formed: int) -> int:
        return super().work(classes, formed) + self.network_epochs * classes * formed


def settings_for(preset: str, size: int, ipc: int, overrides: Mapping[str, Any]) -> DsaSettings:
    """Return DSA's preset for images of side `size`, with the loops of the nearest published IPC.

    Raises ValueError if a preset, setting or value is unknown.
    """
    inner, epochs = LOOPS[min(LOOPS, key=lambda given: abs(given - ipc))]
    runs = {
        "paper": {
            "outer_loops": 1000,  # as in the published code
            "inner_loops": inner,
            "network_epochs": epochs,
            "real_batch": 256,
            "network_batch": 256,
        },
        "laptop": {
            "outer_loops": 60,
            "inner_loops": min(inner, 10),
            "network_epochs": min(epochs, 10),
            "network_batch": 256,
        },
        "smoke": {"outer_loops": 6, "inner_loops": 10, "network_epochs": 5},
    }
    return overridden(DsaSettings(**values_of(preset, runs, size, overrides)), overrides)


class SiameseMatching(GradientMatching):
    """Steps of DSA: all layers are matched, and the network trains on the condensed images."""

    settings: DsaSettings
    matching = augment.Augmentation(augment.OPERATIONS, shared=True, single=True)
    training = augment.Augmentation(augment.OPERATIONS, single=True)
    matched = staticmethod(layer_weights)

    def step(self, number: int) -> float:
        self.last = (number + 1) % self.settings.inner_loops == 0
        return super().step(number)

    def further_work(self) -> dict[timing.Unit, int]:
        """Return no further work: the network is first matched with random weights."""
        return {}

    def prepare_network(self) -> None:
        """Do nothing: the network is first matched with random weights."""

    def update_network(self) -> None:
        if self.last:  # a fresh network comes next
            return
        images = self._normalise(formation.form(self.images, self.factor))
        labels = torch.arange(len(self.members), device=self.device).repeat_interleave(
            len(images) // len(self.members)
        )
        for _ in range(self.settings.network_epochs):
            self._train_network(images, labels, cutmix=0)

    @property
    def pixel_lr(self) -> Float[Tensor, "1 channels 1 1"]:
        return self.settings.image_lr * torch.as_tensor(self.real.std).view(1, -1, 1, 1) ** 2


CONDENSER = Condenser(
    "dsa", settings_for, SiameseMatching, loss=LOSS, unending=UNENDING, lbpe=(3, 100)
)
