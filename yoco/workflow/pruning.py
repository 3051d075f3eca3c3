"""The study of notebook 04: every pruning method at every budget, and its tables."""

from __future__ import annotations

from pathlib import Path

from yoco.data.image_data import ImageData
from yoco.dynamics.dynamics import Dynamics
from yoco.experiments import study, tables
from yoco.prune.methods import METHODS, compared
from yoco.sets.condensed_set import CondensedSet
from yoco.sets.fits import check_fits
from yoco.utils import checks
from yoco.utils.lazy import pd
from yoco.workflow import parameters
from yoco.workflow.comparison import get_beside, possible
from yoco.workflow.recordings import get_all_dynamics
from yoco.workflow.run_folder import RESULTS, TABLE, TABLE2, keep_table


def get_results(
    run: Path, condensed: CondensedSet, data: ImageData, chosen: parameters.Pruning
) -> pd.DataFrame:
    """Return the study of 04 in the run's folder, after doing the missing training runs.

    Missing dynamics are recorded if a method needs them, and finished cells of results.csv are
    kept. The rows go to table2.csv, their summary to table.csv. chosen: the parameters of 04.
    Returns the rows of `study.run`, and those of the other condensations' sets pruned at random.
    """
    check_fits(condensed, data)
    # before anything is recorded
    checks.whole("ipc_to", max(chosen.ipc_to), 1, condensed.ipc)
    methods, seeds = compared(condensed, chosen.methods), chosen.recorded_seeds
    dynamics: list[Dynamics | None] = [None] * len(seeds)
    if any(METHODS[name].needs != "none" for name in methods):
        recording = chosen.recording(condensed.size)
        dynamics[:] = get_all_dynamics(
            run, condensed, chosen.dataset, seeds, chosen.seed, **recording
        )
    options = {"results": run / RESULTS, **chosen.schedule(condensed.size)}
    parts = [study.run(condensed, data, dynamics, methods=methods, **options)]
    beside = () if chosen.set_path else chosen.also
    for method in possible(run, chosen, beside, data, given="also" in chosen.explicit):
        if method == condensed.method:  # its column is there already
            continue
        _, other = get_beside(run, chosen, method, data)
        parts.append(study.run(other, data, [None] * len(dynamics), methods=["random"], **options))
    results = pd.concat(parts, ignore_index=True)
    keep_table(results, run / TABLE2)
    keep_table(tables.summary(tables.with_sets_as_columns(results, condensed.method)), run / TABLE)
    return results
