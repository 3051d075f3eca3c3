"""The folder of a run, and the files in it that several steps read."""

from __future__ import annotations

import os
from pathlib import Path

from yoco import zoo
from yoco.sets.condensed_set import CondensedSet
from yoco.zoo import PREFIX as ZOO

CONDENSED, RESULTS, TABLE, TABLE2 = (
    "condensed.safetensors",
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
    return Path(os.environ.get("YOCO_RUNS", project() / "runs"))


def folder(run_dir: str | None, dataset: str) -> Path:
    """Return the run's folder, created if missing.

    It is `run_dir`, or one named after the dataset in runs/ (or in $YOCO_RUNS). Raises OSError if
    it cannot be created.
    """
    name = dataset.removeprefix("folder:").rstrip("/").split("/")[-1].replace(":", "-")
    path = home() / name if run_dir is None else project() / Path(run_dir).expanduser()
    path.mkdir(parents=True, exist_ok=True)
    return path


def load_set(name: str) -> CondensedSet:
    """Return a condensed set by name: "zoo:NAME", or a file with a path relative to the project.

    Raises as `zoo.load` and `CondensedSet.load`.
    """
    return (
        zoo.load(name.removeprefix(ZOO))
        if name.startswith(ZOO)
        else CondensedSet.load(project() / Path(name).expanduser())
    )
