"""A joblib backend of workers with one call at a time each, where one that dies costs only the call it was at."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from joblib.parallel import ParallelBackendBase


class Slot(Protocol):
    """A worker's place: a process of this machine or of a cluster, and after its death the next one."""

    lost: tuple[type[BaseException], ...]  # errors that say that the process died
    tries: int  # of a call in all, before its worker's death is an error

    def submit(self, function: Callable[[], Any]) -> Future:
        """Have the process call `function`."""

    def renew(self) -> None:
        """Put another process in the place of one that died."""

    def rest(self) -> None:
        """There are no more calls for now."""

    def stop(self) -> None:
        """Kill the process, or call off what it is at."""


@dataclass(eq=False)
class _Job:
    function: Callable[[], Any]
    callback: Callable[[Future], None]
    outcome: Future = field(default_factory=Future)
    tries: int = 0

    @property
    def number(self) -> int:
        """That `workers.run` gave the call."""
        return self.function.items[0][1][1]


class Slots(ParallelBackendBase):
    """The workers, as `joblib.Parallel` takes them. A call whose process died is made again by a new one, as often as the
    slot's `tries` say; the others go on undisturbed. After that its result is a ChildProcessError, with its number."""

    supports_retrieve_callback = True

    def __init__(self, slots: Sequence[Slot]) -> None:
        super().__init__(nesting_level=0)
        self._slots, self._idle = slots, list(reversed(slots))
        self._waiting: deque[_Job] = deque()
        self._lock, self._stopped = threading.RLock(), False

    def effective_n_jobs(self, n_jobs: int) -> int:
        """As many as there are workers, but two at the least: a single one joblib would not send anywhere."""
        return max(2, len(self._slots))

    def submit(self, func: Callable[[], Any], callback: Callable[[Future], None]) -> Future:
        """Have a worker call `func` as soon as one is free."""
        job = _Job(func, callback)
        with self._lock:
            self._waiting.append(job)
        self._start()
        return job.outcome

    def _start(self) -> None:
        with self._lock:
            if self._stopped or not (self._idle and self._waiting):
                return
            slot, job = self._idle.pop(), self._waiting.popleft()
        self._try(slot, job)

    def _try(self, slot: Slot, job: _Job) -> None:
        job.tries += 1
        try:
            future = slot.submit(job.function)
        except Exception as error:
            future = Future()
            future.set_exception(error)
        future.add_done_callback(lambda future: self._done(slot, job, future))

    def _done(self, slot: Slot, job: _Job, future: Future) -> None:
        try:
            error = future.exception()
        except CancelledError as cancelled:
            error = cancelled
        if self._stopped:
            return
        lost = isinstance(error, slot.lost)
        try:
            if lost:
                slot.renew()
        except Exception as failed:  # the cluster itself is gone, say
            lost, error = False, failed
        if lost and job.tries < slot.tries:
            return self._try(slot, job)
        with self._lock:
            self._idle.append(slot)
        if lost:
            why = f"its worker process died at every try, last by {type(error).__name__}: was it killed, or out of memory?"
            job.outcome.set_result([(job.number, ChildProcessError(why))])
        elif error is not None:
            raised = getattr(error, "cause", None)  # which Ray wraps
            job.outcome.set_exception(raised if isinstance(raised, Exception) else error)
        else:
            job.outcome.set_result(future.result())
        job.callback(job.outcome)
        self._start()

    def retrieve_result_callback(self, out: Future) -> Any:
        """What the call gave; raises what it raised, or ChildProcessError."""
        return out.result()

    def terminate(self) -> None:
        """All calls are done: let the workers rest."""
        for slot in self._slots if not self._stopped else ():
            slot.rest()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Kill what is running."""
        self._stopped = True
        for slot in self._slots:
            slot.stop()
