"""DREAM: IDC on representative real images, chosen by k-means within each class (design §6).

They are the images nearest to the cluster centres.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from yoco import models
from yoco.condense.base import Condenser
from yoco.condense.idc import LOSS, UNENDING, GradientMatching
from yoco.condense.presets import IdcSettings, idc_values, overridden
from yoco.training import network as training
from yoco.training import timing
from yoco.utils import kmeans, seeds
from yoco.utils.fields import Count
from yoco.utils.foreign import Features


@dataclass(frozen=True)
class DreamSettings(IdcSettings):
    """Settings of DREAM: IDC's, and how the real images are chosen."""

    renew_every: Count = 10  # image steps from one choice of the real batches to the next
    # random images of a class that are clustered each time; None: all
    pool: Count | None = None


def settings_for(preset: str, size: int, ipc: int, overrides: Mapping[str, Any]) -> DreamSettings:
    """Return DREAM's preset: IDC's with twice the real images, except in `smoke`.

    `laptop` and `smoke` cluster a pool. Raises ValueError if a preset, setting or value is unknown.
    """
    values = {"real_batch": 128, **idc_values(preset, size, ipc, overrides)}
    # a renewal's embedding costs a few percent of the ten loops that it serves
    pool = None if preset == "paper" else 500
    return overridden(DreamSettings(**values, pool=pool), overrides)


class RepresentativeMatching(GradientMatching):
    """Steps of DREAM.

    Every `renew_every` steps, the images of each class (or a pool of them) are embedded by the
    current network and clustered into as many clusters as the real batch has images. The image
    nearest to each centre joins the batch.

    The start is chosen in the same way, with the embedding of a network with random weights.
    """

    settings: DreamSettings
    held = (*GradientMatching.held, "representatives")

    def choose_start(self) -> Int[Tensor, "cells"]:
        network = self._new_network().to(self.device)
        # int64 [classes, real batch], from the first step on
        self.representatives = torch.zeros(
            len(self.members), 0, dtype=torch.long, device=self.device
        )
        return self._of_each_class(network, self.formed).flatten()

    def further_work(self) -> dict[timing.Unit, int]:
        """Return IDC's further work, plus the embeddings that choose the real batches.

        An embedding has no backward pass, so three count as one.
        """
        pools = sum(
            min(len(members), self.settings.pool or len(members)) for members in self.members
        )
        return {
            unit: count + self.settings.steps // self.settings.renew_every * pools // 3
            for unit, count in super().further_work().items()
        }

    def step(self, number: int) -> float:
        self.due = (
            number % self.settings.renew_every == 0 or number % self.settings.inner_loops == 0
        )
        return super().step(number)

    def image_gradient(self) -> tuple[float, Float[Tensor, "images channels size size"]]:
        if self.due:  # with the network that this step matches, which may be a fresh one
            most = min(
                self.settings.real_batch,
                *map(len, self.members),
                self.settings.pool or self.settings.real_batch,
            )
            self.representatives = self._of_each_class(self.model, most).to(self.device)
            self.due = False
        return super().image_gradient()

    def real_batch(self, label: int) -> Int[Tensor, "images"]:
        return self.representatives[label]

    def real_batches(self) -> Int[Tensor, "classes images"]:
        return self.representatives

    def _of_each_class(self, network: nn.Module, count: int) -> Tensor:
        """Return, for each class, the images nearest to `count` centres: int64 [classes, count]."""
        chosen = torch.zeros(len(self.members), count, dtype=torch.long)
        for label, members in enumerate(self.members):
            pool = members[
                seeds.choice(
                    len(members), max(count, self.settings.pool or len(members)), self.source
                )
            ]
            if label in self.own:
                chosen[label] = self._representatives(network, pool, count)
            else:  # another rank's class: make the same draws
                kmeans.pass_over(count, self.source)
        return self.ranks.sum(chosen)

    def _representatives(self, network: nn.Module, pool: Tensor, count: int) -> Tensor:
        """Return the images of `pool` nearest to `count` centres, int64 [count]."""
        features = Features(
            network, models.head_of(self.settings.model, *models.shape_of(self.data))
        )
        with torch.no_grad():
            embedded = training.outputs(
                features, lambda part: self.real[pool[part]], len(pool), self.precision
            )
        # the network diverged: any images will do, and the loss will show it
        if not kmeans.measurable(embedded):
            embedded = torch.zeros_like(embedded)
        return pool[kmeans.representatives(embedded, count, self.source)]


CONDENSER = Condenser(
    "dream",
    settings_for,
    RepresentativeMatching,
    multi=True,
    loss=LOSS,
    unending=UNENDING,
    lbpe=(10, 200),  # the published code's
)
