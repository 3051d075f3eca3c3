"""The nested set beside a run's own: where it is, and its prefixes beside YOCO's choices.

See design §5.
"""

from __future__ import annotations

from pathlib import Path

from yoco.data.image_data import ImageData
from yoco.experiments import study
from yoco.prune.methods import METHODS, compared
from yoco.sets.condensed_set import CondensedSet
from yoco.utils.lazy import pd
from yoco.workflow import comparison, found_set, recordings, run_folder
from yoco.workflow.parameters import Pruning


def get_sets(
    run: Path, condensed: CondensedSet, data: ImageData, chosen: Pruning
) -> dict[str, tuple[Path, CondensedSet]]:
    """Return a nested set of the run's dataset and a flat one by the same method, if they exist.

    Nothing is condensed. Each is the run's own set if that is of its kind, else one in a folder
    inside the run's, else the zoo's.

    Args:
        run: the run's folder.
        condensed: the run's set.
        data: the real images.
        chosen: the parameters of 04.

    Returns:
        The folder and the set by kind, "flat" before "nested"; empty if there is no nested set.
    """
    own = run, condensed
    nested = own if condensed.info.get("nested") else _inside(run / "nested", chosen, data)
    if nested is None:
        return {}
    method = nested[1].method
    flat = (
        own
        if nested is not own and condensed.method == method
        else _inside(run / method, chosen, data)
    )
    return {"nested": nested} if flat is None else {"flat": flat, "nested": nested}


def _inside(folder: Path, chosen: Pruning, data: ImageData) -> tuple[Path, CondensedSet] | None:
    """Return a folder inside the run's and its set, if it or the zoo has one of that name."""
    comparison.take_from_zoo(folder, chosen, folder.name, data)
    path = folder / run_folder.CONDENSED
    if not path.exists():
        return None
    found = CondensedSet.load(path)
    found_set.check_made_from(found, path, chosen.dataset, data)
    return folder, found


def get_results(
    run: Path, condensed: CondensedSet, data: ImageData, chosen: Pruning
) -> pd.DataFrame:
    """Train on YOCO's choice of each of `get_sets`, and on the prefixes of the nested one.

    Missing dynamics are recorded; finished training runs in results.csv are kept. The rows go
    to prefixes.csv.

    run, condensed, data, chosen: as in `get_sets`; there must be a nested set. Returns the rows of
    `study.run`, whose method also names the set: "YOCO, flat", "YOCO, nested", "Prefix, nested".
    """
    parts = []
    longer = {"epochs": chosen.prefix_epochs} if chosen.prefix_epochs else {}
    for kind, (folder, found) in get_sets(run, condensed, data, chosen).items():
        dynamics = recordings.get_all_dynamics(
            folder,
            found,
            chosen.dataset,
            chosen.recorded_seeds,
            chosen.seed,
            **chosen.recording(found.size),
        )
        options = {"results": run / run_folder.RESULTS, **chosen.schedule(found.size), **longer}
        rows = study.run(found, data, dynamics, methods=compared(found, ["yoco"]), **options)
        parts.append(
            rows.assign(method=[f"{METHODS[name].title}, {kind}" for name in rows["method"]])
        )
    # prefixes are the same under all dynamics
    table = pd.concat(parts).drop_duplicates(["method", "fingerprint"], ignore_index=True)
    run_folder.keep_table(table, run / "prefixes.csv")
    return table
