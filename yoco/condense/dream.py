"""DREAM: IDC on representative real images, those nearest to the centres of a k-means of their
class (design §6).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from yoco import models
from yoco.condense.base import Condenser
from yoco.condense.idc import LOSS, UNENDING, GradientMatching
from yoco.condense.presets import IdcSettings, idc_preset, overridden
from yoco.training import network as training
from yoco.training import timing
from yoco.utils import checks, kmeans, seeds
from yoco.utils.foreign import Features

REAL_BATCH = 128  # representatives of a class
# images of a class that a renewal embeds: a few percent of the ten loops that it serves
LAPTOP_POOL = 500


@dataclass(frozen=True)
class DreamSettings(IdcSettings):
    """Settings of DREAM: IDC's, and how the real images are chosen."""

    renew_every: int = 10  # image steps between two choices of the real batches
    # random images of a class that are clustered each time; None: all of them
    pool: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole("renew_every", self.renew_every, 1)
        if self.pool is not None:
            checks.whole("pool", self.pool, 1)


def settings_for(preset: str, size: int, ipc: int, overrides: Mapping[str, Any]) -> DreamSettings:
    """DREAM's preset: IDC's with twice the real images, but in `smoke`; in `laptop` and `smoke` a
    pool.

    Raises ValueError at an unknown preset, setting or value.
    """
    base = idc_preset(preset, size, ipc, overrides)
    shared = {field.name: getattr(base, field.name) for field in fields(base)}
    shared |= {} if preset == "smoke" else {"real_batch": REAL_BATCH}
    return overridden(
        DreamSettings(**shared, pool=None if preset == "paper" else LAPTOP_POOL), overrides
    )


class RepresentativeMatching(GradientMatching):
    """Steps of DREAM.

    Every `renew_every` steps, the images of each class (or a pool of them) are embedded by the
    network as it is then and clustered, as many clusters as the real batch; the image nearest to
    each centre is in the batch.

    The start is chosen the same way, by the embedding of a network with random weights.
    """

    settings: DreamSettings

    def choose_start(self) -> Tensor:
        network = self._new_network().to(self.device)
        wanted = self.ipc * self.factor**2
        # int64 [classes, real batch], from the first step on
        self.representatives = torch.zeros(len(self.members), 0, dtype=torch.long)
        return self._of_each_class(network, wanted).flatten()

    def further_work(self) -> dict[timing.Unit, int]:
        """Also what is embedded to choose the real batches; an embedding has no way back, so three
        count as one.
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

    def image_gradient(self) -> tuple[float, Tensor]:
        if self.due:  # with the network that the step matches, a fresh one perhaps
            most = min(
                self.settings.real_batch,
                *map(len, self.members),
                self.settings.pool or self.settings.real_batch,
            )
            self.representatives = self._of_each_class(self.model, most)
            self.due = False
        return super().image_gradient()

    def real_batch(self, label: int) -> Tensor:
        return self.representatives[label]

    def _of_each_class(self, network: nn.Module, count: int) -> Tensor:
        """Indices int64 [classes, count] of the images of each class that are nearest to as many
        centres.
        """
        chosen = torch.zeros(len(self.members), count, dtype=torch.long)
        for label, members in enumerate(self.members):
            pool = members[
                seeds.choice(
                    len(members), max(count, self.settings.pool or len(members)), self.source
                )
            ]
            if label in self.own:
                chosen[label] = self._representatives(network, pool, count)
            else:  # another rank's: what it draws is drawn here too
                kmeans.pass_over(count, self.source)
        return self.ranks.sum(chosen)

    def _representatives(self, network: nn.Module, pool: Tensor, count: int) -> Tensor:
        """Indices int64 [count] of the images of `pool` that are nearest to as many centres."""
        features = Features(
            network, models.head_of(self.settings.model, *models.shape_of(self.data))
        )
        with torch.no_grad():
            embedded = training.outputs(
                features, lambda part: self.real[pool[part]], len(pool), self.precision
            )
        # a network that diverged: any images do, the loss will say so
        if not kmeans.measurable(embedded):
            embedded = torch.zeros_like(embedded)
        return pool[kmeans.representatives(embedded, count, self.source)]

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), "representatives": self.representatives}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        super().restore(state)
        self.representatives = state["representatives"]


CONDENSER = Condenser(
    "dream", settings_for, RepresentativeMatching, multi=True, loss=LOSS, unending=UNENDING
)
