"""Studies: every cell of a grid is trained and tested, and one table holds the results.

Finished training runs are on disk and are skipped on the next start.
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
from yoco.experiments import results_file
from yoco.experiments.by_bytes import by_bytes as by_bytes
from yoco.experiments.condensations import condensations as condensations
from yoco.experiments.grid import Cell as Cell
from yoco.experiments.grid import grid, trainings
from yoco.parallel import pool
from yoco.prune.methods import METHODS, compared, options_for, prune
from yoco.prune.select import Selection
from yoco.sets.condensed_set import CondensedSet
from yoco.sets.fits import check_fits
from yoco.utils import checks, locks, tensor_files
from yoco.utils import device as devices
from yoco.utils.lazy import pd

# columns of a row that another machine may have trained
FOUND = ("precision", "accuracy")


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
    """Prune by each method to each budget for each dynamics; train and test with each seed.

    Args:
        condensed: the set.
        data: the real data to test on.
        dynamics: training runs on the set, see `grid`.
        methods: names in `prune.METHODS` (None: `prune.compared` on the set).
        results, device, jobs, executor, progress: as in `train`.
        **options: ipc_to, seeds, epochs and fields of `protocol.Protocol`, as in `grid`.

    Returns:
        The cells of the grid, in its order, with columns condensation, method, keep, balanced,
            ipc_to, dynamics, seed, epochs, fingerprint (of what is kept and how it is trained),
            preset (of the set), model, width (empty: the model's own), last_batch ("even" or
            "small"), augmentation ("dsa" or "imagenet"), precision, accuracy (%).

    Raises:
        TypeError, ValueError: if an argument is bad, before any training.
    """
    methods = compared(condensed) if methods is None else methods
    cells = grid(
        condensed,
        dynamics,
        [{"method": method} for method in checks.sequence("methods", methods)],
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

    Args:
        cells: from `grid`.
        data: the real data to test on.
        results: a CSV file of finished training runs. Those that it holds are not repeated,
            whatever grid they were made for; new ones are appended one by one, and rows are sorted
            at the end. Each row has a checksum.
        device: "auto" or a device of torch.
        jobs, executor: how many run in parallel, and where, see `evaluate.accuracies` and
            `pool.run`.
        progress: show a progress bar.

    Returns:
        One row per cell, in order, with `COLUMNS` and its labels.

    Raises:
        ValueError: if the file is not a valid results file, or a row was changed.
        BlockingIOError: if another run works on the file.
        Exception: as `evaluate.evaluate` and `pool.run`.
    """
    results = tensor_files.file("results", results)
    for condensed in {cell.condensed for cell in cells}:
        check_fits(condensed, data)
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
    # of equal cells, the first
    different = {row["fingerprint"]: number for number, row in reversed(list(enumerate(rows)))}
    done = results_file.read_results(results)
    names = sorted(different, key=different.__getitem__)
    tested_on = {name: _tested_on(cells[different[name]], data) for name in names}
    results_file.check_data(results, done, tested_on)
    missing = [position for position, name in enumerate(names) if name not in done]
    work = trainings([cells[different[name]] for name in names])
    said = [
        ", ".join(f"{column}={rows[different[name]][column]}" for column in results_file.CELL)
        for name in names
    ]
    if missing and results is not None:
        # in the current format, without what a killed process left
        results_file.write_results(results, done.values())
    for position, accuracy in (
        accuracies(work, data, only=missing, names=said, device=device, **how) if missing else ()
    ):
        row = rows[different[names[position]]]
        done[names[position]] = {name: row[name] for name in results_file.COLUMNS} | {
            "accuracy": round(accuracy, 4),
            results_file.DATA: tested_on[names[position]],
        }
        if results is not None:
            results_file.append_result(results, done[names[position]])
    if missing and results is not None:
        others = [row for name, row in done.items() if name not in different]
        in_order = [*others, *(done[name] for name in names)]  # of the grid
        results_file.write_results(results, in_order)
    found = [{name: done[row["fingerprint"]][name] for name in FOUND} for row in rows]
    return pd.DataFrame([{**row, **own} for row, own in zip(rows, found)])


def _tested_on(cell: Cell, data: ImageData) -> str:
    """Return what the accuracy of a cell depends on besides the cell, as text for its row."""
    whitened = cell.condensed.whitening is not None  # by the training images
    told = (data.made_from if whitened else {}) | data.tested_on
    if cell.condensed.bounded:  # images are normalised as the set says
        told |= {"mean and std": cell.condensed.made_from["mean and std"]}
    return results_file.told(told)


def selections(
    condensed: CondensedSet, dynamics: Dynamics, ipc_to: Sequence[int], **options: Any
) -> list[Selection]:
    """Return what every method that these dynamics allow keeps at every budget.

    options: options of `prune`; each goes to the methods that read it.
    """
    checks.instance("dynamics", dynamics, Dynamics)
    allowed = [
        name for name in compared(condensed) if dynamics.complete or METHODS[name].needs != "full"
    ]
    return [
        prune(condensed, dynamics, name, budget, **options_for(name, options))
        for name in allowed
        for budget in ipc_to
    ]
