"""Folders that yoco writes into; each holds a marker.

The marker lists the files in the folder that yoco wrote and may replace.
"""

import contextlib
import itertools
import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import safetensors

from yoco.utils import digests

MARKER = ".yoco-folder"
TITLE = "A folder of yoco, which replaces the files that are named here, and no others:"
# tables of version 0.1, which left no marker, and columns by which they are recognised
TABLES = {"results.csv": b"condensation,method,keep", "sweep.csv": b"status,seconds,error"}

RUNS = ("condensed", "dynamics", "checkpoint")  # its other files, which have no digests

_planned: set[Path] = set()  # folders that this process will write into


def plan(folder: Path) -> Path:
    """Check a folder as `check` does, and return it.

    The first file that is written there creates and claims it.
    """
    check(folder)
    _planned.add(folder)
    return folder


def check(folder: Path) -> None:
    """Check that yoco may write into a folder, without writing anything.

    Raises:
        NotADirectoryError: if `folder` is a file.
        FileExistsError: if it holds files and yoco did not make it.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} must be a folder, but is a file")
    if _claimed(folder) or not (found := _visible(folder)) or _of_version_01(folder):
        return
    raise FileExistsError(
        f"{folder} holds files that are not yoco's ({', '.join(sorted(found)[:3])}): choose a "
        "folder that is new or empty"
    )


def claim(folder: Path) -> Path:
    """Create a folder, or take an empty one, and leave the marker there; return the folder.

    A folder of version 0.1 is taken with a warning, and all files in it count as yoco's.

    Raises:
        NotADirectoryError, FileExistsError: as `check`.
        OSError: if it cannot be created or written to.
    """
    check(folder)
    if _claimed(folder):
        return folder
    old = _of_version_01(folder)
    if old:
        warnings.warn(
            f"{folder} was made by an earlier version of yoco: all files in it count as yoco's",
            stacklevel=3,
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _note(folder, TITLE, *(_visible(folder) if old else ()))
    except OSError as error:
        raise type(error)(error.errno, f"cannot write {folder}: {error.strerror}") from error
    return folder


@contextlib.contextmanager
def used(folder: Path) -> Iterator[None]:
    """Claim a folder; if the block fails before it writes anything there, remove the new folder.

    Raises as `claim`.
    """
    new = not folder.exists()
    claim(folder)
    try:
        yield
    except BaseException:
        if new and [path.name for path in _inside(folder)] == [MARKER]:
            (folder / MARKER).unlink()
            folder.rmdir()
        raise


def set_aside(path: Path) -> Path:
    """Rename a folder of yoco's to NAME.before-N, or a file to STEM.before-N.ENDING.

    Returns the new path. Raises FileExistsError as `check`.
    """
    ending = path.suffix if path.is_file() else ""
    if not ending:
        check(path)
    stem = path.name.removesuffix(ending)
    places = (path.with_name(f"{stem}.before-{number}{ending}") for number in itertools.count(1))
    return path.rename(next(place for place in places if not place.exists()))


def replacing(path: Path) -> None:
    """Check that yoco may write a file, and record it as yoco's if its folder is yoco's.

    Raises:
        FileExistsError: if the file exists and its folder's marker does not name it.
        OSError: as `claim`.
    """
    folder = path.parent
    if folder in _planned:
        claim(folder)
    if path.name.startswith(".") or not _claimed(folder):
        return
    if path.name in (folder / MARKER).read_text(encoding="utf-8").splitlines():
        return
    if path.exists() and not _is_executed(path):
        raise FileExistsError(
            f"{path} was not written by yoco, which replaces only its own files: move it away"
        )
    _note(folder, path.name)


def _claimed(folder: Path) -> bool:
    return (folder / MARKER).is_file()


def _note(folder: Path, *lines: str) -> None:
    """Append to the marker in one write, since other processes may do so as well."""
    with open(folder / MARKER, "ab") as marker:
        marker.write("".join(f"{line}\n" for line in lines).encode())


def _visible(folder: Path) -> list[str]:
    """Return the names in a folder except hidden ones, yoco's folders and executed notebooks.

    Papermill writes its notebook before that can ask for the folder.
    """
    return [
        path.name
        for path in _inside(folder)
        if not (path.name.startswith(".") or _claimed(path) or _is_executed(path))
    ]


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _is_executed(path: Path) -> bool:
    """Return whether a file is a notebook that papermill executed."""
    if path.suffix != ".ipynb":
        return False
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        return "output_path" in notebook["metadata"]["papermill"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _of_version_01(folder: Path) -> bool:
    """Return whether a folder without a marker holds a file of yoco."""
    return any(path.is_file() and _is_ours(path) for path in _inside(folder))


def _is_ours(path: Path) -> bool:
    with contextlib.suppress(OSError, safetensors.SafetensorError):
        if path.suffix == ".safetensors" and path.stem.split("-")[0] in RUNS:
            with safetensors.safe_open(path, framework="pt") as file:
                told = file.metadata() or {}
                return "yoco" in told and digests.MADE_FROM not in told.get("info", "")
        if path.name in TABLES:
            with open(path, "rb") as table:
                return TABLES[path.name] in table.readline(10_000)
    return False
