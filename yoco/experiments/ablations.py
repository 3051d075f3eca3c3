"""What each part of YOCO does: training runs that each leave out one part.

Also how far rankings agree between training runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, product
from typing import Any

from yoco import prune
from yoco.dynamics.dynamics import Dynamics
from yoco.experiments.grid import Cell, grid
from yoco.models import MODELS, named
from yoco.sets.condensed_set import CondensedSet
from yoco.utils.lazy import pd

Variant = dict[str, Any]
TOP_K, WITHIN = (1, 3, 10, 30), (10, 50, 100, 200)
# LBPE of probabilities, as in the paper's formula, and of raw logits
OUTPUTS: list[Variant] = [
    {"method": "yoco", "output": output} for output in ("probabilities", "logits")
]
# the two rules separately and together: neither, balance, low LBPE, both
TWO_RULES: list[Variant] = [
    {"method": method, "balanced": balanced}
    for method, balanced in product(("random", "yoco"), (False, True))
]


def epochs_read(top_k: Sequence[int] = TOP_K, within: Sequence[int] = WITHIN) -> list[Variant]:
    """Return LBPE for each pair of `top_k` most accurate epochs and first `within` epochs."""
    return [{"method": "yoco", "top_k": k, "within": w} for k, w in product(top_k, within)]


def rules(methods: Sequence[str] | None = None) -> list[Variant]:
    """Return either end of each method's score (None: of all methods), balanced and not.

    Random's two ends are two draws, which shows the effect of the draw alone.
    """
    methods = prune.compared() if methods is None else methods
    return [
        {"method": method, "keep": keep, "balanced": balanced}
        for method in methods
        for keep, balanced in product(prune.KEEP, (False, True))
    ]


def plan(
    condensed: CondensedSet,
    whole: Sequence[Dynamics],
    early: Sequence[Dynamics],
    clean: Sequence[Dynamics],
    others: Mapping[str, tuple[CondensedSet, Sequence[Dynamics]]],
    *,
    methods: Sequence[str] | None = None,
    top_k: Sequence[int] = TOP_K,
    within: Sequence[int] = WITHIN,
    networks: Sequence[str] = tuple(MODELS),
    **options: Any,
) -> list[Cell]:
    """Return every training of every ablation, named in the label "ablation".

    Args:
        condensed: the set.
        whole: complete runs.
        early: runs with the logits of all epochs that top_k and within read.
        clean: the same, recorded on unaugmented images.
        others: set and early runs by condensation method.
        methods: None: all.
        top_k, within: settings of LBPE, combined in all pairs.
        networks: trained in turn; width is for `model` only, other networks have their own.
        **options: options of `study.grid`.
    """
    methods = tuple(prune.METHODS if methods is None else methods)
    networks, main = [*map(named, networks)], named(options.get("model", "convnet"))
    own = {
        name: options if name == main else {**options, "model": name, "width": None}
        for name in networks
    }
    by_early = [
        {"method": name}
        for name in prune.METHODS
        if prune.METHODS[name].needs == "early" and name in methods
    ]

    def part(
        name: str,
        variants: Sequence[Variant],
        on: tuple[CondensedSet, Sequence[Dynamics]] = (condensed, early),
        how: Mapping[str, Any] = options,
        **labels: str,
    ) -> list[Cell]:
        return grid(*on, variants, labels={"ablation": name, **labels}, **how)

    parts = [
        part("output", OUTPUTS),
        part("epochs_read", epochs_read(top_k, within)),
        part("rules", rules(methods), (condensed, whole)),
        *(
            part("record_on", by_early or OUTPUTS[:1], (condensed, runs), record_on=seen)
            for seen, runs in (("augmented", early), ("clean", clean))
        ),
        *(part("condensation", TWO_RULES, other) for other in others.values()),
        *(part("network", TWO_RULES, how=own[name]) for name in networks),
    ]
    return [cell for cells in parts for cell in cells]


def labelled(results: pd.DataFrame) -> pd.DataFrame:
    """Return the results with two columns for readers: rule and choice.

    For example "easy, balanced" and "YOCO, balanced".
    """
    balance = results["balanced"].map({True: "balanced", False: "unbalanced"})
    titles = results["method"].map(lambda method: prune.METHODS[method].title)
    return results.assign(rule=results["keep"] + ", " + balance, choice=titles + ", " + balance)


def agreement(condensed: CondensedSet, dynamics: Sequence[Dynamics]) -> pd.DataFrame:
    """Return the Spearman correlation of each score between every two training runs.

    Columns: score, first, second, spearman.
    """
    tables = [prune.score_table(condensed, recorded) for recorded in dynamics]
    names = prune.score_names(tables[0])
    rows = [
        (name, first, second, tables[first][name].corr(tables[second][name], method="spearman"))
        for name in names
        for first, second in combinations(range(len(tables)), 2)
    ]
    return pd.DataFrame(rows, columns=["score", "first", "second", "spearman"])


def overlap(
    condensed: CondensedSet, dynamics: Sequence[Dynamics], ipc_to: Sequence[int]
) -> pd.DataFrame:
    """Return the share of what a method keeps under one training run that it keeps under another.

    Columns: method, ipc_to, first, second, shared (0..1).
    """
    rows = []
    for name, budget in product(prune.compared(), ipc_to):
        kept = [
            set(prune.prune(condensed, recorded, name, budget, seed=n).indices.tolist())
            for n, recorded in enumerate(dynamics)
        ]
        rows += [
            (name, budget, a, b, len(kept[a] & kept[b]) / len(kept[a]))
            for a, b in combinations(range(len(kept)), 2)
        ]
    return pd.DataFrame(rows, columns=["method", "ipc_to", "first", "second", "shared"])
