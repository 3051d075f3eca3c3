"""Pruning under noise: how many damaged images each rule keeps, and the resulting accuracy.

Also repairs of LBPE.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from yoco import prune, scores
from yoco.data.image_data import ImageData
from yoco.dynamics.dynamics import Dynamics
from yoco.experiments import study
from yoco.experiments.grid import Cell, check_recorded_alike
from yoco.sets.condensed_set import CondensedSet
from yoco.training.protocol import Protocol
from yoco.utils import checks
from yoco.utils import seeds as random_state
from yoco.utils.lazy import pd

CLEAN = "clean"  # kind of damage of a set without damage
PLACES = ("formed", "real")  # cells damaged after condensing, or real images before it


@dataclass(frozen=True, eq=False)
class Case:
    """One set with damage, and the training runs recorded on it.

    Attributes:
        place: "formed" if its cells were damaged, "real" if the training images were, before
            condensing.
        kind: one of `corruption.KINDS`, or "clean".
        percent: damaged share of each class.
        condensed: the set.
        damaged: which formed images are damaged, or which of the training images that the cells
            started from.
        dynamics: the training runs.
    """

    place: str
    kind: str
    percent: int
    condensed: CondensedSet
    damaged: Bool[Tensor, "images"]
    dynamics: Sequence[Dynamics]

    @property
    def labels(self) -> dict[str, Any]:
        """Columns of its rows."""
        return {"place": self.place, "kind": self.kind, "percent": self.percent}


def _every_run(condensed: CondensedSet, dynamics: Sequence[Dynamics]) -> Tensor:
    """Return LBPE of each run, float [R, N]."""
    return torch.stack([scores.LBPE.read(condensed, recorded) for recorded in dynamics])


# scores in place of LBPE, whose low end is kept in balanced classes: (set, all runs, number of the
# run) -> float [N], higher is harder
REPAIRS: dict[str, Callable[[CondensedSet, Sequence[Dynamics], int], Tensor]] = {
    "early": lambda condensed, dynamics, number: scores.EL2N.read(condensed, dynamics[number]),
    "trimmed": lambda condensed, dynamics, number: scores.LBPE.read(
        condensed, dynamics[number], average="trimmed"
    ),
    "all runs": lambda condensed, dynamics, number: _every_run(condensed, dynamics).mean(0),
    "two-sided": lambda condensed, dynamics, number: scores.two_sided(
        _every_run(condensed, dynamics), condensed.formed_labels
    ),
}


def every_rule() -> list[str]:
    """Return the names of every pruning method for any set, and of every repair."""
    return [*prune.compared(), *REPAIRS]


def keep(case: Case, rule: str, ipc_to: int, number: int) -> prune.Selection:
    """Return what a rule keeps of a case at a budget, by the case's run `number`.

    Repairs may use all runs. rule: a name in `prune.METHODS`, with its own end and balance, or in
    `REPAIRS`: "early" (LBPE's formula over the first epochs, before wrong labels are memorised:
    EL2N), "trimmed" (the robust mean over the epochs), "all runs" (LBPE averaged over the runs),
    "two-sided" (`scores.two_sided`). Raises as `prune.prune`.
    """
    checks.one_of("rule", rule, (*prune.METHODS, *REPAIRS))
    condensed = case.condensed
    if rule in prune.METHODS:
        return prune.prune(condensed, case.dynamics[number], rule, ipc_to, seed=number)
    ipc_to = checks.whole("ipc_to", ipc_to, 1, condensed.ipc)
    wanted = prune.Wanted(ipc_to, ipc_to * condensed.factor**2, "easy", True, number)
    score = REPAIRS[rule](condensed, case.dynamics, number)
    indices = prune.select(
        score, condensed.formed_labels, wanted.per_class, keep=wanted.keep, balanced=wanted.balanced
    )
    return prune.selection_of(condensed, indices, rule, wanted)


def kept(case: Case, selection: prune.Selection) -> dict[str, float]:
    """Return how many formed images a selection keeps and how many of them are damaged.

    precision: damaged share of what is kept. recall: share of all damaged images that is kept (NaN
    if nothing is damaged). Both in %.
    """
    stays, bad, all_bad = (
        len(selection.indices),
        int(case.damaged[selection.indices].sum()),
        int(case.damaged.sum()),
    )
    return {
        "kept": stays,
        "damaged": bad,
        "precision": 100 * bad / stays,
        "recall": 100 * bad / all_bad if all_bad else math.nan,
    }


def detection(case: Case) -> pd.DataFrame:
    """Return how well each score finds the damaged images: the area under the ROC curve.

    It is 1 if every damaged image is harder than every other one, 0.5 for chance. Columns: those of
    the case, score, dynamics, auc; no rows if nothing is damaged.
    """
    with random_state.importing():
        from sklearn.metrics import roc_auc_score

    rows = []
    for number, recorded in enumerate(case.dynamics if case.damaged.any() else ()):
        table = prune.score_table(case.condensed, recorded)
        found = {
            name: -table[name] if scores.SCORES[name].direction == "low" else table[name]
            for name in prune.score_names(table)
        }
        found |= {
            name: repair(case.condensed, case.dynamics, number) for name, repair in REPAIRS.items()
        }
        rows += [
            {
                **case.labels,
                "score": name,
                "dynamics": number,
                "auc": roc_auc_score(case.damaged, hard),
            }
            for name, hard in found.items()
        ]
    table = pd.DataFrame(rows, columns=["place", "kind", "percent", "score", "dynamics", "auc"])
    return table.astype({"percent": int, "dynamics": int, "auc": float})  # even if it is empty


def compare(
    cases: Sequence[Case],
    data: ImageData,
    rules: Sequence[str] | None = None,
    *,
    ipc_to: Sequence[int] = (1,),
    trained_to: Sequence[int] = (1,),
    seed: int = 0,
    seeds: int = 1,
    results: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = True,
    **options: Any,
) -> pd.DataFrame:
    """Apply rules to every case at every budget, and train networks on what they keep.

    Args:
        cases: sets with damage, and their runs.
        data: the real data to test on.
        rules: None: all of `every_rule`.
        ipc_to: budgets.
        trained_to: those of the budgets at which networks are trained.
        seed: the first training seed.
        seeds: training seeds per run of a case; each run has its own, the same for every rule.
        results, executor, progress: as in `study.train`.
        **options: fields of `protocol.Protocol`.

    Returns:
        A table with columns place, kind, percent, method (the rule), ipc_to, dynamics, seed, kept,
            damaged, precision, recall (see `kept`), accuracy (%), fingerprint, epochs, and
            arithmetic (the numerical precision); the last four are missing if nothing was trained.

    Raises:
        TypeError, ValueError: as `prune.prune` and `study.train`.
    """
    checks.different("ipc_to", list(ipc_to))
    checks.whole("seeds", seeds, 1)
    if odd := [budget for budget in trained_to if budget not in ipc_to]:
        raise ValueError(f"trained_to must hold budgets of ipc_to={list(ipc_to)}, got {odd}")
    protocol = Protocol.of(**options)
    for case in cases:
        check_recorded_alike(case.dynamics, protocol)
    rows: list[dict[str, Any]] = []
    cells, trained = [], []
    for case, rule, budget in product(cases, every_rule() if rules is None else rules, ipc_to):
        for number in range(len(case.dynamics)):
            selection = keep(case, rule, budget, number)
            named = {**case.labels, "method": rule, "ipc_to": budget, "dynamics": number}
            found = {**named, **kept(case, selection)}
            first = seed + number * seeds
            for own in range(first, first + (seeds if budget in trained_to else 1)):
                if budget in trained_to:
                    trained.append(len(rows))
                    cells.append(Cell(case.condensed, selection, number, own, protocol, {}))
                rows.append({**found, "seed": own})
    accuracies = study.train(cells, data, results=results, executor=executor, progress=progress)
    # nothing trained: a table without columns
    extra = accuracies.reindex(columns=["accuracy", "fingerprint", "epochs", "precision"])
    extra = extra.set_axis(trained).rename(columns={"precision": "arithmetic"})
    table = pd.DataFrame(rows).join(extra)
    return table.astype({"epochs": "Int64"})


def gains(table: pd.DataFrame, against: str = "yoco") -> pd.DataFrame:
    """Return every rule's accuracy minus that of the rule `against`, paired over runs and seeds.

    Columns: place, kind, percent, ipc_to, method, mean, std (sample, in points), n. table: from
    `compare`. Raises ValueError if it lacks the rule.
    """
    checks.one_of("against", against, set(table["method"]))
    keys = ["place", "kind", "percent", "ipc_to"]
    wide = table.dropna(subset="accuracy").pivot_table(
        index=[*keys, "dynamics", "seed"], columns="method", values="accuracy", sort=False
    )
    gaps = wide.drop(columns=against).sub(wide[against], axis=0)
    long = gaps.melt(ignore_index=False, var_name="method", value_name="gain").reset_index()
    return (
        long.groupby([*keys, "method"], sort=False)["gain"]
        .agg(mean="mean", std="std", n="count")
        .reset_index()
    )
