"""Who keeps whom: damaged images among what each pruning rule keeps, the accuracy that follows, and
repairs of LBPE.
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
from torch import Tensor

from yoco import prune, scores
from yoco.data.image_data import ImageData
from yoco.dynamics.dynamics import Dynamics
from yoco.experiments import study
from yoco.experiments.grid import Cell, check_recorded_alike
from yoco.prune.methods import METHODS
from yoco.prune.select import Selection
from yoco.scores import EL2N, LBPE, SCORES
from yoco.sets.condensed_set import CondensedSet
from yoco.training.network import Protocol
from yoco.utils import checks
from yoco.utils.lazy import pd

CLEAN = "clean"  # the kind of damage of a set that has none
PLACES = ("formed", "real")  # damaged after condensing, or the real images before it


@dataclass(frozen=True, eq=False)
class Case:
    """One set with damage, and the training runs recorded on it.

    place: "formed" where its cells were damaged, "real" where the training images were, before
    condensing; kind: of `corruption.KINDS`, or "clean"; percent: damaged, of each class; damaged:
    bool [N * factor²], which formed images, or which of the training images that the cells started
    from.
    """

    place: str
    kind: str
    percent: int
    condensed: CondensedSet
    damaged: Tensor
    dynamics: Sequence[Dynamics]

    @property
    def labels(self) -> dict[str, Any]:
        """Columns of its rows."""
        return {"place": self.place, "kind": self.kind, "percent": self.percent}


def _every_run(condensed: CondensedSet, dynamics: Sequence[Dynamics]) -> Tensor:
    """LBPE of each of the runs, float [R, N]."""
    return torch.stack([LBPE.read(condensed, recorded) for recorded in dynamics])


# scores in LBPE's place, low in balanced classes: (set, all runs, number of the run) -> float [N],
# high is hard
REPAIRS: dict[str, Callable[[CondensedSet, Sequence[Dynamics], int], Tensor]] = {
    "early": lambda condensed, dynamics, number: EL2N.read(condensed, dynamics[number]),
    "trimmed": lambda condensed, dynamics, number: LBPE.read(
        condensed, dynamics[number], average="trimmed"
    ),
    "all runs": lambda condensed, dynamics, number: _every_run(condensed, dynamics).mean(0),
    "two-sided": lambda condensed, dynamics, number: scores.two_sided(
        _every_run(condensed, dynamics), condensed.formed_labels
    ),
}


def every_rule() -> list[str]:
    """Every pruning method for any set, and every repair."""
    return [*prune.compared(), *REPAIRS]


def keep(case: Case, rule: str, ipc_to: int, number: int) -> Selection:
    """What a rule keeps of a case at a budget, by its run `number` (a repair may look at all runs).

    rule: a name in `prune.METHODS`, by its own end and balance, or in `REPAIRS`: "early" (LBPE's
    formula over the first epochs, before wrong labels are learned by heart: EL2N), "trimmed" (the
    robust mean over the epochs), "all runs" (LBPE, averaged over the runs), "two-sided" (the cut by
    agreement, `scores.two_sided`). Raises as `prune.prune`.
    """
    checks.one_of("rule", rule, (*METHODS, *REPAIRS))
    condensed = case.condensed
    if rule in METHODS:
        return prune.prune(condensed, case.dynamics[number], rule, ipc_to, seed=number)
    ipc_to = checks.whole("ipc_to", ipc_to, 1, condensed.ipc)
    wanted = prune.Wanted(ipc_to, ipc_to * condensed.factor**2, "easy", True, number)
    score = REPAIRS[rule](condensed, case.dynamics, number)
    indices = prune.select(
        score, condensed.formed_labels, wanted.per_class, keep=wanted.keep, balanced=wanted.balanced
    )
    return prune.selection_of(condensed, indices, rule, wanted)


def kept(case: Case, selection: Selection) -> dict[str, float]:
    """How many formed images stay and how many of them are damaged; precision: the damaged share of
    what stays, recall: the share of all damaged that stays (NaN where nothing is damaged), both in
    %.
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
    """How well each score tells the damaged images: the area under the ROC curve, 1 where every
    damaged image is harder than every other one, 0.5 for chance. Columns: those of the case, score,
    dynamics, auc; no row where nothing is damaged.
    """
    from sklearn.metrics import roc_auc_score

    rows = []
    for number, recorded in enumerate(case.dynamics if case.damaged.any() else ()):
        table = prune.score_table(case.condensed, recorded)
        found = {
            name: -table[name] if SCORES[name].direction == "low" else table[name]
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
    return table.astype({"percent": int, "dynamics": int, "auc": float})  # also where it is empty


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
    """Every rule (or those given) on every case at every budget, and the accuracy of networks
    trained on what stays.

    ipc_to: budgets; trained_to: those of them that are trained at. seed: the first of the
    trainings' seeds, of which each run of a case has `seeds` of its own, the same for every rule.
    results, executor: as of `study.train`; options: fields of `network.Protocol`. Returns a table
    with columns place, kind, percent, method (the rule), ipc_to, dynamics, seed, kept, damaged,
    precision, recall (see `kept`), accuracy (%), fingerprint, epochs, and the precision of the
    arithmetic as `arithmetic`; the last four are missing where nothing was trained. Raises as
    `prune.prune` and `study.train`.
    """
    checks.different("ipc_to", list(ipc_to))
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
    extra = accuracies.set_axis(trained)[["accuracy", "fingerprint", "epochs", "precision"]]
    table = pd.DataFrame(rows).join(extra.rename(columns={"precision": "arithmetic"}))
    return table.astype({"epochs": "Int64"})


def gains(table: pd.DataFrame, against: str = "yoco") -> pd.DataFrame:
    """Every rule's accuracy less that of the rule `against`, paired over runs and seeds: columns
    place, kind, percent, ipc_to, method, mean, std (of a sample, in points), n. table: of
    `compare`. Raises ValueError if it has no such rule.
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
