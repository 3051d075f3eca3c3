"""The folder of a run, and the files in it that several steps read."""

from __future__ import annotations

import os
from pathlib import Path

from yoco import zoo
from yoco.data import folders
from yoco.data.datasets import name_of
from yoco.experiments import tables
from yoco.sets.condensed_set import CondensedSet
from yoco.utils import checks, locks, owned, tensor_files
from yoco.utils.lazy import pd

CONDENSED, CHECKPOINT, RESULTS, TABLE, TABLE2 = (
    "condensed.safetensors",
    "checkpoint.safetensors",
    "results.csv",
    "table.csv",
    "table2.csv",
)


def project() -> Path:
    """Return the folder that relative paths start from.

    It is the working directory, or its parent in notebooks/.
    """
    here = Path.cwd()
    return here.parent if here.name == "notebooks" else here


def home() -> Path:
    """Return the folder of runs without a folder of their own: runs/, or $YOCO_RUNS."""
    return project() / checks.path("YOCO_RUNS", os.environ.get("YOCO_RUNS") or "runs")


def folder(run_dir: str | None, dataset: str) -> Path:
    """Return the run's folder, which the first file written there creates (see `owned.plan`).

    Args:
        run_dir: a path that starts from the project; None: a folder named after the dataset, in
            runs/ or $YOCO_RUNS.
        dataset: the name that it is loaded by.

    Raises:
        TypeError, ValueError: if `run_dir` is not a path or is empty, or the folder would be read
            as a class of the dataset.
        OSError: if it holds files and yoco did not make it, or is a file.
    """
    if run_dir is None:
        name = name_of(dataset).removeprefix("folder:") or "root"
        path = home() / name.replace(":", "-").replace("/", "-")
    elif run_dir == "":
        raise ValueError(f"run_dir must be a path, got ''; leave it out for {home()}/NAME")
    else:
        path = project() / checks.path("run_dir", run_dir)
    if dataset.startswith("folder:"):
        _check_outside(path, checks.path("dataset", dataset.removeprefix("folder:")))
    return owned.plan(path)


def set_aside(run: Path) -> None:
    """Rename the folder of an earlier run, if there is one, so that work there starts from scratch.

    Raises:
        FileExistsError: if yoco did not make it.
        BlockingIOError: if another process works there.
    """
    if not run.exists():
        return
    for lock in run.rglob(f".*{locks.ENDING}"):  # a killed process may have left it
        with locks.hold(lock.with_name(lock.name[1:].removesuffix(locks.ENDING))):
            pass
    print(f"{run} is renamed to {owned.set_aside(run).name}")


def _check_outside(run: Path, images: Path) -> None:
    """Raise ValueError if a run's folder lies where the classes of a folder of images are."""
    run, images = run.resolve(), images.resolve()
    inside = run.relative_to(images).parts[:1] if run.is_relative_to(images) else None
    known = (*folders.TRAIN, *folders.TEST)
    there = images.iterdir() if images.is_dir() else ()
    splits = [each.name for each in there if each.is_dir() and each.name.lower() in known]
    if inside is None or (inside and splits and inside[0] not in splits):
        return
    raise ValueError(
        f"the run's folder {run} lies among the images of folder:{images}, and would be read as "
        "one of their classes: choose another run_dir"
    )


def keep_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table to a CSV file of the run, whole or not at all.

    Raises FileExistsError if the file exists and yoco did not write it.
    """
    tensor_files.write_text(path, table.to_csv(index=False))


def tell(run: Path) -> None:
    """Print a run's table of methods × IPC_T, and where the files are."""
    if (run / TABLE).exists():
        print(f"\ntest accuracy in %, mean ± standard deviation ({run / TABLE}):\n")
        print(tables.pivot(pd.read_csv(run / TABLE)).T.to_string())
        picture = run / "accuracy_by_budget.png"  # by 04_pruning
        if picture.exists():
            print(f"\nfigure: {picture}")
    figures = sorted(path.name for path in run.glob("*.png"))
    named = f" (figures: {', '.join(figures)})" if figures else ""
    print(f"\nall files of the run are in {run}{named}")


def load_set(name: str) -> CondensedSet:
    """Return a condensed set by name: "zoo:NAME", or a file with a path relative to the project.

    Raises as `zoo.load`, `checks.path` and `CondensedSet.load`.
    """
    return (
        zoo.load(name.removeprefix(zoo.PREFIX))
        if name.startswith(zoo.PREFIX)
        else CondensedSet.load(project() / checks.path("name", name))
    )
