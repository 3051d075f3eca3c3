"""Independent trainings side by side: one process a core, with one thread each."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from joblib import Parallel, delayed

from yoco import checks

Result = TypeVar("Result")


def default_jobs(device: torch.device, count: int) -> int:
    """Processes for `count` trainings: as many as there are cores on a CPU, where small trainings leave a second thread
    half idle; one elsewhere."""
    return max(1, min(torch.get_num_threads(), count)) if device.type == "cpu" else 1


def run(function: Callable[..., Result], calls: Sequence[tuple[Any, ...]], jobs: int) -> Iterator[tuple[int, Result]]:
    """Yield (number, function(*call)) for each of `calls` as it finishes, in any order.

    jobs: processes at once, of one thread each; one job runs here, with all threads. A result depends on whether jobs is
    1, by the rounding of sums over threads, and on nothing else of it.
    """
    checks.whole("jobs", jobs, 1)
    if jobs == 1:
        yield from ((number, function(*call)) for number, call in enumerate(calls))
        return
    wanted = (delayed(_in_worker)(function, number, call) for number, call in enumerate(calls))
    yield from Parallel(n_jobs=jobs, return_as="generator_unordered")(wanted)


def _in_worker(function: Callable[..., Result], number: int, call: tuple[Any, ...]) -> tuple[int, Result]:
    torch.set_num_threads(1)
    return number, function(*call)
