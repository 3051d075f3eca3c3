"""Studies: every cell of a grid is trained and tested into one tidy table; every finished training
is on disk and is skipped on the next start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import torch

from yoco.data.image_data import ImageData
from yoco.dynamics.dynamics import Dynamics
from yoco.evaluate import accuracies
from yoco.experiments.by_bytes import by_bytes as by_bytes
from yoco.experiments.condensations import condensations as condensations
from yoco.experiments.grid import Cell as Cell
from yoco.experiments.grid import grid, trainings
from yoco.experiments.results_file import CELL, COLUMNS, append_result, read_results, write_results
from yoco.parallel import pool
from yoco.prune.methods import METHODS, compared, options_for, prune
from yoco.prune.select import Selection
from yoco.sets.condensed_set import CondensedSet
from yoco.utils import device as devices
from yoco.utils import locks
from yoco.utils.lazy import pd


@pool.without_backend
def run(
    condensed: CondensedSet,
    data: ImageData,
    dynamics: Sequence[Dynamics | None],
    *,
    methods: Sequence[str] | None = None,
    results: str | Path | None = None,
    device: str | torch.device = "auto",
    jobs: int | None = None,
    executor: Executor | None = None,
    progress: bool = True,
    **options: Any,
) -> pd.DataFrame:
    """Prune by each method to each budget under each training dynamics, train and test under each
    seed.

    methods: names in `prune.METHODS` (None: `prune.compared` on the set).
    options: ipc_to, seeds, epochs and fields of `network.Protocol`, as of `grid`; results, jobs,
    executor: as of `train`. Returns a DataFrame with columns condensation, method, keep, balanced,
    ipc_to, dynamics, seed, epochs, fingerprint (of what stays and how it is trained on), preset (of
    the set), model, width (empty: the model's own), last_batch ("even" or "small"), augmentation
    ("dsa" or "imagenet"), precision, accuracy (%); the grid's cells only, in the grid's order.
    Raises ValueError or TypeError at bad arguments before any training.
    """
    cells = grid(
        condensed,
        dynamics,
        [{"method": method} for method in (compared(condensed) if methods is None else methods)],
        **options,
    )
    return train(
        cells, data, results=results, device=device, jobs=jobs, executor=executor, progress=progress
    )


@pool.without_backend
def train(
    cells: Sequence[Cell],
    data: ImageData,
    *,
    results: str | Path | None = None,
    device: str | torch.device = "auto",
    jobs: int | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Train and test every cell, equal ones once.

    Returns a row a cell, in order, with `COLUMNS` and its labels.

    results: a CSV file that finished trainings are read from, by their fingerprint, whatever grid
    they were made for, and appended to, one by one, and sorted at the end; each row has a checksum
    there. jobs, executor: trainings at once, and where, see `evaluate.accuracies` and `pool.run`.
    Raises ValueError if the file is no such table, or a row was altered, BlockingIOError if another
    run works on it, and as `evaluate.evaluate` and `pool.run`.
    """
    with locks.hold(results):
        return _train(
            cells, data, results, device, {"jobs": jobs, "executor": executor, "progress": progress}
        )


def _train(
    cells: Sequence[Cell],
    data: ImageData,
    results: str | Path | None,
    device: str | torch.device,
    how: Mapping[str, Any],
) -> pd.DataFrame:
    precision = {
        word: devices.choose_precision(word, devices.choose(device))
        for word in {cell.protocol.precision for cell in cells}
    }
    rows = [cell.row(precision[cell.protocol.precision]) for cell in cells]
    # the first of equal ones
    different = {row["fingerprint"]: number for number, row in reversed(list(enumerate(rows)))}
    done = read_results(results)
    names = sorted(different, key=different.__getitem__)
    missing = [position for position, name in enumerate(names) if name not in done]
    work = trainings([cells[different[name]] for name in names])
    said = [
        ", ".join(f"{column}={rows[different[name]][column]}" for column in CELL) for name in names
    ]
    if missing and results is not None:
        # in today's format, without what a killed process left
        write_results(results, done.values())
    for position, accuracy in (
        accuracies(work, data, only=missing, names=said, device=device, **how) if missing else ()
    ):
        row = rows[different[names[position]]]
        done[names[position]] = {name: row[name] for name in COLUMNS} | {
            "accuracy": round(accuracy, 4)
        }
        if results is not None:
            append_result(results, done[names[position]])
    if missing and results is not None:
        others = [row for name, row in done.items() if name not in different]
        write_results(results, [*others, *(done[name] for name in names)])  # in the grid's order
    return pd.DataFrame([{**row, "accuracy": done[row["fingerprint"]]["accuracy"]} for row in rows])


def selections(
    condensed: CondensedSet, dynamics: Dynamics, ipc_to: Sequence[int], **options: Any
) -> list[Selection]:
    """What every method that these dynamics allow keeps at every budget; options: of `prune`, each
    to the methods that read it.
    """
    allowed = [
        name for name in compared(condensed) if dynamics.complete or METHODS[name].needs != "full"
    ]
    return [
        prune(condensed, dynamics, name, budget, **options_for(name, options))
        for name in allowed
        for budget in ipc_to
    ]
