"""Image files decoded once to a file of pixels that every process of a machine maps: data larger than memory."""

import contextlib
import errno
import glob
import hashlib
import json
import mmap
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from yoco.data import decode
from yoco.utils import checks, locks, tensor_files

MAPPED_FROM = "mapped_from"  # attribute of a tensor that lies in a cache file: the file's path
VERSION = 1  # of the cache's files; another one is decoded anew
KEPT = 24 * 3600.0  # seconds after its last use that an outdated cache stays: whatever still runs finds it
ELSEWHERE = "YOCO_CACHE=FOLDER or cache=FOLDER takes another place, cache=False memory"
NO_RESERVE = 0x4000 if sys.platform == "linux" else 0  # mmap's MAP_NORESERVE, which Python does not name before 3.13


class Pixels(NamedTuple):
    """images: uint8 [N, 3, S, S]; counts: int64 [3, 256], how often each value is in each channel."""

    images: Tensor
    counts: Tensor


def default_folder() -> Path:
    """Where caches are: $YOCO_CACHE, or ~/.cache/yoco/pixels."""
    return Path(os.environ.get("YOCO_CACHE") or Path.home() / ".cache" / "yoco" / "pixels").expanduser()


def read(source: decode.Source, cache: str | Path | bool = True, *, title: str = "reading", progress: bool = True) -> Pixels:
    """The pixels of `source`: decoded into a file under `cache` where no whole one is there, and mapped from it.

    cache: a folder; True: `default_folder()`, or memory with a warning where that cannot be written to; False: memory.
    While one process decodes, others wait for it. What is mapped is read on demand and shared by all processes; writing
    to the tensor changes this process's view, never the file.
    Raises ValueError at an unreadable image (named) or one of another shape, OSError where the cache has no room or, a
    folder that was named, cannot be written to.
    """
    if cache is not False:
        folder = default_folder() if cache is True else checks.path("cache", cache)
        path = folder / f"{source.place}-{source.key()}.u8"
        found = _open(path)
        if found is None and _writable(folder, cache is not True):
            with locks.hold(path, wait=True):
                found = _open(path) or _made(path, source, title, progress)  # somebody else's, perhaps, who was waited for
        if found is not None:
            return found
    shape = decode.shape_of(source)
    images = torch.empty(shape, dtype=torch.uint8)
    take: decode.Take = lambda start, block: images[start : start + len(block)].copy_(torch.from_numpy(block))
    return Pixels(images, decode.decode(source, shape, take, title, progress)[0])


def _writable(folder: Path, demanded: bool) -> bool:
    """Whether caches can be made in `folder`, which is made; where not, an OSError if it is demanded or full, else a warning."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        if demanded or error.errno == errno.ENOSPC:
            raise type(error)(error.errno, f"cannot write to the cache {folder}: {error.strerror}; {ELSEWHERE}") from error
        warnings.warn(f"the cache {folder} cannot be written to ({error.strerror}): images are held in memory; {ELSEWHERE}", stacklevel=5)
        return False
    return True


def _made(path: Path, source: decode.Source, title: str, progress: bool) -> Pixels:
    """Decode `source` to `path`, and say in the file beside it, which is written last, what a whole one is."""
    shape = decode.shape_of(source)
    wanted, free = int(np.prod(shape)), shutil.disk_usage(path.parent).free
    if wanted > free:
        why = f"no room for {wanted:,} bytes of pixels in {path} ({free:,} are free); {ELSEWHERE}"
        raise OSError(errno.ENOSPC, why)
    found: list[Any] = []

    def write(part: Path) -> None:
        with open(part, "wb", buffering=0) as file:
            take: decode.Take = lambda start, block: _write_at(file.fileno(), block, start * block[0].nbytes)
            found.extend(decode.decode(source, shape, take, title, progress))

    path.with_suffix(".json").unlink(missing_ok=True)
    tensor_files.write_whole(path, write)
    counts, sums = found
    record = {"yoco": "pixels", "version": VERSION, "shape": shape, "stamp": _stamp(path), "counts": counts.tolist(), "sums": sums}
    _note(path, record)
    _drop_outdated(path, source.place)
    return Pixels(_mapped(path, shape), counts)


def _write_at(handle: int, block: np.ndarray, offset: int) -> None:
    """A whole block: on a disk that is nearly full the system may write a part, and say so at the next call."""
    left = np.ascontiguousarray(block).data.cast("B")
    while left:
        written = os.pwrite(handle, left, offset)
        left, offset = left[written:], offset + written


def _note(path: Path, record: dict[str, Any]) -> None:
    record = {**record, "checksum": _checksum(record)}
    tensor_files.write_text(path.with_suffix(".json"), json.dumps(record))


def _checksum(record: dict[str, Any]) -> str:
    held = {name: value for name, value in record.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()


def _stamp(path: Path) -> list[int]:
    """Size and time of change: what tells a file that somebody wrote to since."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _open(path: Path) -> Pixels | None:
    """The cache at `path`, None where it is not there, or not as it was written.

    One that carries the stamp it was written with is trusted; one that does not, a copy say, has all its blocks summed.
    """
    try:
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        if record["version"] != VERSION or record["checksum"] != _checksum(record):
            return None
        stamp, shape = _stamp(path), tuple(record["shape"])
        if stamp[0] != np.prod(shape):
            return None
        images = _mapped(path, shape)
        if stamp != record["stamp"]:
            if [decode.block_sum(block) for block in np.split(images.numpy(), decode.starts(shape)[1:])] != record["sums"]:
                return None
            with contextlib.suppress(OSError):  # a cache that may only be read
                _note(path, {**record, "stamp": stamp})
        with contextlib.suppress(OSError):
            os.utime(path.with_suffix(".json"))  # when it was last used
        return Pixels(images, torch.tensor(record["counts"]))
    except (OSError, ValueError, KeyError, TypeError):  # none there, or no record of ours
        return None


def _drop_outdated(path: Path, place: str) -> None:
    """Remove what was decoded before from the same folder to the same size, unless it was in use a day ago."""
    mine = glob.escape(place)
    for other in (*path.parent.glob(f"{mine}-*.u8"), *path.parent.glob(f".{mine}-*.part")):
        note = other.with_suffix(".json")
        with contextlib.suppress(OSError):
            if other != path and time.time() - (note if note.exists() else other).stat().st_mtime > KEPT:
                note.unlink(missing_ok=True)
                other.unlink()


def _mapped(path: Path, shape: Sequence[int]) -> Tensor:
    """The file as a tensor [N, 3, S, S]: private pages, which a write copies, of which none is set aside before."""
    with open(path, "rb") as file:
        private = {"flags": mmap.MAP_PRIVATE | NO_RESERVE, "prot": mmap.PROT_READ | mmap.PROT_WRITE} if NO_RESERVE else {"access": mmap.ACCESS_COPY}
        images = torch.frombuffer(mmap.mmap(file.fileno(), 0, **private), dtype=torch.uint8).view(*shape)
    setattr(images, MAPPED_FROM, path)
    return images


def as_array(images: Tensor) -> np.ndarray:
    """`images` on the CPU as an array: one over the mapped file, if it is one and was not written to."""
    path = getattr(images, MAPPED_FROM, None)
    if path is None or images._version:
        return images.numpy()
    return _Mapped(path, np.uint8, "r", shape=tuple(images.shape))


class _Mapped(np.memmap):
    """A whole file as an array, which goes to another process by its name; a part of it goes by its values."""

    def __reduce__(self) -> Any:
        if isinstance(self.base, mmap.mmap):
            return _Mapped, (str(self.filename), self.dtype, self.mode, self.offset, self.shape)
        return np.asarray(self).__reduce__()
