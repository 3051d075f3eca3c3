"""Independent calls in parallel through `concurrent.futures`.

They run in processes of this machine or in the caller's executor.
"""

from __future__ import annotations

import functools
import itertools
import os
import time
import uuid
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from heapq import heappop, heappush
from typing import Any, NamedTuple, TypeVar

import torch

from yoco.parallel.worker import Call, Lacking, Raised, begin, call_here, held
from yoco.utils import checks
from yoco.utils import device as devices
from yoco.utils.lazy import loky

Result = TypeVar("Result")
TRIES = 3  # attempts at a call whose process dies, before that is an error
IDLE_SECONDS = 60  # time that a process waits for another study before it ends
AHEAD = 256  # calls that the caller's executor holds, at most
ONE_THREAD = {
    name: "1"
    for name in (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
    )
}
# loky would restart a process that has grown by 300 MB, as compiled code and larger sets make it
WORKER = {**ONE_THREAD, "LOKY_MAX_MEMORY_LEAK_SIZE": "4e9"}
INSTEAD = (
    "pass executor=, a concurrent.futures.Executor (for a Dask cluster: client.get_executor()), "
    "or neither for processes of this machine"
)


def default_jobs(device: torch.device, count: int) -> int:
    """Return the number of processes for `count` runs: one per core or GPU, at most `count`.

    Small training runs would leave a second thread on a CPU half idle.
    """
    return max(
        1, min(torch.get_num_threads() if device.type == "cpu" else devices.count(device), count)
    )


def jobs_for(
    jobs: int | None, device: torch.device, count: int, executor: Executor | None = None
) -> int:
    """Return `jobs`, or the `default_jobs` of `count` calls for None.

    Raises:
        TypeError: if `jobs` is not a whole number, or `executor` is not an executor.
        ValueError: if `jobs` is less than 1.
    """
    if not isinstance(executor, Executor | None):
        raise TypeError(
            "executor must be a concurrent.futures.Executor or None, got "
            f"{checks.shown(executor)}; {INSTEAD}"
        )
    return default_jobs(device, count) if jobs is None else checks.whole("jobs", jobs, 1)


def without_backend(function: Callable[..., Result]) -> Callable[..., Result]:
    """Let a function reject the argument `backend` that it had in version 0.1.

    "loky" only warns; any other backend is a TypeError that says what to pass instead.
    """

    @functools.wraps(function)
    def checked(*arguments: Any, backend: str | None = None, **options: Any) -> Result:
        if backend not in (None, "loky"):
            raise TypeError(f"{function.__name__} no longer takes backend={backend!r}: {INSTEAD}")
        if backend is not None:
            warnings.warn(
                "backend='loky' is the default now; leave it out",
                DeprecationWarning,
                stacklevel=2,
            )
        return function(*arguments, **options)

    return checked


def run(
    function: Callable[..., Result],
    calls: Sequence[Call],
    jobs: int,
    *,
    shared: Call = (),
    executor: Executor | None = None,
    names: Sequence[str] | None = None,
    lost: Callable[[int, ChildProcessError], Result] | None = None,
) -> Iterator[tuple[int, Result]]:
    """Yield (number, function(*shared, *call)) for each of `calls` as it finishes, in any order.

    A result does not depend on `jobs` or the executor, with one exception: a single job without an
    executor runs in this process with all of its threads, others with one thread each, and sums
    over threads round differently.

    Args:
        function: what is called; other processes import it by name.
        calls: the arguments of each call. Without an executor, a GPU without an index among them is
            replaced by the process's own.
        jobs: processes of this machine, at least 1.
        shared: first arguments of all calls, possibly large: they are sent to each process once.
        executor: does the calls instead of processes of this machine.
        names: names of the calls, for errors.
        lost: returns the result for a call that is lost, from its number and the error (None: the
            error is raised).

    Raises:
        ChildProcessError: if the process of a call died `TRIES` times, or the executor gave up on a
            call.
        Exception: whatever a call raises, with the traceback there as a note.
    """
    checks.whole("jobs", jobs, 1)
    if jobs == 1 and executor is None:
        yield from ((number, function(*shared, *call)) for number, call in enumerate(calls))
        return
    places = (
        [_rested(number) for number in range(min(jobs, len(calls)))]
        if executor is None
        else [_Guest(executor)] * AHEAD
    )
    with _Work(function, calls, shared, places) as work:
        for number, outcome in work.outcomes():
            if isinstance(outcome, Raised):
                raise outcome.error
            if isinstance(outcome, _Lost):
                if lost is None:
                    raise ChildProcessError(
                        f"{names[number] if names else f'call {number}'}: {outcome.why}"
                    ) from outcome.error
                outcome = lost(number, ChildProcessError(outcome.why))
            yield number, outcome


class _Process:
    """A process of this machine, in a pool of its own.

    In a pool of several, a process that dies would end the others' calls as well.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.renew()

    def submit(self, function: Callable[..., Any], *call: Any) -> Future:
        # a process that loky starts in place of one that idled out could die unnoticed (loky 3.7)
        if time.monotonic() - self.busy > IDLE_SECONDS / 2:
            self.pool.shutdown(wait=False)
            self.renew()
        try:
            future = self.pool.submit(function, *call)
        except BrokenExecutor:  # it died while idle
            self.renew()
            future = self.pool.submit(function, *call)
        future.add_done_callback(self._ended)
        return future

    def _ended(self, _: Future) -> None:
        self.busy = time.monotonic()

    def renew(self) -> bool:
        """Start another process. Returns True: a process of this machine can be replaced."""
        self.pool = loky.ProcessPoolExecutor(
            1, timeout=IDLE_SECONDS, env=WORKER, initializer=begin, initargs=(os.getpid(),)
        )
        self.busy = time.monotonic()
        return True

    def own(self, argument: Any) -> Any:
        """Return a call's argument for this place: any GPU without an index becomes its own."""
        return (
            devices.for_worker(argument, self.number)
            if isinstance(argument, torch.device)
            else argument
        )

    def stop(self, future: Future) -> None:
        """Leave a call unfinished."""
        self.pool.shutdown(wait=False, kill_workers=True)

    def rest(self) -> None:
        _resting[self.number] = self


_resting: dict[int, _Process] = {}  # by number, for the next study


def _rested(number: int) -> _Process:
    """Return a place whose process may have made calls for an earlier study."""
    return _resting.pop(number, None) or _Process(number)


class _Guest:
    """One call at a time in the caller's executor, which manages its own workers."""

    def __init__(self, executor: Executor) -> None:
        self.submit = executor.submit

    def renew(self) -> bool:
        return False

    def own(self, argument: Any) -> Any:
        return argument

    def stop(self, future: Future) -> None:
        future.cancel()

    def rest(self) -> None: ...


class _Lost(NamedTuple):
    error: BaseException
    why: str


class _Running(NamedTuple):
    number: int
    place: _Process | _Guest
    carries: bool  # whether what the calls share is sent along


class _Work:
    """Calls on their way through places that take one at a time.

    If the block is left early, the calls that have begun are stopped.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        calls: Sequence[Call],
        shared: Call,
        places: Sequence[_Process | _Guest],
    ) -> None:
        self.function, self.calls, self.shared, self.key = function, calls, shared, uuid.uuid4().hex
        # a heap: the first in line begins first, even if it comes back
        self.waiting = list(range(len(calls)))
        self.free, self.submissions = deque(places), itertools.count()
        self.running: dict[Future, _Running] = {}
        self.deaths: Counter[int] = Counter()
        self.lacking: set[tuple[str, int]] = set()
        self.held_back: list[_Process | _Guest] = []

    def __enter__(self) -> _Work:
        held[self.key] = self.shared  # for threads of this process
        return self

    def __exit__(self, *_: object) -> None:
        del held[self.key]
        for future, call in self.running.items():
            call.place.stop(future)
        for place in (*self.free, *self.held_back):
            place.rest()

    def outcomes(self) -> Iterator[tuple[int, Any]]:
        """Yield the number and the result of each call, or `Raised` or `_Lost`."""
        while self.waiting or self.running:
            while self.waiting and self.free:
                # a process that lacks what the calls share says so
                self._begin(heappop(self.waiting), self.free.popleft(), carries=not self.shared)
            for future in wait(self.running, return_when=FIRST_COMPLETED).done:
                call = self.running.pop(future)
                outcome = self._outcome(future, call)
                if isinstance(outcome, Lacking):
                    self._send(outcome, call)
                elif outcome is not None:
                    yield call.number, outcome

    def _begin(self, number: int, place: _Process | _Guest, carries: bool) -> None:
        arguments = tuple(map(place.own, self.calls[number]))
        future = place.submit(
            call_here,
            self.function,
            self.key,
            next(self.submissions),
            self.shared if carries else None,
            arguments,
        )
        self.running[future] = _Running(number, place, carries)

    def _outcome(self, future: Future, call: _Running) -> Any:
        """Return the outcome of a call; None if it is to be repeated."""
        try:
            answer = future.result()
        except BrokenExecutor as error:
            answer = self._died(error, call)
        except Exception as error:
            answer = _Lost(error, f"its executor gave up on it: {type(error).__name__}: {error}")
        if not isinstance(answer, Lacking):
            self.free += [call.place, *self.held_back]
            self.held_back.clear()
        return answer

    def _died(self, error: BrokenExecutor, call: _Running) -> _Lost | None:
        self.deaths[call.number] += 1
        if not call.place.renew():
            return _Lost(error, f"its worker process died: {error}")
        if self.deaths[call.number] == TRIES:
            why = (
                f"its worker process died at every attempt, last with {type(error).__name__}: was "
                "it killed, or out of memory?"
            )
            return _Lost(error, why)
        heappush(self.waiting, call.number)
        return None

    def _send(self, lacking: Lacking, call: _Running) -> None:
        """Repeat a call and send along what the calls share.

        If as many such calls are under way as there are processes that lack it, the call waits
        until another one has ended.
        """
        self.lacking.add(lacking.process)
        if sum(other.carries for other in self.running.values()) < len(self.lacking):
            self._begin(call.number, call.place, carries=True)
        else:
            heappush(self.waiting, call.number)
            self.held_back.append(call.place)
