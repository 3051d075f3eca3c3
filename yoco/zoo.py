"""Condensed sets that ship with the package, with the dynamics recorded on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path

import torch

from yoco.dynamics.dynamics import Dynamics
from yoco.sets.condensed_set import CondensedSet
from yoco.utils import checks
from yoco.utils.lazy import pd

PREFIX = "zoo:"  # dataset names with it are zoo sets: no real images, and nothing to condense
_FOLDER = files("yoco").joinpath("zoo_files")
MOST_BYTES = 2_000_000  # limit of a shipped file
_SET, _DYNAMICS, _ENDING = ".condensed.safetensors", ".dynamics", ".safetensors"


def names() -> list[str]:
    """Return the names of the sets, which start with the dataset."""
    return sorted(
        entry.name.removesuffix(_SET) for entry in _FOLDER.iterdir() if entry.name.endswith(_SET)
    )


def load(name: str) -> CondensedSet:
    """Return a set by name. Raises ValueError if the name is unknown."""
    checks.one_of("name", name, names())
    with as_file(_FOLDER.joinpath(name + _SET)) as path:
        return CondensedSet.load(path)


def load_dynamics(name: str, seed: int = 0) -> Dynamics | None:
    """Return the training run recorded on a set with a seed, or None if none ships.

    Its settings are in its `.info`.
    """
    checks.one_of("name", name, names())
    entry = _FOLDER.joinpath(_dynamics_file(name, seed))
    if not entry.is_file():
        return None
    with as_file(entry) as path:
        return Dynamics.load(path)


def dynamics_of(condensed: CondensedSet, seed: int = 0) -> Dynamics | None:
    """Return the training run that ships for this very set and seed, or None.

    The set is recognised by its content, not by its name.
    """
    ships = (name for name in names() if _FOLDER.joinpath(_dynamics_file(name, seed)).is_file())
    found = (load_dynamics(name, seed) for name in ships)
    return next(
        (recorded for recorded in found if recorded is not None and recorded.of(condensed)), None
    )


def _dynamics_file(name: str, seed: int) -> str:
    return name + _DYNAMICS + (f"-{seed}" if seed else "") + _ENDING


def publish(
    name: str,
    condensed: CondensedSet,
    accuracies: pd.DataFrame,
    evaluation: str,
    dynamics: Sequence[Dynamics] = (),
    folder: Path | None = None,
) -> Path:
    """Write a set into the package's zoo (or `folder`) with its measured accuracy.

    For the maintainers of yoco.

    Args:
        name: name of the set, starting with the dataset.
        condensed: the set.
        accuracies: from `evaluate_many`, with the subsets "start" and "condensed".
        evaluation: how these were trained and tested.
        dynamics: recordings on this set to ship with it.
        folder: None for the package's own.

    Returns:
        The set's path.

    Raises:
        ValueError: if dynamics are of another set, or a file would have 2 MB or more.
    """
    if not all(recorded.of(condensed) for recorded in dynamics):
        raise ValueError("dynamics must be of the set to publish, but are of another one")
    grouped = accuracies.groupby("subset")["accuracy"]
    info = {
        "accuracy": round(grouped.mean()["condensed"], 2),
        "accuracy_std": round(grouped.std()["condensed"], 2),
    }
    info |= {
        "start_accuracy": round(grouped.mean()["start"], 2),
        "trainings": int(grouped.count()["condensed"]),
        "evaluation": evaluation,
    }
    folder = folder or Path(str(_FOLDER))
    paths = [replace(condensed, info={**condensed.info, **info}).save(folder / (name + _SET))]
    paths += [
        recorded.save(folder / _dynamics_file(name, recorded.info["seed"]), torch.float16)
        for recorded in dynamics
    ]
    for path in paths:
        if path.stat().st_size >= MOST_BYTES:
            path.unlink()
            raise ValueError(
                f"{path.name} would be {MOST_BYTES / 1e6:.0f} MB or larger, too large to ship"
            )
    return paths[0]


def table() -> pd.DataFrame:
    """Return a table of the sets, one row each.

    Columns: name, method, dataset, classes, size, ipc, factor, preset, steps, hours (of
    condensing), precision, start_accuracy, accuracy and accuracy_std (in %, as described by
    `evaluation`).
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
