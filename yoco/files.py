"""Files that are whole or absent: a temporary file, then a rename; tensors in safetensors with a JSON header."""

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

FORMAT_VERSION = 1


def write_whole(path: str | Path, write: Callable[[Path], None]) -> Path:
    """Have `write` fill a temporary file beside `path`, then rename it; missing folders are made.

    Raises OSError that names `path` where there is no room or no permission; what was at `path` before stays.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise type(error)(error.errno, f"cannot write {path}: {error.strerror}") from error
    part = Path(name)
    try:
        write(part)
        with part.open("rb+") as handle:
            os.fsync(handle.fileno())
        part.chmod(0o666 & ~_umask())
        part.replace(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise OSError(f"cannot write {path}: {error}; what was there before is untouched") from error
    finally:
        part.unlink(missing_ok=True)
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str | Path, text: str) -> Path:
    """Write `text` to `path`, whole or not at all."""
    return write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def save_tensors(path: str | Path, kind: str, tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> Path:
    """Write named tensors and JSON-able `info` as one safetensors file of this `kind` ("condensed", "dynamics", …)."""
    header = {"yoco": kind, "version": str(FORMAT_VERSION), "info": json.dumps(info)}
    flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return write_whole(path, lambda part: safetensors.torch.save_file(flat, part, header))


def load_tensors(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote. Returns tensors and info.

    Raises FileNotFoundError where there is no file; ValueError where it is cut short, no safetensors file, of another
    kind or version, or holds NaN or Inf.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            check_header(path, header, kind)
            tensors = {name: file.get_tensor(name) for name in list(file.keys())}
        info = json.loads(header["info"])
    except (safetensors.SafetensorError, json.JSONDecodeError, KeyError) as error:
        raise ValueError(f"{path} is damaged or cut short: {error}") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"{path}: {name} holds NaN or infinite values")
    return tensors, info


def check_header(path: Path, header: Mapping[str, str], kind: str) -> None:
    """Raise ValueError unless the header is of a yoco file of this kind and version."""
    if header.get("yoco") != kind:
        raise ValueError(f"{path} is no yoco {kind} file (its kind: {header.get('yoco')!r})")
    if header.get("version") != str(FORMAT_VERSION):
        raise ValueError(f"{path} has format version {header.get('version')}, this yoco reads {FORMAT_VERSION}")
