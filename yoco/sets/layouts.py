"""Layouts of files that hold condensed sets: finds the images and labels in them.

Nothing in a file is executed, and the values are not judged here.
"""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.serialization import safe_globals

from yoco.sets import exported

FLOAT = 4  # bytes of a value, as sets hold it
MOST_BYTES = 2**28  # that any file may come to in memory; larger files to eight times their size
# words in the refusals of torch and NumPy
_MORE = ("unsupported global", "unrecognized function", "allowlisted", "object arrays")


class _Number:
    """Stands in for a NumPy scalar in a DSA file, an accuracy that is not needed.

    A file can crash NumPy's own code.
    """

    def __init__(self, *_: object) -> None: ...
    def __setstate__(self, _: object) -> None: ...


_NUMBERS: list[Any] = [
    (_Number, name)
    for name in ("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
]


class Held(NamedTuple):
    """What a file holds.

    Attributes:
        images, labels: the arrays.
        labels_at: name of the file of the labels.
        layout: the layout in words.
        method: the method whose layout it is.
        header: the header of a yoco export.
    """

    images: object
    labels: object
    labels_at: str
    layout: str
    method: str
    header: object = None


def images_of(path: Path) -> Path:
    """Return the file of images: `path`, or the only one in the folder."""
    if path.is_dir():
        found = sorted(
            file
            for file in path.iterdir()
            if file.suffix in (".pt", ".npz", ".npy")
            and not re.match(r"lr|.*labels", file.name.lower())
            and _whitened_twin(file) is None
        )
        if len(found) != 1:
            raise ValueError(
                f"a folder must hold the images of one set, but {path} holds "
                f"{', '.join(file.name for file in found) or 'none'}; name one file"
            )
        return found[0]
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    if twin := _whitened_twin(path):
        raise ValueError(
            f"{path.name} holds the un-whitened images, which the authors' code saves beside "
            f"{twin.name} for viewing; pass {twin.name}"
        )
    return path


def _whitened_twin(path: Path) -> Path | None:
    """Return the file of whitened images beside MTT's images_zca_N.pt, which is un-whitened."""
    twin = path.with_name(path.name.replace("_zca", ""))
    return twin if path.name.startswith("images_zca") and twin.is_file() else None


def read(path: Path, experiment: int) -> Held:
    """Read the images and labels of a file.

    Args:
        path: from `images_of`.
        experiment: which pair of a dict, counted from 0.

    Raises:
        FileNotFoundError, ValueError: if labels are missing, the file is corrupted or asks for far
            more memory than its own size, or its layout is unknown.
    """
    held = _read(path, experiment)
    for tensor in (held.images, held.labels):  # one of stride 0 holds less than it seems to
        if isinstance(tensor, torch.Tensor) and not tensor.is_nested:
            _check_bytes(path, tensor.numel() * max(FLOAT, tensor.itemsize))
    return held


def _read(path: Path, experiment: int) -> Held:
    held = _arrays(path) if path.suffix in (".npz", ".npy") else _tensors(path)
    if isinstance(held, Mapping) and "data" in held:
        return Held(
            *_experiment(held["data"], experiment),
            path.name,
            (f"DSA's layout, set {experiment}"),
            "dsa",
        )
    if experiment:
        raise ValueError(
            f"experiment={experiment} chooses a pair of a dict with 'data', but this is "
            f"{_describe(held)}"
        )
    if isinstance(held, Mapping):
        images, labels = (
            next((held[name] for name in names if name in held), None)
            for names in (("images", "x"), ("labels", "y"))
        )
        if images is None or labels is None:
            raise ValueError(
                f"it must hold images and labels (or x and y), or 'data', got {_describe(held)}"
            )
        return Held(images, labels, path.name, "named arrays", "kip", held.get(exported.MARK))
    if isinstance(held, (tuple, list)):
        return Held(*_pair(held), path.name, "a pair [images, labels]", "idc")
    beside = path.with_name(path.name.replace("images", "labels"))
    if beside == path:
        raise ValueError(
            f"it holds only {_describe(held)}; labels are looked for in labels* beside a file "
            "images*"
        )
    if not beside.is_file():
        raise FileNotFoundError(f"no file at {beside}, which holds the labels of {path.name}")
    labels = _arrays(beside) if beside.suffix == ".npy" else _tensors(beside)
    return Held(
        held,
        labels,
        beside.name,
        f"images with {beside.name} beside them",
        "kip" if path.suffix == ".npy" else "mtt",
    )


def _check_bytes(path: Path, wanted: int) -> None:
    """Raise ValueError if a file asks for far more memory than its own size."""
    size = path.stat().st_size
    if wanted > max(MOST_BYTES, 8 * size):
        raise ValueError(
            f"{path} would take {wanted:,} bytes of memory, but has only {size:,} bytes; it was "
            "not read"
        )


def _check_archive(path: Path) -> None:
    """`_check_bytes` of what the members of a zip archive are unpacked to."""
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            wanted = sum(member.file_size for member in archive.infolist())
    except Exception as error:  # a damaged archive raises nearly anything
        raise _refusal(path, error) from error
    _check_bytes(path, wanted)


def _tensors(path: Path) -> Any:
    """Return what a torch file holds: tensors, numbers, text and containers of them."""
    _check_archive(path)
    try:
        with safe_globals(_NUMBERS):
            return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # a corrupted pickle raises nearly anything
        raise _refusal(path, error) from error


def _arrays(path: Path) -> Any:
    """Return the array of an .npy file as a tensor, or the arrays of an .npz archive by name.

    Text is returned as str.
    """
    _check_archive(path)
    try:
        held = np.load(path)
        if isinstance(held, np.ndarray):
            return torch.from_numpy(held)
        with held as archive:
            read = {
                name: archive[name]
                for name in ("images", "labels", "x", "y", exported.MARK)
                if name in archive.files
            }
        return {
            name: str(array) if array.dtype.kind == "U" else torch.from_numpy(array)
            for name, array in read.items()
        }
    except Exception as error:  # so does a corrupted archive
        raise _refusal(path, error) from error


def _refusal(path: Path, error: Exception) -> ValueError:
    if any(word in str(error).lower() for word in _MORE):
        return ValueError(
            f"{path} holds more than tensors; its code is not executed, and the file is not read"
        )
    return ValueError(
        f"{path} is corrupted, truncated, or holds more than tensors; nothing in it was executed "
        f"({type(error).__name__})"
    )


def _experiment(data: object, number: int) -> tuple[object, object]:
    if not isinstance(data, (tuple, list)):
        raise ValueError(f"'data' must list [images, labels] pairs, got {_describe(data)}")
    if number >= len(data):
        raise ValueError(
            f"it holds {len(data)} experiments, counted from 0; got experiment={number}"
        )
    return _pair(data[number])


def _pair(held: object) -> tuple[object, object]:
    if not isinstance(held, (tuple, list)) or len(held) != 2:
        raise ValueError(f"it must hold a pair [images, labels], got {_describe(held)}")
    return held[0], held[1]


def _describe(held: object) -> str:
    of = (
        sorted(map(str, held))[:8]
        if isinstance(held, Mapping)
        else len(held)
        if isinstance(held, (tuple, list))
        else None
    )
    return type(held).__name__ + (f" of {of}" if of is not None else "")
