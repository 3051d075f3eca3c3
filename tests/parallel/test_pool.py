"""Parallel calls: the same results from processes, threads and any executor.

Also what the death of a process costs.
"""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch

from tests.conftest import until
from tests.parallel import mortal
from yoco import dynamics, evaluate
from yoco.data import pixel_cache
from yoco.experiments import study
from yoco.parallel import pool, worker
from yoco.utils import device
from yoco.workflow import sweep

GRID = {
    "methods": ["random", "yoco"],
    "ipc_to": [1, 2],
    "seeds": [0, 1],
    "epochs": 2,
    "width": 8,
    "precision": "float32",
    "progress": False,
}
POWERS = [(2, n) for n in range(5)]
# prints the numbers of its processes, then waits for ever
HANGS = """
import os, signal, time
from yoco.parallel import pool
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it
def hang(number):
    os.write(1, f"{os.getpid()}\\n".encode())
    time.sleep(1200)
list(pool.run(hang, [(0,), (1,)], 2))
"""


@pytest.fixture(scope="module")
def plain(toy, toy_set, toy_dynamics):
    """The table of a study in two processes."""
    return study.run(toy_set, toy, [toy_dynamics], jobs=2, **GRID)


@pytest.fixture(scope="module")
def two_guests():
    """An executor of the caller's."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


@contextmanager
def processes():
    yield {"jobs": 2}


@contextmanager
def dask_of_two():
    distributed = pytest.importorskip("distributed")
    quiet = {"dashboard_address": ":0", "silence_logs": "CRITICAL"}
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, **quiet) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield {"executor": client.get_executor()}


@pytest.mark.parametrize("workers", [processes, pytest.param(dask_of_two, marks=pytest.mark.slow)])
def test_a_killed_worker_costs_its_own_cell(
    workers, plain, toy, toy_set, toy_dynamics, tmp_path, monkeypatch
):
    monkeypatch.setattr(evaluate, "train_and_test", partial(mortal.accuracies, str(tmp_path)))
    with workers() as where:
        table = study.run(
            toy_set, toy, [toy_dynamics], results=tmp_path / "results.csv", **GRID, **where
        )
    begun, done = mortal.said(tmp_path, "begun"), mortal.said(tmp_path, "done")
    assert (tmp_path / "died").exists() and len(done) == len(set(done)) == len(table) == 8
    assert len(begun) == 9 and set(begun) == set(done), (
        "one training was begun twice, the killed one"
    )
    assert sorted(pd.read_csv(tmp_path / "results.csv").fingerprint) == sorted(table.fingerprint)
    assert table.equals(plain)


def test_executors_give_the_same_bits(plain, two_guests, toy, toy_set, toy_dynamics):
    assert study.run(toy_set, toy, [toy_dynamics], executor=two_guests, **GRID).equals(plain)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        # they share torch's global generator: one trains at a time
        with ThreadPoolExecutor(3) as threads:
            assert study.run(toy_set, toy, [toy_dynamics], executor=threads, **GRID).equals(plain)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


class Heavy:
    """Counts how often it is sent to another process."""

    sent = 0

    def __reduce__(self):
        Heavy.sent += 1
        return Heavy, ()


def number_of(heavy, number):
    assert isinstance(heavy, Heavy)
    return number


def test_what_calls_share_is_sent_once_to_each_process(two_guests, monkeypatch):
    calls = [(number,) for number in range(20)]
    # a guest may take what was meant for another
    for where, most in (({"jobs": 2}, 2), ({"jobs": 1, "executor": two_guests}, 6)):
        monkeypatch.setattr(Heavy, "sent", 0)
        assert sorted(pool.run(number_of, calls, shared=(Heavy(),), **where)) == [
            (n, n) for n in range(20)
        ]
        assert 1 <= Heavy.sent <= most
    with ThreadPoolExecutor(2) as threads:
        assert len(list(pool.run(number_of, calls, 1, shared=(Heavy(),), executor=threads))) == 20
    assert Heavy.sent <= 6 and not worker.held, "a thread takes it as it is, and nothing is kept"


class Fragile:
    """A place in this process that dies during some calls, a few times."""

    def __init__(self, deaths):
        self.deaths, self.tried, self.renewed, self.ended = deaths, [], 0, []

    def submit(self, function, *call):
        future, arguments = Future(), call[-1]
        self.tried.append(arguments)
        self.deaths[arguments] = self.deaths.get(arguments, 0) - 1
        if self.deaths[arguments] >= 0:
            future.set_exception(BrokenExecutor("gone"))
        else:
            threading.Thread(target=lambda: future.set_result(function(*call))).start()
        return future

    def renew(self):
        self.renewed += 1
        return True

    def own(self, argument):
        return argument

    def rest(self):
        self.ended.append("rest")

    def stop(self, future):
        self.ended.append("stop")


@pytest.fixture
def fragile(monkeypatch):
    """Put `Fragile` places with these deaths in place of processes."""

    def put(deaths):
        made = []
        monkeypatch.setattr(
            pool, "_rested", lambda number: made.append(Fragile(deaths)) or made[-1]
        )
        return made

    return put


def test_a_call_whose_process_dies_is_made_again(fragile):
    made = fragile({(2, 3): 2})
    assert sorted(pool.run(pow, POWERS, 2)) == [(n, 2**n) for n in range(5)]
    assert (
        sum((place.tried for place in made), []).count((2, 3)) == 3
        and sum(place.renewed for place in made) == 2
    )
    assert [place.ended for place in made] == [["rest"], ["rest"]]


def test_but_not_for_ever(fragile):
    made = fragile({(2, 3): 99})
    with pytest.raises(
        ChildProcessError,
        match="the fourth: its worker process died at every attempt, last with BrokenExecutor",
    ):
        list(pool.run(pow, POWERS, 2, names=["", "", "", "the fourth", ""]))
    assert sum((place.tried for place in made), []).count((2, 3)) == pool.TRIES
    fragile({(2, 3): 99})
    found = dict(pool.run(pow, POWERS, 2, lost=lambda number, error: f"{number} lost"))
    assert found == {0: 1, 1: 2, 2: 4, 3: "3 lost", 4: 16}


def test_what_a_call_raises_ends_the_work(fragile):
    made = fragile({})
    with pytest.raises(ZeroDivisionError) as raised:
        list(pool.run(divmod, [(1, 1), (1, 0), (1, 2)], 2))
    assert "in call_here" in raised.value.__notes__[0]
    assert sum((place.tried for place in made), []).count((1, 0)) == 1


def test_a_broken_executor_raises_with_the_call_s_name():
    class Closed(ThreadPoolExecutor):
        def submit(self, *call):
            future = Future()
            future.cancel()
            future.set_running_or_notify_cancel()
            return future

    with pytest.raises(
        ChildProcessError, match="the first: its executor gave up on it: CancelledError"
    ):
        list(pool.run(pow, [(2, 3)], 1, executor=Closed(), names=["the first"]))


@pytest.mark.timeout(300)
@pytest.mark.slow  # it waits until a process has ended because it was idle
def test_a_killed_worker_is_noticed_after_an_idle_one_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "IDLE_SECONDS", 0.5)
    monkeypatch.setattr(pool, "_resting", {})
    ((_, first),) = pool.run(os.getpid, [()], 2)
    until(lambda: not psutil.pid_exists(first))
    ((_, last),) = pool.run(mortal.once, [(str(tmp_path),)], 2)
    assert (tmp_path / "died").exists() and last not in (first, os.getpid())


@pytest.mark.parametrize(
    "end", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_processes_end_with_their_parent(end):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    parent = subprocess.Popen(
        [sys.executable, "-c", HANGS], cwd=Path(__file__).parent.parent.parent, **pipes
    )
    hanging = [psutil.Process(int(parent.stdout.readline())) for _ in range(2)]
    parent.send_signal(end)
    until(
        lambda: (
            not any(
                process.is_running() and process.status() != psutil.STATUS_ZOMBIE
                for process in hanging
            )
        )
    )
    _, said = parent.communicate()
    assert parent.returncode == (-signal.SIGKILL if end == signal.SIGKILL else -signal.SIGINT)
    assert said.count("Traceback") == (end == signal.SIGINT), "one of the parent's own"


def test_a_mapped_array_goes_to_another_process_by_its_name(tmp_path):
    np.save(tmp_path / "pixels.npy", np.arange(32, dtype=np.uint8).reshape(4, 8))
    array = pixel_cache.as_array(pixel_cache._mapped(tmp_path / "pixels.npy"))
    sent = pickle.dumps(array)
    assert (
        str(tmp_path).encode() in sent
        and np.array_equal(pickle.loads(sent), array)
        and isinstance(pickle.loads(sent), np.memmap)
    )
    part = pickle.dumps(array[1:])
    assert str(tmp_path).encode() not in part and np.array_equal(pickle.loads(part), array[1:])


def test_processes_share_the_gpus_in_turn(monkeypatch):
    monkeypatch.setattr(device, "count", lambda _: 3)
    gpu, numbered, cpu = torch.device("cuda"), torch.device("cuda", 1), torch.device("cpu")
    assert [pool._Process(number).own(gpu) for number in range(4)] == [
        torch.device("cuda", n) for n in (0, 1, 2, 0)
    ]
    assert (
        pool._Process(2).own(numbered) == numbered
        and pool._Process(2).own(cpu) == cpu
        and pool._Process(2).own("cuda") == "cuda"
    )


def test_executors_of_another_kind_are_refused_before_work(toy, toy_set, toy_dynamics):
    for wrong in ("dask", 3):
        with pytest.raises(
            TypeError,
            match=r"executor must be a concurrent.futures.Executor or None, got "
            r".*client.get_executor\(\)",
        ):
            study.run(toy_set, toy, [toy_dynamics], executor=wrong, **GRID)


def test_the_old_name_says_what_to_pass_now(plain, toy, toy_set, toy_dynamics, tmp_path):
    old = [
        lambda: study.run(toy_set, toy, [toy_dynamics], backend="dask", **GRID),
        lambda: study.train([], toy, backend="ray"),
        lambda: evaluate.evaluate_many({}, toy, epochs=1, seeds=[0], backend="threading"),
        lambda: evaluate.accuracies([], toy, backend="dask"),
        lambda: dynamics.record_many(toy_set, epochs=1, seeds=[0], backend="dask"),
        lambda: sweep.run([], tmp_path, backend="dask"),
    ]
    for call in old:
        with pytest.raises(
            TypeError,
            match=r"no longer takes backend='\w+': pass " r"executor=.*client.get_executor\(\)",
        ):
            call()
    with pytest.warns(DeprecationWarning, match="backend='loky'"):
        assert study.run(toy_set, toy, [toy_dynamics], backend="loky", jobs=2, **GRID).equals(plain)


def test_a_process_whose_memory_grows_is_kept():
    place = pool._Process(0)
    calls = [place.submit(mortal.grown, megabytes).result() for megabytes in (1, 400, 1)]
    assert len({*calls}) == 1, "loky started another process"
    place.pool.shutdown()
