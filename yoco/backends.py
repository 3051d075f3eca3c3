"""Where calls go by the name of a joblib backend: processes of this machine, a Dask cluster, a Ray cluster, or as joblib has it."""

import contextlib
import importlib.util
import mmap
import os
import re
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
from joblib.externals.loky.backend import resource_tracker
from joblib.externals.loky.process_executor import BrokenProcessPool, ProcessPoolExecutor, TerminatedWorkerError
from joblib.parallel import BACKENDS, ParallelBackendBase, get_active_backend

from yoco import checks
from yoco.slots import Slots

EXTRAS = {"dask": "distributed", "ray": "ray"}  # backend -> the module that an extra of that name brings
OWN = {"LokyBackend": "loky", "DaskDistributedBackend": "dask", "RayBackend": "ray"}  # joblib's classes, run here as `Slots`
TRIES = 3  # of a call whose worker dies, before that is an error
IDLE_SECONDS = 300  # that a local process waits for another study
SHARED_BYTES = 1_000_000  # from which an array goes to local processes as a file that all of them map
NUMBER = "YOCO_WORKER"  # in a local worker's environment: its number
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")}


def named(backend: str | None) -> tuple[str, ParallelBackendBase | None]:
    """The name of a joblib backend; for None also the object that the caller has set with `joblib.parallel_config`.

    Raises TypeError or ValueError where joblib has none of that name, ModuleNotFoundError where its package is missing.
    """
    if backend is None:
        active, _ = get_active_backend()
        return OWN.get(type(active).__name__, "other"), active
    checks.one_of("backend", backend, dict.fromkeys(["loky", *EXTRAS, *BACKENDS]))
    module = EXTRAS.get(backend)
    if module and importlib.util.find_spec(module) is None:
        raise ModuleNotFoundError(f"backend={backend!r} needs the package {module}: pip install 'yoco[{backend}]'")
    return backend, None


def size(backend: str | None) -> int | None:
    """Workers that the caller has set: of a Dask or Ray cluster that is there, else `joblib.parallel_config`'s n_jobs (None: neither)."""
    name, active = named(backend)
    if name == "dask" and (_dask_client(active) or _dask_address()):
        with _dask_cluster(active, 1) as client:
            return len(client.nthreads()) or None
    if name == "ray" and ("RAY_ADDRESS" in os.environ or "ray" in sys.modules and sys.modules["ray"].is_initialized()):
        with _ray_cluster(1) as ray:
            return max(1, int(ray.available_resources().get("CPU", 1)))
    n_jobs = get_active_backend()[1] if backend is None else None
    if n_jobs is None or n_jobs == 0:
        return None
    return n_jobs if n_jobs > 0 else max(1, (os.cpu_count() or 1) + 1 + n_jobs)


def number() -> int:
    """This worker's number among those of its machine: local processes count from 0, a Dask worker's name ends in it; else 0."""
    if NUMBER in os.environ:
        return int(os.environ[NUMBER])
    with contextlib.suppress(KeyError, ValueError):  # no Dask here, or no worker of it
        name = str(sys.modules["distributed"].get_worker().name)
        if "://" not in name and (digits := re.search(r"\d+$", name)):
            return int(digits[0])
    return 0


@contextlib.contextmanager
def opened(backend: str | None, jobs: int, gpu: bool) -> Iterator[ParallelBackendBase]:
    """The backend for one call of `joblib.Parallel`. A Dask or Ray cluster that the caller has is used; where there is
    none, one of `jobs` local processes is started, and ended afterwards. gpu: whether the calls need one."""
    name, active = named(backend)
    if name == "loky":
        yield Slots([_Process(number) for number in range(jobs)])
    elif name == "dask":
        import dask

        without_a_word = {"distributed.admin.large-graph-warning-threshold": "1TB"}  # the test images go with every training
        with dask.config.set(without_a_word), _dask_cluster(active, jobs) as client:
            yield Slots([_DaskTask(client) for _ in range(jobs)])
    elif name == "ray":
        with _ray_cluster(jobs) as ray:
            cpus, gpus = (ray.available_resources().get(kind, 0) for kind in ("CPU", "GPU"))
            fewer = max(1, min(jobs, int(cpus)))  # an actor that waits for a core keeps its call waiting
            share = min(1.0, gpus / fewer) if gpu else 0
            yield Slots([_Actor(ray, share) for _ in range(fewer)])
    else:
        yield active or BACKENDS[name]()


class _Process:
    """A local process. It is kept for the next study, for some minutes."""

    lost, tries = (TerminatedWorkerError,), TRIES
    resting: dict[int, ProcessPoolExecutor] = {}

    def __init__(self, number: int) -> None:
        self._number = number
        self._executor = self.resting.pop(number, None) or self._new()

    def _new(self) -> ProcessPoolExecutor:
        reducers, env = {np.ndarray: _reduced, np.memmap: _reduced_map}, {**ONE_THREAD, NUMBER: str(self._number)}
        return ProcessPoolExecutor(1, job_reducers=reducers, result_reducers={}, timeout=IDLE_SECONDS, env=env)

    def submit(self, function: Callable[[], Any]) -> Future:
        try:
            return self._executor.submit(function)
        except BrokenProcessPool:  # it died at rest
            self.renew()
            return self._executor.submit(function)

    def renew(self) -> None:
        self._executor = self._new()

    def stop(self) -> None:
        self._executor.shutdown(wait=False, kill_workers=True)

    def rest(self) -> None:
        self.resting[self._number] = self._executor


def _reduced(array: np.ndarray) -> Any:
    """How an array is pickled for a local process: a large one as a file, that is removed with the array."""
    if array.nbytes < SHARED_BYTES or array.dtype.hasobject:
        return array.__reduce__()
    with _files_lock:  # each process has a thread here that pickles for it
        if id(array) not in _files:
            handle, name = tempfile.mkstemp(prefix="yoco-", suffix=".npy")
            resource_tracker.register(name, "file")  # which removes it where this process is killed
            with os.fdopen(handle, "wb") as file:
                np.save(file, array)
            _files[id(array)] = name
            weakref.finalize(array, _forget, id(array))
        return np.load, (_files[id(array)], "r")


def _reduced_map(array: np.memmap) -> Any:
    """The same of an array that is a whole file already: by its name. A part of one goes by its values."""
    if not isinstance(array.base, mmap.mmap) or array.filename is None or not array.flags.c_contiguous:
        return array.__reduce__()
    return np.memmap, (str(array.filename), array.dtype, "r", array.offset, array.shape)


_files: dict[int, str] = {}
_files_lock = threading.RLock()


def _forget(array: int) -> None:
    name = _files.pop(array)
    resource_tracker.unregister(name, "file")
    Path(name).unlink(missing_ok=True)


class _DaskTask:
    """A task on any worker of a Dask cluster. The cluster itself moves the tasks of a worker that died, and counts its deaths."""

    tries = 1

    def __init__(self, client: Any) -> None:
        from distributed.scheduler import KilledWorker

        self.lost, self._executor, self._future = (KilledWorker,), client.get_executor(), None

    def submit(self, function: Callable[[], Any]) -> Future:
        self._future = self._executor.submit(_call, function, pure=False)
        return self._future

    def renew(self) -> None: ...

    def stop(self) -> None:
        if self._future is not None:
            self._future.cancel()

    def rest(self) -> None: ...


def _call(function: Callable[[], Any]) -> Any:
    return function()


def _dask_client(active: Any = None) -> Any:
    """The Client of the backend that the caller has set, else the one that was made last, else None."""
    with contextlib.suppress(KeyError, ValueError):  # Dask was never imported, or has no Client
        return active.client if active is not None else sys.modules["distributed"].default_client()
    return None


def _dask_address() -> str | None:
    """Of the scheduler that Dask's configuration names, DASK_SCHEDULER_ADDRESS say."""
    import dask

    return dask.config.get("scheduler-address", None)


@contextlib.contextmanager
def _dask_cluster(active: Any, jobs: int) -> Iterator[Any]:
    import distributed

    if client := _dask_client(active):
        yield client
    elif address := _dask_address():
        with distributed.Client(address, set_as_default=False) as client:
            yield client
    else:
        quiet = {"dashboard_address": ":0", "silence_logs": "CRITICAL"}
        with (
            distributed.LocalCluster(n_workers=jobs, threads_per_worker=1, processes=True, **quiet) as cluster,
            distributed.Client(cluster, set_as_default=False) as client,
        ):
            yield client


class _Actor:
    """A process of a Ray cluster, with one core of it."""

    tries = TRIES

    def __init__(self, ray: Any, gpus: float) -> None:
        self.lost, self._ray, self._gpus = (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError), ray, gpus
        self.renew()

    def submit(self, function: Callable[[], Any]) -> Future:
        return self._actor.call.remote(function).future()

    def renew(self) -> None:
        self._actor = self._ray.remote(num_cpus=1, num_gpus=self._gpus)(_Caller).remote()

    def stop(self) -> None:
        self._ray.kill(self._actor)

    rest = stop


class _Caller:
    def call(self, function: Callable[[], Any]) -> Any:
        return function()


@contextlib.contextmanager
def ray_started(**options: Any) -> Iterator[Any]:
    """Inside, Ray runs, with these options of `ray.init`. Raises TimeoutError where the machine is too busy for it to start."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    try:
        for attempt in range(TRIES):
            try:
                ray.init(log_to_driver=False, logging_level="ERROR", **options)
                break
            except Exception as error:
                ray.shutdown()
                if "timed out during startup" not in str(error):
                    raise
                if attempt == TRIES - 1:
                    raise TimeoutError(f"Ray did not start within its own limit of 30 seconds, in {TRIES} tries: is this machine busy?") from error
        yield ray
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _ray_cluster(jobs: int) -> Iterator[Any]:
    import ray

    if ray.is_initialized():
        yield ray
        return
    with ray_started(**({} if "RAY_ADDRESS" in os.environ else {"num_cpus": jobs, "include_dashboard": False})):
        yield ray
