"""Condensation methods side by side, each with the same number of seconds.

Networks are trained on each method's start and on its result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tqdm.auto import tqdm

from yoco import condense
from yoco.data.image_data import ImageData
from yoco.evaluate import evaluate_many
from yoco.sets.condensed_set import CondensedSet
from yoco.sets.fits import check_fits
from yoco.training import timing
from yoco.training.protocol import BEFORE
from yoco.utils import checks
from yoco.utils.lazy import pd

# columns of the comparison
COMPARED = [
    "method",
    "factor",
    "steps",
    "seconds",
    "subset",
    "seed",
    *BEFORE,
    "precision",
    "accuracy",
]


def condensations(
    data: ImageData,
    methods: Sequence[str],
    seconds: float,
    *,
    ipc: int = 10,
    preset: str = "laptop",
    seed: int = 0,
    seeds: Sequence[int] = (0,),
    device: str | torch.device = "auto",
    progress: bool = True,
    precision: str = "auto",
    ready: Mapping[str, CondensedSet] | None = None,
    known: Mapping[str, pd.DataFrame] | None = None,
    **training: Any,
) -> tuple[pd.DataFrame, dict[str, CondensedSet]]:
    """Condense by each method for `seconds`, and train and test on each start and result.

    Each method takes its own factor, and its schedule runs until the time is over, which includes
    training MTT's experts. Methods with the same start share the training runs on it.

    Args:
        data: the real data.
        methods: condensation methods.
        seconds: for each method.
        ipc, preset, seed, device, precision: as in `condense`.
        seeds: training seeds.
        progress: show progress.
        ready: existing sets by method, with this ipc, preset and seed; the others are condensed.
        known: by method, the result of `evaluate_many` for "start" and "condensed", which is used
            if it has all of `seeds`.
        **training: epochs, and fields of `protocol.Protocol`.

    Returns:
        A table with columns method, factor, steps, seconds, subset ("start" or "condensed"), seed,
            last_batch, augmentation, precision, accuracy (%), and the sets by method.

    Raises:
        Exception: as `condense` and `evaluate_many`.
    """
    methods = checks.sequence("methods", methods)
    for method in methods:
        checks.one_of("method", method, condense.METHODS)
    common: dict[str, Any] = {
        "ipc": ipc,
        "preset": preset,
        "seed": seed,
        "device": device,
        "precision": precision,
    }
    made = dict(ready or {})
    for method, condensed in made.items():
        check_fits(condensed, data, f"ready[{method!r}]")
    if progress:
        timing.announce(seconds * sum(method not in made for method in methods))
    for method in tqdm(methods, desc="condensing by each method", disable=not progress):
        if method not in made:
            # however long its schedule is
            unending = condense.METHODS[method].unending
            made[method] = condense.condense(
                data, method, **common, time_budget=seconds, progress=False, **unending
            )
    starts = {
        method: condense.start_set(data, method, factor=made[method].factor, **common)
        for method in methods
    }
    made = {method: made[method] for method in methods}
    known = {
        method: table[table.seed.isin(seeds)]
        for method, table in (known or {}).items()
        if method in methods and set(seeds) <= set(table.seed)
    }
    how = {"seeds": seeds, "device": device, "progress": progress, "precision": precision}
    results = _accuracies(data, starts, made, known, {**how, **training})
    told = [(name, s.factor, s.info["steps"], s.info["seconds"]) for name, s in made.items()]
    return pd.DataFrame(told, columns=COMPARED[:4]).merge(results, on="method")[COMPARED], made


def _accuracies(
    data: ImageData,
    starts: Mapping[str, CondensedSet],
    made: Mapping[str, CondensedSet],
    known: Mapping[str, pd.DataFrame],
    how: Mapping[str, Any],
) -> pd.DataFrame:
    """`evaluate_many` all starts and sets that are not in `known`, equal starts once.

    how: options of `evaluate_many`. The result has an additional column method.
    """
    own = [method for method in starts if method not in known]
    trained_by = {starts[method].fingerprint: method for method in (*reversed(own), *known)}
    origin = {method: trained_by[starts[method].fingerprint] for method in own}
    first = [method for method in own if origin[method] == method]
    subsets = {(method, "start"): starts[method].form() for method in first}
    subsets |= {(method, "condensed"): made[method].form() for method in own}
    tables = [table.assign(method=method) for method, table in known.items()]
    if subsets:
        trained = evaluate_many(subsets, data, **how)
        tables.append(trained.assign(method=trained.subset.str[0], subset=trained.subset.str[1]))
    results = pd.concat(tables)
    shared = [
        results[(results.method == other) & (results.subset == "start")].assign(method=method)
        for method, other in origin.items()
        if other != method
    ]
    return pd.concat([*shared, results])
