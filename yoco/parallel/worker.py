"""What happens in a worker of `pool`: how a process begins, and how it makes one call."""

import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from yoco.utils import device as devices

Call = tuple[Any, ...]
# what calls share, by their work's key: of work that this process has begun, and was last sent
held: dict[str, Call] = {}
# held by the running call: one of another thread would draw from the same global generator
_alone = threading.Lock()


class Raised(NamedTuple):
    """The answer of a call that raised an error."""

    error: Exception


class Lacking(NamedTuple):
    """The answer of a process that has not received what the calls share."""

    process: tuple[str, int]


def begin(parent: int) -> None:
    """Initialise a new process: leave Ctrl-C to the parent, and end when the parent ends.

    The parent ends its workers on Ctrl-C.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    # Windows keeps the id of a parent that is gone: there, IDLE_SECONDS ends the process
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def call_here(
    function: Callable[..., Any], key: str, submission: int, shared: Call | None, call: Call
) -> Any:
    """Run a call in a worker with one thread.

    submission: unique, since Dask takes equal arguments for the same task.
    """
    if shared:
        held.clear()
        held[key] = shared
    elif shared is None and (shared := held.get(key)) is None:
        return Lacking((socket.gethostname(), os.getpid()))
    with _alone, devices.threads(1):
        try:
            return function(*shared, *call)
        except Exception as error:
            error.add_note(traceback.format_exc())
            return Raised(error)
