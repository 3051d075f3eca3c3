"""Rankings of formed images by methods whose selections are nested, and a table of all scores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from yoco import scores
from yoco.dynamics.dynamics import Dynamics
from yoco.prune.methods import METHODS, _chosen, _wanted
from yoco.sets.condensed_set import CondensedSet
from yoco.sets.ranked_set import RankedSet, ordered
from yoco.utils import checks
from yoco.utils.lazy import pd


def ranking(
    condensed: CondensedSet,
    dynamics: Dynamics | None,
    method: str = "yoco",
    *,
    keep: str | None = None,
    seed: int = 0,
    **options: Any,
) -> Int[Tensor, "classes images"]:
    """Return the formed images of every class, best first.

    For any k, the first k columns are the balanced selection. There are as many as the smallest
    class has images; with soft labels, other classes may be larger.

    options: those of `prune` except balanced. Raises as `prune`, and ValueError for a method that
    makes a new selection for every budget.
    """
    checks.one_of("method", method, METHODS)
    if not METHODS[method].nests:
        allowed = ", ".join(name for name, each in METHODS.items() if each.nests)
        raise ValueError(
            f"method={method!r} makes a new selection for every budget, so they are not nested; "
            f"allowed: {allowed}"
        )
    counts = torch.bincount(condensed.formed_labels, minlength=len(condensed.classes))
    if not (smallest := counts.min()):
        empty = condensed.classes[int(counts.argmin())]
        raise ValueError(f"a set without images of class {empty} cannot be ranked")
    wanted = replace(
        _wanted(condensed, method, condensed.ipc, keep, True, seed), per_class=int(smallest)
    )
    return _chosen(condensed, dynamics, method, wanted, options).view(len(condensed.classes), -1)


def rank(
    condensed: CondensedSet, dynamics: Dynamics | None, method: str = "yoco", **options: Any
) -> RankedSet:
    """Return the ranked set of `ranking`, with the same arguments: `CondensedSet.rank`."""
    order = ranking(condensed, dynamics, method, **options)
    how = {
        "ranked_by": method,
        "keep": options.get("keep") or METHODS[method].keep,
        "options": {name: checks.plain(value) for name, value in options.items()},
        "dynamics": {} if dynamics is None else dict(dynamics.info),
    }
    return ordered(condensed, order, how)


def score_table(condensed: CondensedSet, dynamics: Dynamics, **options: Any) -> pd.DataFrame:
    """Return every score of every formed image as a DataFrame.

    Its columns are index, label, class, and one for each of `scores.SCORES`, in the score's own
    direction. Scores that the dynamics do not allow are left out. options: passed to the scores
    that read them.
    """
    labels = checks.instance("condensed", condensed, CondensedSet).formed_labels
    names = [condensed.classes[k] for k in labels.tolist()]
    table = pd.DataFrame({"index": range(len(labels)), "label": labels.numpy(), "class": names})
    checks.options(
        "any score",
        options,
        tuple({name for score in scores.SCORES.values() for name in score.options}),
    )
    for name, score in scores.SCORES.items():
        if score.needs != "full" or dynamics.complete:
            own = {option: value for option, value in options.items() if option in score.options}
            table[name] = score.read(condensed, dynamics, **own).numpy()
    return table


def score_names(table: pd.DataFrame) -> list[str]:
    """Return the names of the scores that a table of `score_table` holds."""
    return [name for name in table.columns if name not in scores.BESIDE]
