"""The experts that one condensation follows.

They are trained before its first step, divided over the ranks, and shared by runs through a folder.
"""

import functools
from collections.abc import Collection
from pathlib import Path

import torch

from yoco.condense.base import Condensing
from yoco.condense.expert_training import ExpertSettings
from yoco.condense.mtt_experts import Experts, missing, train_experts
from yoco.training import timing


class Pool:
    """`count` experts of one method.

    Args:
        work: the condensation, which says where and how they are trained; with several ranks, each
            trains its part of them if there is a folder.
        folder: keeps the experts (see `train_experts`); None trains them for this run only.
        settings: how they are trained.
        count: number of experts.
        seed: their seed, independent of the run's, so that runs can share a folder.
        progress: show a progress bar (on rank 0).
    """

    def __init__(
        self,
        work: Condensing,
        folder: str | Path | None,
        settings: ExpertSettings,
        count: int,
        seed: int,
        progress: bool,
    ) -> None:
        self.data, self.ranks, self.folder = work.data, work.ranks, folder
        self.settings, self.count, self.seed = settings, count, seed
        self.device, self.precision, self.compiled = work.device, work.precision, work.compiled
        self.progress = progress and work.ranks.first

    def work(self) -> dict[timing.Unit, int]:
        """Return the images that the missing experts will train on, over all epochs."""
        unit = timing.Network.of(self.settings, self.data, self.precision, self.device)
        images = self.settings.epochs * self.settings.taken(self.data)
        return {unit: missing(self.folder, self.count) * images}

    @functools.cached_property
    def experts(self) -> Experts:
        """The experts; missing ones are trained first."""
        return self._trained(None)

    def ready(self, time_budget: float | None) -> bool:
        """Train the missing experts; False if `time_budget` seconds were too few on any rank."""
        if self.ranks.size > 1 and self.folder is not None:
            own = self.ranks.part(self.count)
            if not self._all_have(self._trained(time_budget, own), len(own)):
                return False
            time_budget = None  # all are made: any that this rank cannot see it has to make
        trained = self._trained(time_budget)
        if complete := self._all_have(trained, self.count):
            self.experts = trained
        return complete

    def _all_have(self, trained: Experts, wanted: int) -> bool:
        self.ranks.meet()
        return bool(self.ranks.sum(torch.tensor(int(len(trained) == wanted))) == self.ranks.size)

    def _trained(self, time_budget: float | None, only: Collection[int] | None = None) -> Experts:
        return train_experts(
            self.data,
            self.folder,
            self.settings,
            count=self.count,
            only=only,
            seed=self.seed,
            device=self.device,
            precision=self.precision,
            compiled=self.compiled,
            progress=self.progress,
            time_budget=time_budget,
        )


class Pooled(Condensing):
    """Steps that follow the experts of a `pool`, which are trained before the first step."""

    pool: Pool

    def further_work(self) -> dict[timing.Unit, int]:
        """Return the epochs of the missing experts."""
        return self.pool.work()

    def prepare(self, time_budget: float | None) -> bool:
        """Train the missing experts; False if the time of any rank ran out before the last one."""
        return self.pool.ready(time_budget)
