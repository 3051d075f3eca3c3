"""The study of notebook 06: which rules keep damaged images."""

from __future__ import annotations

from pathlib import Path

import torch

from yoco.condense.condense import start_set
from yoco.data.image_data import ImageData
from yoco.experiments import corruption, noise
from yoco.sets.condensed_set import CondensedSet
from yoco.sets.fits import check_fits
from yoco.utils import checks, owned
from yoco.utils.lazy import pd
from yoco.workflow import parameters
from yoco.workflow.condensation import get_condensed, made_by
from yoco.workflow.recordings import get_all_dynamics
from yoco.workflow.run_folder import RESULTS, folder, keep_table


def get_noise(
    run: Path, condensed: CondensedSet, data: ImageData, chosen: parameters.Noise
) -> tuple[list[noise.Case], pd.DataFrame]:
    """Return the damaged sets of 06 with their dynamics, and what every rule keeps of them.

    Missing sets and dynamics are made, each case in its own folder inside noise/ of the run's
    folder; finished runs in results.csv are kept. The rows go to noise.csv, and how well each
    score finds the damaged images to noise_detection.csv. chosen: the parameters of 06.
    """
    check_fits(condensed, data)
    # before anything is recorded
    checks.whole("ipc_to", max(chosen.ipc_to), 1, condensed.ipc)
    shapes = [("formed", *shape) for shape in chosen.formed_damage()] + [
        ("real", *shape) for shape in chosen.real_damage()
    ]
    cases = [_case(run, condensed, data, chosen, *shape) for shape in shapes]
    rules, options = [*chosen.methods, *noise.REPAIRS], chosen.comparison(condensed.size)
    table = noise.compare(cases, data, rules=rules, results=run / RESULTS, **options)
    keep_table(table, run / "noise.csv")
    keep_table(pd.concat(map(noise.detection, cases)), run / "noise_detection.csv")
    return cases, table


def _case(
    run: Path,
    condensed: CondensedSet,
    data: ImageData,
    chosen: parameters.Noise,
    place: str,
    kind: str,
    percent: int,
) -> noise.Case:
    """Return one damaged set and its dynamics.

    The same kind, percent and seed damage the same images. A set condensed from clean images is the
    run's own if that has the same settings, and so are its dynamics.
    """
    clean = kind == noise.CLEAN
    # the image behind each cell is known only if the set starts from real images
    arguments = chosen.condensation()
    for other in {"start", "ipc_to"} & arguments.keys():
        del arguments[other]
    own = clean and (place == "formed" or made_by(condensed, data, arguments))
    name = run / "noise" / f"{place}-{kind}-{percent}"
    inside = run if own else owned.claim(folder(str(name), chosen.dataset))
    condensed_from = lambda real: get_condensed(
        inside, chosen.real_dataset, lambda: real, go_on=True, **arguments
    )
    if clean:
        spoiled = condensed if own else condensed_from(data)
        damaged = torch.zeros(len(spoiled.formed_labels), dtype=torch.bool)
    elif place == "formed":
        spoiled, damaged = corruption.damage_set(condensed, kind, percent, chosen.seed)
    else:
        real, which = corruption.damage_data(data, kind, percent, chosen.seed)
        spoiled, damaged = (
            condensed_from(real),
            which[start_set(real, **chosen.packing()).info["started_from"]],
        )
    dataset = chosen.dataset if own else chosen.real_dataset
    dynamics = get_all_dynamics(
        inside,
        spoiled,
        dataset,
        chosen.recorded_seeds,
        chosen.seed,
        **chosen.recording(condensed.size),
    )
    return noise.Case(place, kind, percent, spoiled, damaged, dynamics)
