"""A run lives in one folder; a step that finds an earlier step's file uses it, one that does not makes it, and says so."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from yoco import files, study, zoo
from yoco.condense import condense
from yoco.condensed import CondensedSet
from yoco.data import ImageData, name_of
from yoco.dynamics import Dynamics, record_many

CONDENSED, RESULTS, TABLE = "condensed.safetensors", "results.csv", "table.csv"
ZOO = "zoo:"  # datasets so called are sets of the zoo: no real images, and nothing to condense


def project() -> Path:
    """The folder that relative paths start from: the one that holds notebooks/, seen from there, else the working folder."""
    here = Path.cwd()
    return here.parent if here.name == "notebooks" else here


def folder(run_dir: str | None, dataset: str) -> Path:
    """The run's folder, made if missing: `run_dir`, or one named after the dataset in runs/ (or in $YOCO_RUNS).

    Raises OSError where it cannot be made.
    """
    name = dataset.removeprefix("folder:").rstrip("/").split("/")[-1].replace(":", "-")
    home = Path(os.environ.get("YOCO_RUNS", project() / "runs"))
    path = home / name if run_dir is None else project() / Path(run_dir).expanduser()
    path.mkdir(parents=True, exist_ok=True)
    return path


def dynamics_file(run: Path, seed: int, first: int = 0) -> Path:
    """The file of the dynamics of a seed: the run's own seed has no number in it."""
    return run / ("dynamics.safetensors" if seed == first else f"dynamics-{seed}.safetensors")


def get_condensed(
    run: Path, dataset: str, data: Callable[[], ImageData] | None = None, *, go_on: bool = False, **arguments: Any
) -> CondensedSet:
    """The run's condensed set; where it is not there, the zoo's ("zoo:NAME"), or one condensed now and saved.

    data: gives the real images, where they are needed. go_on: for the step that condenses: a set that was stopped before
    its end is condensed on, from the checkpoint beside it. arguments: of `condense`. Raises ValueError where the folder
    holds a set of another dataset than asked for (with go_on, also by another method, or of another IPC or factor).
    """
    path, checkpoint = run / CONDENSED, run / "checkpoint.safetensors"
    if path.exists():
        found = CondensedSet.load(path)
        _check_found(found, path, dataset, arguments if go_on else {})
        print(f"found {path.name}: {describe(found)}")
        if not (go_on and checkpoint.exists()):
            return found
        print("its condensation was stopped before its end: going on from the checkpoint")
    if dataset.startswith(ZOO):
        made = zoo.load(dataset.removeprefix(ZOO))
        print(f"from the zoo: {describe(made)}")
    else:
        if not path.exists():
            print(f"no {path.name} in the run's folder: condensing {dataset} now")
        made = condense(data(), checkpoint=checkpoint, **arguments)
        print(f"made {path.name}: {describe(made)}")
    made.save(path)
    if made.info.get("finished", True):
        checkpoint.unlink(missing_ok=True)
    return made


def _check_found(found: CondensedSet, path: Path, dataset: str, arguments: dict[str, Any]) -> None:
    there = {"dataset": found.info.get("dataset"), "method": found.method, "ipc": found.ipc, "factor": found.factor}
    asked = {**there, **{name: arguments[name] for name in ("method", "ipc", "factor") if name in arguments}}
    if not dataset.startswith(ZOO):
        asked["dataset"] = name_of(dataset)
    if asked != there:
        raise ValueError(f"{path} holds {there}, asked for was {asked}: choose another run_dir, or remove that file")


def get_dynamics(run: Path, condensed: CondensedSet, dataset: str, seed: int, first: int = 0, **arguments: Any) -> Dynamics:
    """The run's dynamics of a seed; where they are not there, the zoo's (for the run's first seed), or recorded now and saved."""
    return get_all_dynamics(run, condensed, dataset, [seed], first, **arguments)[0]


def get_all_dynamics(
    run: Path, condensed: CondensedSet, dataset: str, seeds: Sequence[int], first: int = 0, **arguments: Any
) -> list[Dynamics]:
    """As `get_dynamics`, for several seeds: those that have to be recorded are so side by side, each saved as it finishes."""
    found = {seed: _found_dynamics(run, condensed, dataset, seed, first) for seed in seeds}
    missing = [seed for seed in seeds if found[seed] is None]
    if missing:
        names = ", ".join(dynamics_file(run, seed, first).name for seed in missing)
        print(f"recording {arguments['epochs']} epochs of dynamics now, for {names}")
        for seed, made in record_many(condensed, seeds=seeds, only=missing, **arguments):
            made.save(dynamics_file(run, seed, first))
            found[seed] = made
    return [found[seed] for seed in seeds]


def _found_dynamics(run: Path, condensed: CondensedSet, dataset: str, seed: int, first: int) -> Dynamics | None:
    path = dynamics_file(run, seed, first)
    if path.exists():
        found = Dynamics.load(path)
        if found.of(condensed):
            print(f"found {path.name}: {len(found.correct)} epochs")
            return found
        print(f"{path.name} is of another set, this one's past perhaps: recording anew")
    shipped = zoo.load_dynamics(dataset.removeprefix(ZOO)) if dataset.startswith(ZOO) and seed == first else None
    if shipped is None or not shipped.of(condensed):
        return None
    print(f"from the zoo: dynamics of {len(shipped.correct)} epochs")
    shipped.save(path)
    return shipped


def get_results(run: Path, condensed: CondensedSet, data: ImageData, chosen: Any) -> pd.DataFrame:
    """The study of 04 in the run's folder: dynamics recorded where missing, finished cells of results.csv kept.

    Its summary goes to table.csv. chosen: the parameters of 04 (`params.Pruning`). Returns the table of `study.run`.
    """
    numbers = range(chosen.seed, chosen.seed + chosen.dynamics)
    training = chosen.training(condensed.size)
    recording = training | ({"epochs": chosen.dynamics_epochs} if chosen.dynamics_epochs else {})
    dynamics = get_all_dynamics(run, condensed, chosen.dataset, numbers, chosen.seed, **recording)
    results = study.run(
        condensed, data, dynamics, methods=chosen.methods, ipc_to=chosen.ipc_to,
        seeds=range(chosen.seed, chosen.seed + chosen.seeds), results=run / RESULTS, **training,
    )
    files.write_text(run / TABLE, study.summary(results).to_csv(index=False))
    return results


def describe(condensed: CondensedSet) -> str:
    """One line: method, dataset, budget, and whether it is finished."""
    info = condensed.info
    steps = f", {info['steps']} of {info['planned_steps']} steps ({info['preset']})" if "steps" in info else ""
    shape = f"{condensed.ipc} images a class, factor {condensed.factor}, {condensed.size}x{condensed.size}"
    return f"{condensed.method} of {info.get('dataset', 'unknown data')}, {shape}{steps}"
