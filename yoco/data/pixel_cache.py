"""Image files decoded once into a file of pixels that all processes of a machine map.

The data can be larger than memory.
"""

import contextlib
import errno
import glob
import json
import mmap
import os
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from yoco.data import decode
from yoco.utils import checks, digests, locks, tensor_files

MAPPED_FROM = "mapped_from"  # attribute of a tensor mapped from a cache file: the file's path
# seconds after its last use before an outdated cache is removed: running processes still find it
KEPT = 24 * 3600.0
ELSEWHERE = "YOCO_CACHE=FOLDER or cache=FOLDER uses another place, cache=False uses memory"
# mmap.MAP_NORESERVE, which Python names from 3.13 on
NO_RESERVE = 0x4000 if sys.platform == "linux" else 0


class Pixels(NamedTuple):
    """Images, and the counts of each value per channel."""

    images: UInt8[Tensor, "images 3 size size"]
    counts: Int[Tensor, "3 256"]


def default_folder() -> Path:
    """Return where caches are: $YOCO_CACHE, or ~/.cache/yoco/pixels."""
    return checks.path("YOCO_CACHE", os.environ.get("YOCO_CACHE") or "~/.cache/yoco/pixels")


def read(
    source: decode.Source,
    cache: str | Path | bool = True,
    *,
    title: str = "reading",
    progress: bool = True,
) -> Pixels:
    """Return the pixels of `source`, decoded once into a file that every process maps.

    The file is read on demand. Writing to the tensor changes this process's copy, never the file.
    While one process decodes, others wait for it.

    Args:
        source: the image files.
        cache: a folder; True: `default_folder()`, or memory with a warning if that is not writable;
            False: memory.
        title: title of the progress bar.
        progress: whether to show it.

    Returns:
        The pixels and their histograms.

    Raises:
        ValueError: if an image (named) cannot be read or has another shape.
        OSError: if there is no space for the cache, or a folder given by name is not writable.
    """
    if cache is not False:
        folder = default_folder() if cache is True else checks.path("cache", cache)
        path = folder / f"{source.place}-{source.key()}.npy"
        found = _open(path)
        if found is None and _writable(folder, cache is not True):
            with locks.hold(path, wait=True):
                # another process may have decoded meanwhile
                found = _open(path) or _made(path, source, title, progress)
        if found is not None:
            return found
    images = np.empty(decode.shape_of(source), np.uint8)
    made = decode.decode(source, images, title, progress)
    return Pixels(digests.keep(torch.from_numpy(images), made.digest), made.counts)


def _writable(folder: Path, demanded: bool) -> bool:
    """Return whether caches can be made in `folder`, which is created.

    If not, raise OSError if the folder is demanded or full, else warn.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        if demanded or error.errno == errno.ENOSPC:
            raise type(error)(
                error.errno, (f"cannot write to the cache {folder}: {error.strerror}; {ELSEWHERE}")
            ) from error
        warnings.warn(
            (
                f"cannot write to the cache {folder} ({error.strerror}): images are held in "
                f"memory; {ELSEWHERE}"
            ),
            stacklevel=5,
        )
        return False
    return True


def _made(path: Path, source: decode.Source, title: str, progress: bool) -> Pixels:
    """Decode `source` to `path`, then write the JSON file that marks it as complete."""
    shape = decode.shape_of(source)
    wanted, free = int(np.prod(shape)), shutil.disk_usage(path.parent).free
    if wanted > free:
        why = f"no space for {wanted:,} bytes of pixels in {path} ({free:,} are free); {ELSEWHERE}"
        raise OSError(errno.ENOSPC, why)
    found: list[decode.Decoded] = []

    def write(part: Path) -> None:
        pages = np.lib.format.open_memmap(part, "w+", np.uint8, shape)
        # a full disk is an error here; in a mapped page it would kill the process
        if hasattr(os, "posix_fallocate"):
            with open(part, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, part.stat().st_size)
        found.append(decode.decode(source, np.asarray(pages), title, progress))
        pages.flush()

    note = path.with_suffix(".json")
    note.unlink(missing_ok=True)
    tensor_files.write_whole(path, write)
    [made] = found
    record = {"counts": made.counts.tolist(), "digest": made.digest}
    tensor_files.write_text(note, json.dumps({"written": path.stat().st_mtime_ns, **record}))
    _drop_outdated(path, source.place)
    return Pixels(digests.keep(_mapped(path), made.digest), made.counts)


def _open(path: Path) -> Pixels | None:
    """Return the cache at `path`; None if it is missing, incomplete or changed since."""
    note = path.with_suffix(".json")
    try:
        record = json.loads(note.read_text(encoding="utf-8"))
        found = Pixels(_mapped(path), torch.tensor(record["counts"]))
        # pixels per channel, as the counts must add up to
        of_each = [found.images[:, 0].numel()] * 3
        if record["written"] != path.stat().st_mtime_ns or found.counts.sum(1).tolist() != of_each:
            return None
        digests.keep(found.images, str(record["digest"]))
    # missing, truncated, or not ours
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    with contextlib.suppress(OSError):  # the cache may be read-only
        os.utime(note)  # when it was last used
    return found


def _drop_outdated(path: Path, place: str) -> None:
    """Remove earlier caches of the same folder and size, unless used within a day.

    Caches of an earlier format end in .u8.
    """
    mine = glob.escape(place)
    for other in (
        *path.parent.glob(f"{mine}-*.npy"),
        *path.parent.glob(f"{mine}-*.u8"),
        *path.parent.glob(f".{mine}-*.part"),
    ):
        note = other.with_suffix(".json")
        with contextlib.suppress(OSError):
            if (
                other != path
                and time.time() - (note if note.exists() else other).stat().st_mtime > KEPT
            ):
                note.unlink(missing_ok=True)
                other.unlink()


def _mapped(path: Path) -> Tensor:
    """Return the .npy file as a tensor [N, 3, S, S] over private pages, copied on write.

    NumPy's own copy-on-write mode reserves memory for the whole file, which Linux refuses for a
    file larger than memory.
    """
    layout = np.lib.format.open_memmap(path, "r")
    with open(path, "rb") as file:
        pages = mmap.mmap(
            file.fileno(),
            0,
            flags=mmap.MAP_PRIVATE | NO_RESERVE,
            prot=mmap.PROT_READ | mmap.PROT_WRITE,
        )
    images = torch.frombuffer(
        pages, dtype=torch.uint8, count=layout.size, offset=layout.offset
    ).view(*layout.shape)
    setattr(images, MAPPED_FROM, path)
    return images


def as_array(
    images: UInt8[Tensor, "images channels size size"],
) -> UInt8[np.ndarray, "images channels size size"]:
    """Return `images` on the CPU as an array.

    It is a read-only map of their file if they have one and were not written to.
    """
    path = getattr(images, MAPPED_FROM, None)
    return images.numpy() if path is None or digests.writes(images) else _array(str(path))


def _array(path: str) -> "_Mapped":
    array = np.lib.format.open_memmap(path, "r").view(_Mapped)
    array.path = path
    return array


class _Mapped(np.memmap):
    """An array over a whole file, pickled as the file's path; its slices are pickled by value."""

    path: str | None = None

    def __reduce__(self) -> Any:
        return np.asarray(self).__reduce__() if self.path is None else (_array, (self.path,))
