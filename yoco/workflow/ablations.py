"""The study of notebook 05: what each part of YOCO does."""

from __future__ import annotations

import functools
from pathlib import Path

from yoco.data.image_data import ImageData
from yoco.dynamics.dynamics import SHORT
from yoco.experiments import ablations, study
from yoco.sets.condensed_set import CondensedSet
from yoco.sets.fits import check_fits
from yoco.utils.lazy import pd
from yoco.workflow import parameters
from yoco.workflow.comparison import get_beside, possible
from yoco.workflow.recordings import DYNAMICS, EARLY, get_all_dynamics
from yoco.workflow.run_folder import RESULTS, keep_table


def get_ablations(
    run: Path, condensed: CondensedSet, data: ImageData, chosen: parameters.Ablations
) -> pd.DataFrame:
    """Return the training runs of 05 in the run's folder, after doing the missing ones.

    Missing dynamics and other methods' sets are made, and finished cells of results.csv are kept.
    The rows go to ablations.csv.

    chosen: the parameters of 05. Returns the rows of `study.train` with the columns ablation,
    output, top_k, within, record_on, and those of `ablations.labelled`.
    """
    check_fits(condensed, data)
    numbers = range(chosen.seed, chosen.seed + chosen.dynamics)
    dynamics = functools.partial(
        get_all_dynamics, dataset=chosen.dataset, seeds=numbers, first=chosen.seed
    )
    whole = dynamics(run, condensed, **chosen.recording(data.size))
    short = chosen.early(data.size)
    # whole runs that are this short hold all that is needed
    seen = DYNAMICS if short["until"] == short["epochs"] <= SHORT else EARLY["augmented"]
    short |= {"until": None} if seen == DYNAMICS else {}
    early = dynamics(run, condensed, kind=seen, **short)
    clean = dynamics(run, condensed, kind=EARLY["clean"], **chosen.early(data.size, "clean"))
    others = {}
    compared = possible(run, chosen, chosen.compare, data, given="compare" in chosen.explicit)
    for method in compared:
        inside, other = get_beside(run, chosen, method, data)
        others[method] = other, dynamics(inside, other, kind=seen, **short)
    cells = ablations.plan(
        condensed,
        whole,
        early,
        clean,
        others,
        methods=chosen.methods,
        top_k=chosen.top_k,
        within=chosen.within,
        networks=chosen.networks,
        **chosen.schedule(data.size),
    )
    table = ablations.labelled(study.train(cells, data, results=run / RESULTS)).astype(
        {"top_k": "Int64", "within": "Int64"}
    )
    keep_table(table, run / "ablations.csv")
    return table
