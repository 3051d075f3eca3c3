"""Studies through joblib's backends: the same table from each, and a worker that is killed costs its own cell only."""

import importlib.util
import os
import pickle
import shutil
import tempfile
import threading
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from functools import partial

import joblib
import numpy as np
import pandas as pd
import pytest
import torch

from tests import mortal
from yoco import backends, device, dynamics, evaluate, slots, study, workers

GRID = {"methods": ["random", "yoco"], "ipc_to": [1, 2], "seeds": [0, 1], "epochs": 2, "width": 8, "precision": "float32", "progress": False}


@pytest.fixture(scope="module")
def plain(toy, toy_set, toy_dynamics):
    """The table of a study in two local processes."""
    return study.run(toy_set, toy, [toy_dynamics], jobs=2, **GRID)


def killed_midway(toy, toy_set, toy_dynamics, folder, monkeypatch, **how):
    """The table of a study, a worker of which was killed; every training was finished once, the killed one was begun again."""
    monkeypatch.setattr(evaluate, "_accuracy", partial(mortal.accuracy, str(folder)))
    table = study.run(toy_set, toy, [toy_dynamics], results=folder / "results.csv", **GRID, **how)
    begun, done = mortal.said(folder, "begun"), mortal.said(folder, "done")
    assert (folder / "died").exists() and len(done) == len(set(done)) == len(table) == 8
    assert len(begun) == 9 and set(begun) == set(done), "one training was begun twice, the killed one"
    assert sorted(pd.read_csv(folder / "results.csv").fingerprint) == sorted(table.fingerprint)
    return table


@contextmanager
def dask_of_two():
    distributed = pytest.importorskip("distributed")
    quiet = {"dashboard_address": ":0", "silence_logs": "CRITICAL"}
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, **quiet) as cluster, distributed.Client(cluster):
        yield


@contextmanager
def ray_of_two():
    pytest.importorskip("ray")
    place = tempfile.mkdtemp(prefix="ray-")  # short: sockets lie in it
    small = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 80_000_000, "_temp_dir": place}
    try:
        with backends.ray_started(**small):
            yield
    except TimeoutError as error:
        pytest.skip(str(error))
    finally:
        shutil.rmtree(place, ignore_errors=True)


CLUSTERS = [("loky", nullcontext), *(pytest.param(*each, marks=pytest.mark.slow) for each in (("dask", dask_of_two), ("ray", ray_of_two)))]


@pytest.mark.parametrize("backend, cluster", CLUSTERS)
def test_a_worker_killed_midway_costs_its_own_cell_and_every_backend_gives_the_same_bits(
    backend, cluster, plain, toy, toy_set, toy_dynamics, tmp_path, monkeypatch
):
    with cluster():
        if backend == "ray":
            importlib.import_module("ray.util.joblib").register_ray()
        with joblib.parallel_config(backend=backend):  # the caller's own word for it
            assert backends.named(None)[0] == backend and backends.size(None) == (None if backend == "loky" else 2)
        table = killed_midway(toy, toy_set, toy_dynamics, tmp_path, monkeypatch, backend=backend, jobs=2 if backend == "loky" else None)
    assert table.equals(plain)


def test_what_joblib_was_told_is_taken(monkeypatch):
    asked = []
    monkeypatch.setattr(backends, "opened", lambda backend, jobs, gpu: asked.append(jobs) or nullcontext(joblib.parallel.ThreadingBackend()))
    with joblib.parallel_config(backend="threading", n_jobs=3):
        assert workers.jobs_for(None, torch.device("cpu"), 9) == 3 and workers.jobs_for(None, torch.device("cpu"), 2) == 2
        assert workers.jobs_for(5, torch.device("cpu"), 9) == 5
        assert sorted(workers.run(pow, [(2, 3), (2, 4)], 2)) == [(0, 8), (1, 16)] and asked == [2]


@pytest.mark.parametrize("backend", ["threading", "multiprocessing", "sequential"])
def test_other_backends_of_joblib_and_threads_are_as_before(backend):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert sorted(workers.run(pow, [(2, n) for n in range(5)], 2, backend=backend)) == [(n, 2**n) for n in range(5)]
        with joblib.parallel_config(backend=backend):
            assert sorted(workers.run(pow, [(2, n) for n in range(3)], 2)) == [(n, 2**n) for n in range(3)]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_threads_of_a_process_train_one_after_another(toy, toy_set, toy_dynamics, plain):
    """They share torch's global generator."""
    assert study.run(toy_set, toy, [toy_dynamics], jobs=3, backend="threading", **GRID).equals(plain)


class Fragile:
    """A worker in this process, which dies under some calls, or a few times."""

    lost, tries = (ConnectionError,), 3

    def __init__(self, deaths):
        self.deaths, self.tried, self.renewed, self.ended = deaths, [], 0, []

    def submit(self, function):
        future, call = Future(), function.items[0][1][2]
        self.tried.append(call)
        dies = self.deaths.get(call, 0) > 0
        self.deaths[call] = self.deaths.get(call, 0) - 1

        def work():
            try:
                future.set_exception(ConnectionError("gone")) if dies else future.set_result(function())
            except Exception as error:
                future.set_exception(error)

        threading.Thread(target=work).start()
        return future

    def renew(self):
        self.renewed += 1

    def rest(self):
        self.ended.append("rest")

    def stop(self):
        self.ended.append("stop")


def fragile(monkeypatch, deaths):
    made = [Fragile(deaths), Fragile(deaths)]
    monkeypatch.setattr(backends, "opened", lambda *_: nullcontext(slots.Slots(made)))
    return made


def test_a_call_is_made_again_for_a_lost_worker_only_and_not_for_ever(monkeypatch):
    made = fragile(monkeypatch, {(2, 3): 2})
    assert sorted(workers.run(pow, [(2, n) for n in range(5)], 2)) == [(n, 2**n) for n in range(5)]
    assert sum((slot.tried for slot in made), []).count((2, 3)) == 3 and sum(slot.renewed for slot in made) == 2
    assert [slot.ended for slot in made] == [["rest"], ["rest"]]
    made = fragile(monkeypatch, {(2, 3): 99})
    with pytest.raises(ChildProcessError, match="the fourth: its worker process died at every try, last by ConnectionError"):
        list(workers.run(pow, [(2, n) for n in range(5)], 2, names=["", "", "", "the fourth", ""]))
    assert sum((slot.tried for slot in made), []).count((2, 3)) == 3
    fragile(monkeypatch, {(2, 3): 99})
    found = dict(workers.run(pow, [(2, n) for n in range(5)], 2, lost=lambda number, error: f"{number} lost"))
    assert found == {0: 1, 1: 2, 2: 4, 3: "3 lost", 4: 16}
    made = fragile(monkeypatch, {})
    with pytest.raises(ZeroDivisionError):
        list(workers.run(divmod, [(1, 1), (1, 0), (1, 2)], 2))
    assert sum((slot.tried for slot in made), []).count((1, 0)) == 1 and all("stop" in slot.ended for slot in made)


def test_large_arrays_go_to_local_processes_as_one_file_that_goes_with_them():
    array = np.arange(300_000.0)
    load, arguments = backends._reduced(array)
    assert backends._reduced(array) == (load, arguments) and np.array_equal(load(*arguments), array)
    assert os.path.exists(arguments[0])
    del array
    assert not os.path.exists(arguments[0])
    assert backends._reduced(np.arange(3))[0] is not np.load


def test_a_mapped_array_goes_to_local_processes_by_its_name(tmp_path):
    np.arange(40, dtype=np.uint8).tofile(tmp_path / "pixels")
    array = np.memmap(tmp_path / "pixels", np.uint8, "r", offset=8, shape=(4, 8))
    load, arguments = backends._reduced_map(array)
    assert load is np.memmap and np.array_equal(load(*arguments), array) and len(pickle.dumps(arguments)) < 500
    assert np.array_equal(pickle.loads(pickle.dumps(array[1:])), array[1:]) and backends._reduced_map(array[1:])[0] is not np.memmap


def test_workers_share_the_gpus_in_turn():
    gpu, numbered, cpu = torch.device("cuda"), torch.device("cuda", 1), torch.device("cpu")
    assert [device.for_worker(gpu, number, 3) for number in range(4)] == [torch.device("cuda", n) for n in (0, 1, 2, 0)]
    assert device.for_worker(numbered, 2, 3) == numbered and device.for_worker(cpu, 2, 3) == cpu
    assert device.count(cpu) == 1


def test_a_local_process_knows_its_number(monkeypatch):
    assert backends.number() == 0
    monkeypatch.setenv(backends.NUMBER, "3")
    assert backends.number() == 3


def test_a_missing_extra_and_an_unknown_backend_are_said_before_work(toy, toy_set, toy_dynamics, monkeypatch):
    bad = {**GRID, "epochs": 10**6}
    with pytest.raises(ValueError, match="backend='dusk' is unknown .did you mean 'dask'..; allowed: loky, dask, ray"):
        study.run(toy_set, toy, [toy_dynamics], backend="dusk", **bad)
    with pytest.raises(TypeError, match="backend must be a string, got 3"):
        next(dynamics.record_many(toy_set, epochs=10**6, seeds=[0], backend=3))
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("ray", "distributed") else real(name))
    for backend in ("dask", "ray"):
        with pytest.raises(ModuleNotFoundError, match=rf"backend='{backend}' needs the package .*: pip install 'yoco\[{backend}\]'"):
            study.run(toy_set, toy, [toy_dynamics], backend=backend, jobs=2, **bad)
