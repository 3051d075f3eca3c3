"""One run at a time per file: a lock that names its holder and is released if the process dies."""

import contextlib
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from yoco.utils import checks, tensor_files

ENDING = ".lock"  # of the hidden file beside the locked one


@contextlib.contextmanager
def hold(path: str | Path | None, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock on `path`, so that no other process or thread works on it at the same time.

    The path need not exist; temporary files left over from an earlier run are removed. The
    operating system releases the lock when the process ends, for whatever reason.

    Args:
        path: the file; None locks nothing (work that is not stored).
        wait: wait for the current holder, with a warning that names it, instead of raising an
            error.

    Raises:
        BlockingIOError: if the lock is taken and `wait` is False; it names the holder.
        OSError: if the folder cannot be created or written to.
    """
    if path is None:
        yield
        return
    path = tensor_files.target(path)
    place = path.with_name(f".{path.name}{ENDING}")
    lock = FileLock(place, timeout=0, thread_local=False)
    holder = path.with_name(f".{path.name}.holder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _acquire(lock, path, _said(holder) if wait else None)
    except Timeout:
        raise BlockingIOError(
            f"{path} is being worked on by {_said(holder)}: wait for it, stop it, or choose "
            "another folder"
        ) from None
    except OSError as error:
        raise type(error)(error.errno, f"cannot write {path}: {error.strerror}") from error
    try:
        tensor_files.sweep(path)
        tensor_files.sweep(holder)
        tensor_files.write_text(
            holder,
            checks.printable(
                f"process {os.getpid()} on {socket.gethostname()} since "
                f"{datetime.now():%Y-%m-%d %H:%M:%S} "
                f"({' '.join([Path(sys.argv[0]).name, *sys.argv[1:]])})"
            ),
        )
        yield
    finally:
        with contextlib.suppress(OSError):  # the folder may have been deleted
            holder.unlink(missing_ok=True)
            # removed while held: a waiting process notices and creates a new one
            place.unlink(missing_ok=True)
        lock.release()


def _acquire(lock: FileLock, path: Path, holder: str | None) -> None:
    """Take the lock; if a holder is named and the lock is taken, wait for it with a warning."""
    try:
        lock.acquire()
    except Timeout:
        if holder is None:
            raise
        warnings.warn(f"{path} is being made by {holder}: waiting for it", stacklevel=4)
        lock.acquire(timeout=-1)


def _said(holder: Path) -> str:
    try:
        return holder.read_text(encoding="utf-8") or "another process"
    except OSError:
        return "another process, which has just started or just ended"
