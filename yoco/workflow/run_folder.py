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
    """The folder that relative paths start from: the one that holds notebooks/, seen from there,
    else the working folder.
    """
    here = Path.cwd()
    return here.parent if here.name == "notebooks" else here


def home() -> Path:
    """Where runs are that were given no folder: runs/, or $YOCO_RUNS."""
    return Path(os.environ.get("YOCO_RUNS", project() / "runs"))


def folder(run_dir: str | None, dataset: str) -> Path:
    """The run's folder, made if missing: `run_dir`, or one named after the dataset in runs/ (or in
    $YOCO_RUNS).

    Raises OSError if it cannot be made.
    """
    name = dataset.removeprefix("folder:").rstrip("/").split("/")[-1].replace(":", "-")
    path = home() / name if run_dir is None else project() / Path(run_dir).expanduser()
    path.mkdir(parents=True, exist_ok=True)
    return path


def load_set(name: str) -> CondensedSet:
    """A condensed set by name: "zoo:NAME", or a file, whose relative path starts from the project.

    Raises as `zoo.load` and `CondensedSet.load`.
    """
    return (
        zoo.load(name.removeprefix(ZOO))
        if name.startswith(ZOO)
        else CondensedSet.load(project() / Path(name).expanduser())
    )
