"""The grid of a study: one `Cell` per training run, of variants × budgets × dynamics × seeds."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from yoco import models
from yoco.dynamics.dynamics import Dynamics
from yoco.evaluate import Training
from yoco.experiments.results_file import COLUMNS
from yoco.prune.methods import prune
from yoco.prune.select import Selection
from yoco.sets.condensed_set import CondensedSet
from yoco.training.protocol import BEFORE, PROTOCOLS, Protocol
from yoco.utils import checks


@dataclass(frozen=True, eq=False)
class Cell:
    """One training of a grid.

    Attributes:
        condensed, selection: the set, and what is kept of it.
        dynamics: number of the dynamics behind the selection.
        seed: training seed.
        protocol: how it is trained.
        labels: further columns of its row, including the options of `prune`.
    """

    condensed: CondensedSet
    selection: Selection
    dynamics: int
    seed: int
    protocol: Protocol
    labels: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of what determines its accuracy: set, selection, protocol, seed."""
        digest = hashlib.sha256(self.condensed.fingerprint.encode())
        digest.update(self.selection.indices.numpy().tobytes())
        protocol = {
            name: value
            for name, value in asdict(self.protocol).items()
            if (name, value) not in BEFORE.items()
        }
        protocol |= models.layout(self.protocol.model, *models.shape_of(self.condensed))
        digest.update(repr((sorted(protocol.items()), self.seed)).encode())
        return digest.hexdigest()[:16]

    def row(self, precision: str) -> dict[str, Any]:
        """Return its columns, with the accuracy still missing."""
        s, p = self.selection, self.protocol
        values = (
            self.condensed.method,
            s.method,
            s.keep,
            s.balanced,
            s.ipc_to,
            self.dynamics,
            self.seed,
            p.epochs,
            self.fingerprint,
            self.condensed.info.get("preset", ""),
            p.model,
            str(p.width or ""),
            *(getattr(p, name) for name in BEFORE),
            precision,
        )
        return {
            **dict(zip(COLUMNS, values)),
            "accuracy": None,
            **{k: v for k, v in self.labels.items() if k not in COLUMNS},
        }


def grid(
    condensed: CondensedSet,
    dynamics: Sequence[Dynamics | None],
    variants: Sequence[Mapping[str, Any]],
    *,
    ipc_to: Sequence[int] = (1, 2, 5),
    seeds: Sequence[int] = (0,),
    epochs: int | Mapping[int, int] = 1000,
    labels: Mapping[str, Any] | None = None,
    **options: Any,
) -> list[Cell]:
    """Return the cells of variants × budgets × dynamics × seeds, seeds changing fastest.

    Args:
        condensed: the set.
        dynamics: training runs on it; an entry is None if no variant needs it. Its number seeds the
            draws of its selections (random, SSP, CCS), so that "random" is averaged over as many
            draws as there are runs.
        variants: arguments of `prune`, for example {"method": "yoco", "balanced": False}.
        ipc_to: budgets.
        seeds: training seeds.
        epochs: for every training, or by budget.
        labels: further columns of every row.
        **options: fields of `protocol.Protocol`, and `protocol`, "even" or "paper" (see
            `Protocol.of`).

    Raises:
        TypeError, ValueError: if an argument is bad, or dynamics were recorded with another
            last_batch or augmentation than the training runs have.
    """
    checks.sequence("variants", variants)
    for recorded in checks.sequence("dynamics", dynamics):
        recorded is None or checks.instance("dynamics", recorded, Dynamics)
    seeds = [checks.seed("seeds", seed) for seed in checks.sequence("seeds", seeds)]
    ipc_to = [checks.whole("ipc_to", ipc, 1) for ipc in checks.sequence("ipc_to", ipc_to)]
    for name, values in (("ipc_to", ipc_to), ("seeds", seeds)):
        checks.different(name, values)
    by_budget = epochs if isinstance(epochs, Mapping) else dict.fromkeys(ipc_to, epochs)
    if lacking := [budget for budget in ipc_to if budget not in by_budget]:
        raise ValueError(
            f"epochs must have a number for ipc_to {lacking}, got only {list(by_budget)}"
        )
    protocols = {budget: Protocol.of(epochs=by_budget[budget], **options) for budget in ipc_to}
    check_recorded_alike(dynamics, protocols[ipc_to[0]])
    return [
        Cell(condensed, selection, number, seed, protocols[budget], {**(labels or {}), **variant})
        for variant in variants
        for budget in ipc_to
        for number, recorded in enumerate(dynamics)
        for selection in [prune(condensed, recorded, ipc_to=budget, seed=number, **variant)]
        for seed in seeds
    ]


def check_recorded_alike(dynamics: Sequence[Dynamics | None], protocol: Protocol) -> None:
    """Raise ValueError if dynamics differ from the training in last_batch or augmentation.

    The same if none could be recorded in the training's way, even if a study needs none: its rows
    would not say how they were trained.
    """
    protocol.check_recorded()
    for number, recorded in enumerate(dynamics):
        for name, value in (recorded.training if recorded is not None else {}).items():
            if value != getattr(protocol, name):
                named = [
                    f"protocol={key!r}"
                    for key, fields in PROTOCOLS.items()
                    if fields.get(name) == value
                ]
                raise ValueError(
                    f"dynamics[{number}] were recorded with {name}={value!r}, but training uses "
                    f"{getattr(protocol, name)!r}; record them again, or train with "
                    f"{(named or [f'{name}={value!r}'])[0]}"
                )


def trainings(cells: Sequence[Cell]) -> list[Training]:
    """Return what `evaluate.accuracies` trains on, for each cell."""
    formed = {cell.condensed: cell.condensed.form() for cell in cells}  # once per set
    parts = [(cell, *formed[cell.condensed]) for cell in cells]
    return [
        Training(
            images[c.selection.indices],
            labels[c.selection.indices],
            c.seed,
            c.protocol,
            c.condensed.space,
        )
        for c, images, labels in parts
    ]
