"""The notebooks that ship with the package: finding them and copying them out."""

import contextlib
import json
from pathlib import Path
from typing import Any

import yoco

FOLDER = "notebooks"  # of the repository, of the package in a wheel, and the default of a copy


def shipped() -> Path:
    """Return the folder of the shipped notebooks.

    It is inside an installed package, and beside it in a checkout.
    """
    package = Path(yoco.__file__).parent
    inside = package / FOLDER
    return inside if inside.is_dir() else package.parent / FOLDER


def names() -> list[str]:
    """Return the names of the shipped notebooks in order ("00_quickstart", …)."""
    return sorted(path.stem for path in shipped().glob("[0-9][0-9]_*.ipynb"))


def find(name: str, folder: Path | None = None) -> Path:
    """Return the file of a notebook.

    Args:
        name: for example "01_condensation".
        folder: the folder that must hold it. None: notebooks/ in the working directory, or that
            itself if it is called so, if the notebook is there; else the shipped one.

    Raises:
        FileNotFoundError: if `folder` does not hold the notebook.
    """
    here = Path() if Path.cwd().name == FOLDER else Path(FOLDER)
    places = [here, shipped()] if folder is None else [folder.expanduser()]
    for place in places:
        if (place / f"{name}.ipynb").is_file():
            return place / f"{name}.ipynb"
    raise FileNotFoundError(f"no {name}.ipynb in {places[-1]}; give its folder with --folder")


def read(path: Path) -> dict[str, Any]:
    """Return what a notebook's file holds. Raises ValueError if it is no notebook."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {**content, "cells": list(content["cells"])}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a notebook: {error!r}") from error


def copy(folder: Path) -> dict[str, bool]:
    """Copy shipped notebooks into a folder, which is made if it is missing.

    An existing file is never overwritten.

    Args:
        folder: where the copies go.

    Returns:
        For each notebook whether it was copied: False if the folder had one already.

    Raises:
        OSError: if the folder cannot be made or written to.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} must be a folder, but is a file")
    folder.mkdir(parents=True, exist_ok=True)
    copied = dict.fromkeys(names(), False)
    for name in copied:
        content = (shipped() / f"{name}.ipynb").read_bytes()
        with contextlib.suppress(FileExistsError), open(folder / f"{name}.ipynb", "xb") as file:
            file.write(content)
            copied[name] = True
    return copied
