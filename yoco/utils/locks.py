"""One run at a time on one file: a lock that names who holds it, and that a killed process lets
go.
"""

import contextlib
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from yoco.utils import tensor_files


@contextlib.contextmanager
def hold(path: str | Path | None, *, wait: bool = False) -> Iterator[None]:
    """Inside, no other process or thread holds the lock on `path`, which need not exist; its
    leftover temporary files are removed. None is work that is kept nowhere, and locks nothing.

    The operating system lets the lock go when its process ends, however it ends. wait: for whoever
    holds it, with a warning that names them. Raises BlockingIOError at once where somebody else
    holds it and it is not to be waited for, naming them; OSError if the folder cannot be made or
    written to.
    """
    if path is None:
        yield
        return
    path = tensor_files.target(path)
    place = path.with_name(f".{path.name}.lock")
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
        tensor_files.write_text(holder, _self())
        yield
    finally:
        with contextlib.suppress(OSError):  # a folder that is gone has no holder either
            holder.unlink(missing_ok=True)
            # while it is held: whoever waits for it sees that, and makes another
            place.unlink(missing_ok=True)
        lock.release()


def _acquire(lock: FileLock, path: Path, holder: str | None) -> None:
    """Take the lock, at once or, where a holder is named, after whoever has it."""
    try:
        lock.acquire()
    except Timeout:
        if holder is None:
            raise
        warnings.warn(f"{path} is being made by {holder}: waiting for it", stacklevel=4)
        lock.acquire(timeout=-1)


def _self() -> str:
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return (
        f"process {os.getpid()} on {socket.gethostname()} since "
        f"{datetime.now():%Y-%m-%d %H:%M:%S} ({command})"
    )


def _said(holder: Path) -> str:
    try:
        return holder.read_text(encoding="utf-8") or "another process"
    except OSError:
        return "another process, which just began or just ended"
