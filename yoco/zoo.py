"""Condensed sets that ship with the package, with the dynamics recorded on them."""

from importlib.resources import as_file, files

import pandas as pd

from yoco import checks
from yoco.condensed import CondensedSet
from yoco.dynamics import Dynamics

_FOLDER = files("yoco").joinpath("zoo_files")
_SET, _DYNAMICS = ".condensed.safetensors", ".dynamics.safetensors"


def names() -> list[str]:
    """Names of the sets, which start with the dataset."""
    return sorted(entry.name.removesuffix(_SET) for entry in _FOLDER.iterdir() if entry.name.endswith(_SET))


def load(name: str) -> CondensedSet:
    """A set by name. Raises ValueError at an unknown name."""
    checks.one_of("name", name, names())
    with as_file(_FOLDER.joinpath(name + _SET)) as path:
        return CondensedSet.load(path)


def load_dynamics(name: str) -> Dynamics | None:
    """The training run recorded on a set, in the paper's settings but for what its `.info` says; None where none ships."""
    checks.one_of("name", name, names())
    entry = _FOLDER.joinpath(name + _DYNAMICS)
    if not entry.is_file():
        return None
    with as_file(entry) as path:
        return Dynamics.load(path)


def table() -> pd.DataFrame:
    """A row for each set: name, method, dataset, classes, size, ipc, factor, preset, steps, hours, accuracy (% , of `evaluation`)."""
    rows = []
    for name in names():
        condensed = load(name)
        info = condensed.info
        rows.append(
            {
                "name": name, "method": condensed.method, "dataset": info.get("dataset"), "classes": len(condensed.classes),
                "size": condensed.size, "ipc": condensed.ipc, "factor": condensed.factor, "preset": info.get("preset"),
                "steps": info.get("steps"), "hours": round(info.get("seconds", 0) / 3600, 2),
                "accuracy": info.get("accuracy"), "evaluation": info.get("evaluation"),
            }
        )
    return pd.DataFrame(rows)
