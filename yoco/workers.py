"""Independent trainings side by side: one process a core, or a GPU, with one thread each, on this machine or on a cluster."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import torch
from joblib import Parallel, delayed

from yoco import backends, checks
from yoco import device as devices

Result = TypeVar("Result")
CLUSTERS = ("dask", "ray")
_alone = threading.Lock()  # held by the training that is going on: another thread's would draw from the same global generator


def jobs_for(jobs: int | None, device: torch.device, count: int, backend: str | None = None) -> int:
    """Processes for `count` calls: `jobs`, else as many as the caller's cluster or `joblib.parallel_config` has, else `default_jobs`.

    Raises TypeError or ValueError at bad arguments, ModuleNotFoundError where the backend's package is missing.
    """
    backends.named(backend)
    if jobs is not None:
        return checks.whole("jobs", jobs, 1)
    there = backends.size(backend)
    return default_jobs(device, count) if there is None else max(1, min(there, count))


def default_jobs(device: torch.device, count: int) -> int:
    """Processes for `count` trainings: as many as there are cores on a CPU, where small trainings leave a second thread
    half idle; one a GPU elsewhere."""
    return max(1, min(torch.get_num_threads() if device.type == "cpu" else devices.count(device), count))


def run(
    function: Callable[..., Result],
    calls: Sequence[tuple[Any, ...]],
    jobs: int,
    *,
    backend: str | None = None,
    names: Sequence[str] | None = None,
    lost: Callable[[int, ChildProcessError], Result] | None = None,
) -> Iterator[tuple[int, Result]]:
    """Yield (number, function(*call)) for each of `calls` as it finishes, in any order.

    jobs: processes at once, of one thread each; one job runs here, with all threads, but for a cluster's. A result depends
    on which of the two it was, by the rounding of sums over threads, and on nothing else of jobs and backend. A GPU among
    a call's arguments that has no number becomes the worker's own.

    backend: loky (processes of this machine), dask, ray, or another of joblib's; None: what the caller has set with
    `joblib.parallel_config`, else loky. Under the first three a call whose process dies is made again, up to
    `backends.TRIES` times in all; then `lost` gives what is yielded for it, from its number and the error, or the error is
    raised. names: of the calls, for that error. Under others, as joblib has it; where one gives results only all at once,
    they come in waves of `jobs`.

    Raises what a call raises, ChildProcessError, TypeError or ValueError at bad arguments.
    """
    checks.whole("jobs", jobs, 1)
    name, _ = backends.named(backend)
    if jobs == 1 and name not in CLUSTERS:
        yield from ((number, function(*call)) for number, call in enumerate(calls))
        return
    gpu = any(isinstance(part, torch.device) and part.type != "cpu" for call in calls for part in call)
    wanted = (delayed(_in_worker)(function, number, call) for number, call in enumerate(calls))
    with backends.opened(backend, jobs, gpu) as chosen, contextlib.closing(_results(chosen, jobs, wanted)) as results:
        for number, result in results:
            if isinstance(result, ChildProcessError):
                if lost is None:
                    raise ChildProcessError(f"{names[number] if names else f'call {number}'}: {result}")
                result = lost(number, result)
            yield number, result


def _results(chosen: Any, jobs: int, wanted: Iterator[Any]) -> Iterator[Any]:
    """What joblib gives for each of `wanted`, as soon as the backend lets it."""
    if chosen.supports_return_generator:
        yield from Parallel(n_jobs=jobs, backend=chosen, return_as="generator_unordered", pre_dispatch="n_jobs")(wanted)
        return
    with Parallel(n_jobs=jobs, backend=chosen) as pool:
        while wave := list(islice(wanted, jobs)):
            yield from pool(wave)


def _in_worker(function: Callable[..., Result], number: int, call: tuple[Any, ...]) -> tuple[int, Result]:
    with _alone:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return number, function(*(devices.for_worker(part, backends.number()) if isinstance(part, torch.device) else part for part in call))
        finally:
            torch.set_num_threads(threads)
