"""Condensed sets that ship with the package, with the dynamics recorded on them."""

from __future__ import annotations

from pathlib import Path

from yoco.dynamics.dynamics import Dynamics
from yoco.sets.condensed_set import CondensedSet
from yoco.utils import checks
from yoco.utils.lazy import pd

PREFIX = "zoo:"  # dataset names with it are zoo sets: no real images, and nothing to condense
FOLDER = Path(__file__).with_name("zoo_files")
SET, DYNAMICS, ENDING = ".condensed.safetensors", ".dynamics", ".safetensors"


def names() -> list[str]:
    """Return the names of the sets, which start with the dataset."""
    return sorted(path.name.removesuffix(SET) for path in FOLDER.glob(f"*{SET}"))


def load(name: str) -> CondensedSet:
    """Return a set by name. Raises ValueError if the name is unknown."""
    checks.one_of("name", name, names())
    return CondensedSet.load(FOLDER / (name + SET))


def load_dynamics(name: str, seed: int = 0) -> Dynamics | None:
    """Return the training run recorded on a set with a seed, or None if none ships.

    Its settings are in its `.info`. If it stopped early (`until`), it serves YOCO, YOCO+, EL2N and
    CCS, but not the methods that need a whole run.
    """
    checks.one_of("name", name, names())
    path = FOLDER / dynamics_file(name, checks.seed("seed", seed))
    return Dynamics.load(path) if path.is_file() else None


def dynamics_of(condensed: CondensedSet, seed: int = 0) -> Dynamics | None:
    """Return the training run that ships for this very set and seed, or None.

    The set is recognised by its content, not by its name.
    """
    found = (load_dynamics(name, seed) for name in names())
    return next(
        (recorded for recorded in found if recorded is not None and recorded.of(condensed)), None
    )


def dynamics_file(name: str, seed: int) -> str:
    """Return the name of the file with the dynamics of a set and seed."""
    return name + DYNAMICS + (f"-{seed}" if seed else "") + ENDING


def table() -> pd.DataFrame:
    """Return a table of the sets, one row each.

    Columns: name, method, dataset, classes, size, ipc, factor, preset, steps, hours (of
    condensing), precision, start_accuracy, accuracy and accuracy_std (in %, as described by
    `evaluation`; the last is missing after a single training).
    """
    rows = []
    for name in names():
        condensed = load(name)
        info = condensed.info
        rows.append(
            {
                "name": name,
                "method": condensed.method,
                "dataset": info.get("dataset"),
                "classes": len(condensed.classes),
                "size": condensed.size,
                "ipc": condensed.ipc,
                "factor": condensed.factor,
                "preset": info.get("preset"),
                "steps": info.get("steps"),
                "hours": round(info.get("seconds", 0) / 3600, 4),
                "precision": info.get("precision"),
                **{
                    name: info.get(name)
                    for name in ("start_accuracy", "accuracy", "accuracy_std", "evaluation")
                },
            }
        )
    return pd.DataFrame(rows)
