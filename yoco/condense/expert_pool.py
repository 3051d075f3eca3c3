"""The experts that one condensation follows.

They are trained before its first step, divided over the ranks, and shared by runs through a folder.
"""

import functools
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
        self.ranks, self.folder, self.count = work.ranks, folder, count
        self.unit = timing.Network.of(settings, work.data, work.precision, work.device)
        self.images = settings.epochs * settings.taken(work.data)  # of each, over all epochs
        self.train = functools.partial(
            train_experts,
            work.data,
            folder,
            settings,
            count=count,
            seed=seed,
            device=work.device,
            precision=work.precision,
            compiled=work.compiled,
            progress=progress and work.ranks.first,
        )

    def work(self) -> dict[timing.Unit, int]:
        """Return the images that the missing experts will train on, over all epochs."""
        return {self.unit: missing(self.folder, self.count) * self.images}

    @functools.cached_property
    def experts(self) -> Experts:
        """The experts; missing ones are trained first."""
        return self.train()

    def ready(self, time_budget: float | None) -> bool:
        """Train the missing experts; False if `time_budget` seconds were too few on any rank."""
        if self.ranks.size > 1 and self.folder is not None:
            own = self.ranks.part(self.count)
            if not self._all_have(self.train(only=own, time_budget=time_budget), len(own)):
                return False
            time_budget = None  # all are made: any that this rank cannot see it has to make
        trained = self.train(time_budget=time_budget)
        if complete := self._all_have(trained, self.count):
            self.experts = trained
        return complete

    def _all_have(self, trained: Experts, wanted: int) -> bool:
        self.ranks.meet()
        return bool(self.ranks.sum(torch.tensor(int(len(trained) == wanted))) == self.ranks.size)


class Pooled(Condensing):
    """Steps that follow the experts of a `pool`, which are trained before the first step."""

    pool: Pool

    def further_work(self) -> dict[timing.Unit, int]:
        """Return the epochs of the missing experts."""
        return self.pool.work()

    def prepare(self, time_budget: float | None) -> bool:
        """Train the missing experts; False if the time of any rank ran out before the last one."""
        return self.pool.ready(time_budget)
