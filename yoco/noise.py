"""Who keeps whom: damaged images among what each pruning rule keeps, the accuracy that follows, and repairs of LBPE."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from yoco import checks, prune, scores, study
from yoco.condensed import CondensedSet
from yoco.data import ImageData
from yoco.dynamics import Dynamics
from yoco.prune import METHODS, Selection
from yoco.study import Cell
from yoco.train import Protocol

CLEAN = "none"  # the kind of damage of a set that has none
PLACES = ("formed", "real")  # damaged after condensing, or the real images before it


@dataclass(frozen=True, eq=False)
class Case:
    """One set with damage, and the training runs recorded on it.

    place: "formed" where its cells were damaged, "real" where the training images were, before condensing; kind: of
    `damage.KINDS`, or "none"; percent: damaged, of each class; damaged: bool [N * factor²], which formed images, or which of
    the training images that the cells started from.
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


def _lbpe(condensed: CondensedSet, dynamics: Dynamics, **options: Any) -> Tensor:
    return METHODS["yoco"].score(prune.request(condensed, dynamics, "yoco", **options))


def _every_run(condensed: CondensedSet, dynamics: Sequence[Dynamics]) -> Tensor:
    """LBPE of each of the runs, float [R, N]."""
    return torch.stack([_lbpe(condensed, recorded) for recorded in dynamics])


# scores in LBPE's place, low in balanced classes: (set, all runs, number of the run) -> float [N], high is hard
REPAIRS: dict[str, Callable[[CondensedSet, Sequence[Dynamics], int], Tensor]] = {
    "trimmed": lambda condensed, dynamics, number: _lbpe(condensed, dynamics[number], average="trimmed"),
    "all runs": lambda condensed, dynamics, number: _every_run(condensed, dynamics).mean(0),
    "two-sided": lambda condensed, dynamics, number: scores.two_sided(_every_run(condensed, dynamics), condensed.formed_labels),
}
RULES = (*METHODS, *REPAIRS)


def keep(case: Case, rule: str, ipc_to: int, number: int) -> Selection:
    """What a rule keeps of a case at a budget, by its run `number` (a repair may look at all runs).

    rule: a name in `prune.METHODS`, by its own end and balance, or in `REPAIRS`: "trimmed" (the robust mean over the
    epochs), "all runs" (LBPE, averaged over the runs), "two-sided" (the cut by agreement, `scores.two_sided`). Raises as
    `prune.prune`.
    """
    checks.one_of("rule", rule, RULES)
    condensed = case.condensed
    if rule in METHODS:
        return prune.prune(condensed, case.dynamics[number], rule, ipc_to, seed=number)
    wanted = prune.request(condensed, case.dynamics[number], "yoco", ipc_to)
    score = REPAIRS[rule](condensed, case.dynamics, number)
    indices = prune.select(score, condensed.formed_labels, wanted.per_class, keep="easy", balanced=True)
    counts = torch.bincount(condensed.formed_labels[indices], minlength=len(condensed.classes))
    return Selection(indices, counts, rule, int(ipc_to), "easy", True, number)


def kept(case: Case, selection: Selection) -> dict[str, float]:
    """How many formed images stay and how many of them are damaged; precision: the damaged share of what stays, recall: the
    share of all damaged that stays, both in % (NaN where nothing is damaged)."""
    bad, all_bad = int(case.damaged[selection.indices].sum()), int(case.damaged.sum())
    shares = {"precision": 100 * bad / len(selection.indices), "recall": 100 * bad / all_bad} if all_bad else {"precision": 0.0, "recall": float("nan")}
    return {"kept": len(selection.indices), "damaged": bad, **shares}


def detection(case: Case) -> pd.DataFrame:
    """How well each score tells the damaged images: the area under the ROC curve, 1 where every damaged image is harder than
    every other one, 0.5 for chance. Columns: those of the case, score, dynamics, auc; no row where nothing is damaged."""
    from sklearn.metrics import roc_auc_score

    rows = []
    for number, recorded in enumerate(case.dynamics if case.damaged.any() else ()):
        table = prune.score_table(case.condensed, recorded)
        found = {name: -table[name] if name == "aum" else table[name] for name in table.columns if name not in ("index", "label", "class")}
        found |= {name: repair(case.condensed, case.dynamics, number) for name, repair in REPAIRS.items()}
        rows += [{**case.labels, "score": name, "dynamics": number, "auc": roc_auc_score(case.damaged, hard)} for name, hard in found.items()]
    return pd.DataFrame(rows, columns=["place", "kind", "percent", "score", "dynamics", "auc"])


def compare(
    cases: Sequence[Case],
    data: ImageData,
    rules: Sequence[str] = RULES,
    *,
    ipc_to: Sequence[int] = (1,),
    trained_to: Sequence[int] = (1,),
    seed: int = 0,
    results: Any = None,
    progress: bool = True,
    **options: Any,
) -> pd.DataFrame:
    """Every rule on every case at every budget, and the accuracy of networks trained on what stays.

    ipc_to: budgets; trained_to: those of them that are trained at. The run `number` of a case goes with the training seed
    seed + number. results: as of `study.train`; options: fields of `train.Protocol`. Returns a table with columns place, kind,
    percent, method (the rule), ipc_to, dynamics, kept, damaged, precision, recall (see `kept`), accuracy (%, NaN where not
    trained), precision of the arithmetic as `arithmetic`, fingerprint. Raises as `prune.prune` and `study.train`.
    """
    checks.different("ipc_to", list(ipc_to))
    for budget in trained_to:
        if budget not in ipc_to:
            raise ValueError(f"trained_to must hold budgets of ipc_to={list(ipc_to)}, got {budget}")
    protocol = Protocol(**options)
    rows, cells = [], []
    for case in cases:
        for rule in rules:
            for budget in ipc_to:
                for number in range(len(case.dynamics)):
                    selection = keep(case, rule, budget, number)
                    rows.append({**case.labels, "method": rule, "ipc_to": budget, "dynamics": number, **kept(case, selection)})
                    cells.append(Cell(case.condensed, selection, number, seed + number, protocol, {}))
    wanted = [number for number, row in enumerate(rows) if row["ipc_to"] in trained_to]
    trained = study.train([cells[number] for number in wanted], data, results=results, progress=progress)
    trained.index = wanted
    found = trained[["accuracy", "fingerprint", "epochs"]].assign(arithmetic=trained["precision"])
    return pd.DataFrame(rows).join(found).astype({"epochs": "Int64"})
