"""Ctrl-C while libraries are imported."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def ending(said: str, status: int) -> Iterator[None]:
    """End the process at Ctrl-C in this block, in which torch is imported.

    torch's import swallows a KeyboardInterrupt, and the run would go on. A handler of the caller's
    own is left in place.
    """

    def end(*_: object) -> None:
        print(said, file=sys.stderr, flush=True)
        os._exit(status)

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
