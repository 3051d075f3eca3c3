"""Ctrl-C while libraries are imported."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

SAID = "yoco: interrupted; the same command, without --fresh, resumes from the last checkpoint"
STATUS = 130  # of a process that Ctrl-C ended


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """End the process at Ctrl-C in this block, in which torch is imported.

    torch's import swallows a KeyboardInterrupt, and the run would go on. A handler of the caller's
    own is left in place.
    """

    def end(*_: object) -> None:
        print(SAID, file=sys.stderr, flush=True)
        os._exit(STATUS)

    usual = signal.getsignal(signal.SIGINT)
    main_thread = threading.current_thread() is threading.main_thread()
    if usual is not signal.default_int_handler or not main_thread:
        yield
        return
    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
