"""Files that are written whole or not at all; tensors as safetensors with checksums.

A file is first a temporary file, which is then renamed. The safetensors header holds JSON and the
checksums.
"""

import contextlib
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from jaxtyping import Shaped
from torch import Tensor

from yoco.utils import checks, owned

DTYPES = (
    *checks.FLOATS,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.bool,
)
FORMAT_VERSION = 2
AnyTensor = Shaped[Tensor, "..."]
UNSUMMED = "1"  # the version before checksums: still read, with all other checks


def file(name: str, value: object) -> Path | None:
    """Return the path of a file that is read if it exists, and written, with ~ expanded, or None.

    Raises TypeError or ValueError if it is no path, or that of a folder.
    """
    path = None if value is None else checks.path(name, value)
    if path is not None and path.is_dir():
        raise ValueError(f"{name} must be the path of a file, got {checks.shown(value)}, a folder")
    return path


def write_whole(
    path: str | Path, write: Callable[[Path], object], *, make_folder: bool = True
) -> Path:
    """Have `write` fill a temporary file beside `path`, then rename it to `path`.

    Args:
        path: the file; of a symbolic link, the file that it leads to is written. A file that is
            replaced hands on its permissions.
        write: fills the file at the path that it is given.
        make_folder: whether missing folders are made.

    Returns:
        The path.

    Raises:
        OSError: if there is no space, permission or folder; it names `path`, and a file that was
            there before stays.
        FileExistsError: as `owned.replacing`.
    """
    given, path = Path(path), target(path)
    owned.replacing(path)
    part = path.parent / f".{path.name}.{secrets.token_hex(4)}.part"
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        part.touch(exist_ok=False)
    except OSError as error:
        raise type(error)(error.errno, f"cannot write {path}: {error.strerror}") from error
    # a new file has those that the user's umask leaves
    permissions = stat.S_IMODE((path if path.exists() else part).stat().st_mode)
    try:
        part.chmod(0o600)  # what replaces a secret is one already
        write(part)
        _flush(part)
        part.chmod(permissions)
        part.replace(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise OSError(
            f"cannot write {path}: {error}; what was there before is untouched"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    # the file is in place; some file systems cannot flush a folder
    with contextlib.suppress(OSError):
        _flush(path.parent)
    return given


def _flush(path: Path) -> None:
    """Make sure that a file's bytes, or a folder's names, are on disk.

    A rename alone does not survive a power failure.
    """
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def target(path: str | Path) -> Path:
    """`path`, or the file that it leads to if it is a symbolic link."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)


def sweep(path: Path) -> None:
    """Remove the temporary files of `path` that a killed process left.

    Only the holder of the lock on `path` may call this.
    """
    # eight random characters: with more, it is another file's
    own = re.compile(re.escape(f".{path.name}.") + r"[a-z0-9_]{8}\.part")
    for left in path.parent.iterdir():
        if own.fullmatch(left.name):
            left.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> Path:
    """Write `text` to `path`, whole or not at all."""
    return write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def save_tensors(
    path: str | Path,
    kind: str,
    tensors: Mapping[str, AnyTensor],
    info: Mapping[str, Any],
    *,
    make_folder: bool = True,
) -> Path:
    """Write named tensors and JSON-serialisable `info` as one safetensors file.

    Args:
        path: the file.
        kind: kind of file ("condensed", "dynamics", …), which `load_tensors` checks.
        tensors: tensors by name. The header holds a checksum of each, and one of itself.
        info: settings and facts, which go into the header as JSON.
        make_folder: create missing folders.

    Raises:
        OSError: as `write_whole`.
    """
    path = checks.path("path", path)
    flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {
        "yoco": kind,
        "version": str(FORMAT_VERSION),
        "info": json.dumps(info),
        "sums": json.dumps({name: _entry(tensor) for name, tensor in flat.items()}),
    }
    header["checksum"] = _header_sum(header)
    return write_whole(
        path, lambda part: safetensors.torch.save_file(flat, part, header), make_folder=make_folder
    )


def _entry(tensor: Tensor, by_row: bool = False) -> dict[str, Any]:
    """Return a tensor's header entry: dtype, shape and checksum (in older files one per row)."""
    return {
        "dtype": str(tensor.dtype),
        "shape": list(tensor.shape),
        "sums": [checksum(row) for row in tensor] if by_row else checksum(tensor),
    }


def checksum(tensor: AnyTensor) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of a CPU tensor's bytes."""
    return hashlib.sha256(
        tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data
    ).hexdigest()[:16]


def _header_sum(header: Mapping[str, str]) -> str:
    parts = [header[name] for name in ("yoco", "version", "info", "sums")]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def load_tensors(path: str | Path, kind: str) -> tuple[dict[str, AnyTensor], dict[str, Any]]:
    """Read what `save_tensors` wrote. Returns tensors and info.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if it is truncated, corrupted, not a safetensors file, of another kind or
            version, or holds NaN or Inf.
    """
    with open_tensors(path) as file:
        info, sums = read_header(path, file.metadata() or {}, kind)
        if sums is not None and set(sums) != set(file.keys()):
            raise ValueError(
                f"{path} is corrupted: it holds {sorted(file.keys())}, its header lists "
                f"{sorted(sums)}"
            )
        tensors = {name: _tensor(path, file, name) for name in sorted(file.keys())}
    for name, tensor in tensors.items():
        if sums is not None:
            check_tensor(path, name, tensor, sums[name])
        if tensor.dtype not in DTYPES:
            raise ValueError(f"{path}: {name} is of type {tensor.dtype}, which yoco does not write")
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"{path}: {name} holds NaN or infinite values")
    return tensors, info


def check_tensor(
    path: str | Path, name: str, tensor: AnyTensor, written: Mapping[str, Any]
) -> None:
    """Raise ValueError unless a tensor matches its header entry `written` (see `_entry`)."""
    by_row = isinstance(written.get("sums"), list) and tensor.ndim > 0
    if _entry(tensor, by_row) != written:
        raise ValueError(
            f"{path} is corrupted: {name} does not have the checksum that it was written with"
        )


def open_tensors(path: str | Path) -> Any:
    """Return the safetensors file at `path`, open.

    Raises FileNotFoundError if there is no file, ValueError if it is not a safetensors file.
    """
    path = checks.path("path", path)
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    try:
        return safetensors.safe_open(path, framework="pt")
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path} is corrupted or truncated, or yoco did not write it: {error}"
        ) from error


def _tensor(path: str | Path, file: Any, name: str) -> Tensor:
    try:
        return file.get_tensor(name)
    except Exception as error:  # a dtype that torch lacks raises nearly anything
        raise ValueError(f"{path} is corrupted: {name} cannot be read ({error})") from error


def read_header(
    path: str | Path, header: Mapping[str, str], kind: str
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return info and the header entries of all tensors (see `_entry`).

    The entries are None in a file from before checksums. Raises ValueError unless the header is
    intact and the file of this kind and version.
    """
    if header.get("yoco") != kind:
        raise ValueError(f"{path} is not a yoco {kind} file (its kind: {header.get('yoco')!r})")
    version = header.get("version")
    if version == UNSUMMED and "checksum" not in header:
        return _json(path, header, "info"), None
    if version != str(FORMAT_VERSION):
        raise ValueError(
            f"{path} has format version {version}, but this yoco reads {FORMAT_VERSION}"
        )
    if not {"info", "sums"} <= set(header) or header.get("checksum") != _header_sum(header):
        raise ValueError(
            f"{path} is corrupted: its header does not have the checksum that it was written with"
        )
    sums = _json(path, header, "sums")
    if not all(isinstance(entry, dict) for entry in sums.values()):
        raise ValueError(f"{path} is corrupted: its sums are not a table for each tensor")
    return _json(path, header, "info"), sums


def _json(path: str | Path, header: Mapping[str, str], name: str) -> dict[str, Any]:
    try:
        value = json.loads(header[name])
    except (KeyError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is corrupted or truncated: {error!r} in its {name}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} is corrupted: its {name} is not a JSON object")
    return value
