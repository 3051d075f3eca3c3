"""Files that cannot be written or are being worked on: what is said, and what is left."""

import os
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from yoco import condense, dynamics, workflow
from yoco.condense import kip, mtt_experts
from yoco.dynamics import recording
from yoco.experiments import study
from yoco.training import resumable
from yoco.utils import locks, tensor_files

KIP = {
    "ipc": 2,
    "preset": "smoke",
    "iterations": 12,
    "kernel": "fc",
    "real_batch": 12,
    "precision": "float32",
    "progress": False,
}


@pytest.fixture
def every_step(monkeypatch):
    """Write a checkpoint after every step."""
    monkeypatch.setattr(resumable, "SAVE_EVERY", 0.0)


def meanwhile(monkeypatch, number, act):
    """Have `act` happen before step `number` of KIP."""
    step = kip.KernelInducingPoints.step
    monkeypatch.setattr(
        kip.KernelInducingPoints,
        "step",
        lambda self, n: (act() if n == number else None, step(self, n))[1],
    )


def steps_in(checkpoint):
    return len(tensor_files.load_tensors(checkpoint, "checkpoint")[0]["loop.losses"])


def test_a_full_disk_is_said_and_the_last_checkpoint_stays(toy, tmp_path, monkeypatch, every_step):
    """For any file above RLIMIT_FSIZE, the error is that of a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    meanwhile(monkeypatch, 5, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1])))
    try:
        with pytest.raises(
            OSError, match="cannot write .*c.safetensors: .*what was there before is untouched"
        ):
            condense.condense(toy, "kip", checkpoint=tmp_path / "c.safetensors", **KIP)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert steps_in(tmp_path / "c.safetensors") == 5 and [p.name for p in tmp_path.iterdir()] == [
        "c.safetensors"
    ]
    monkeypatch.undo()
    assert condense.condense(toy, "kip", checkpoint=tmp_path / "c.safetensors", **KIP).info[
        "finished"
    ]


def test_a_folder_that_becomes_read_only_is_said(toy, monkeypatch, every_step):
    outer = Path(tempfile.mkdtemp())  # pytest's own is closed to other users
    outer.chmod(0o777)
    condense.condense(toy, "kip", **KIP)  # what is imported late is so before the user changes
    meanwhile(monkeypatch, 3, lambda: (outer / "run").chmod(0o555))
    if os.geteuid() == 0:  # root may write anywhere
        os.seteuid(65534)
    try:
        (outer / "run").mkdir()
        with pytest.raises(
            PermissionError, match="cannot write .*c.safetensors: Permission denied"
        ):
            condense.condense(toy, "kip", checkpoint=outer / "run/c.safetensors", **KIP)
        assert steps_in(outer / "run/c.safetensors") == 3
        with (
            pytest.raises(PermissionError, match="cannot write .*d.safetensors"),
            locks.hold(outer / "run/d.safetensors"),
        ):
            pass
    finally:
        os.seteuid(os.getuid())
        (outer / "run").chmod(0o777)
        shutil.rmtree(outer)


def test_a_folder_that_vanishes_is_said(toy, tmp_path, monkeypatch, every_step):
    place = tmp_path / "run"
    meanwhile(monkeypatch, 4, lambda: shutil.rmtree(place))
    with pytest.raises(
        FileNotFoundError, match="cannot write .*run/c.safetensors: No such file or directory"
    ):
        condense.condense(toy, "kip", checkpoint=place / "c.safetensors", **KIP)
    assert not place.exists()


HOLD = """
import contextlib, sys
from yoco.utils import locks
with contextlib.ExitStack() as held:
    for path in sys.argv[1:]:
        held.enter_context(locks.hold(path))
    print('held', flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def held():
    """Return a function that makes another process hold the locks on paths; it returns the pid."""
    started = []

    def hold(*paths):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, *paths],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process.pid

    yield hold
    for process in started:
        process.kill()
        process.wait()


def test_a_second_run_is_refused_naming_the_first(toy, toy_set, toy_dynamics, tmp_path, held):
    paths = {
        name: tmp_path / name
        for name in (
            "c.safetensors",
            "d.safetensors",
            "results.csv",
            "condensed.safetensors",
            "dynamics",
        )
    }
    paths["expert"] = tmp_path / "expert-000.unfinished.safetensors"
    number = held(*paths.values())
    exact = {"precision": "float32", "progress": False}
    calls = {
        "c.safetensors": lambda path: condense.condense(toy, "kip", checkpoint=path, **KIP),
        "d.safetensors": lambda path: dynamics.record(
            toy_set, epochs=2, seed=0, width=4, checkpoint=path, **exact
        ),
        "results.csv": lambda path: study.run(
            toy_set,
            toy,
            [toy_dynamics],
            methods=["yoco"],
            ipc_to=[1],
            epochs=1,
            width=4,
            results=path,
            **exact,
        ),
        "condensed.safetensors": lambda path: workflow.get_condensed(
            tmp_path, "toy", lambda: toy, method="kip", **KIP
        ),
        "dynamics": lambda path: workflow.get_dynamics(
            tmp_path, toy_set, "toy", 0, epochs=2, width=4, **exact
        ),
        "expert": lambda path: mtt_experts.train_experts(
            toy, tmp_path, mtt_experts.ExpertSettings(epochs=2, width=4), count=1, **exact
        ),
    }
    for name, call in calls.items():
        with pytest.raises(
            BlockingIOError,
            match=f"{paths[name].name} is being worked on by process {number} on .* since .*wait "
            "for "
            "it",
        ):
            call(paths[name])


def test_a_lock_is_free_once_its_process_is_killed_or_done(tmp_path, held):
    path = tmp_path / "x"
    pid = held(path)
    with pytest.raises(BlockingIOError), locks.hold(path):
        pass
    os.kill(pid, 9)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    with (
        locks.hold(path),
        pytest.raises(BlockingIOError, match=f"process {os.getpid()} on"),
        locks.hold(path),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_an_exploding_loss_stops_at_the_last_good_state(toy, tmp_path, monkeypatch, every_step):
    real = kip.KernelInducingPoints.step
    for bad, match in (
        (float("nan"), "loss is nan at step 11"),
        (float("inf"), ("loss is inf at step 11")),
        (1e9, ("exploded to 1e\\+09 at step 11")),
    ):
        monkeypatch.setattr(
            kip.KernelInducingPoints,
            "step",
            lambda self, n, bad=bad: bad if n == 11 else real(self, n),
        )
        with pytest.raises(FloatingPointError, match=f"{match}.*settings: .*'method': 'kip'"):
            condense.condense(toy, "kip", checkpoint=tmp_path / "c.safetensors", **KIP)
        assert steps_in(tmp_path / "c.safetensors") == 11
    monkeypatch.setattr(kip.KernelInducingPoints, "step", real)
    assert (
        condense.condense(toy, "kip", checkpoint=tmp_path / "c.safetensors", **KIP).info["steps"]
        == 12
    )


def test_training_that_diverges_says_the_epoch(toy_set, toy, tmp_path):
    from yoco.training.protocol import Optimiser

    options = {
        "epochs": 4,
        "width": 4,
        "optimiser": Optimiser(lr=1e30),
        "precision": "float32",
        "progress": False,
        "seed": 0,
    }
    with pytest.raises(
        FloatingPointError, match="weights are not finite after epoch 2 .seed 0, Protocol"
    ):
        dynamics.record(toy_set, checkpoint=tmp_path / "d.safetensors", **options)


def test_a_checkpoint_of_other_shapes_is_refused(toy, tmp_path):
    path = tmp_path / "c.safetensors"
    condense.condense(toy, "kip", checkpoint=path, time_budget=0.0, **KIP)
    tensors, info = tensor_files.load_tensors(path, "checkpoint")
    tensor_files.save_tensors(
        path, "checkpoint", {**tensors, "generator": torch.zeros(3, dtype=torch.uint8)}, info
    )
    with pytest.raises(
        ValueError, match="c.safetensors is corrupted: its state does not fit these settings"
    ):
        condense.condense(toy, "kip", checkpoint=path, **KIP)


def test_files_have_the_permissions_of_the_user_s_umask(tmp_path):
    mask = os.umask(0o027)
    try:
        assert stat.S_IMODE(tensor_files.write_text(tmp_path / "x", "x").stat().st_mode) == 0o640
    finally:
        os.umask(mask)


def test_a_run_s_recording_that_was_broken_off_goes_on(toy_set, tmp_path, monkeypatch, every_step):
    """Also if None asks for the paper's settings, with another recording in between."""
    arguments = {
        "epochs": 6,
        "width": 4,
        "top_k": None,
        "windows": None,
        "precision": "float32",
        "jobs": 1,
        "progress": False,
    }
    whole = dynamics.record(
        toy_set, seed=0, **{name: value for name, value in arguments.items() if name != "jobs"}
    )
    step, epochs = recording.Recording.step, []
    monkeypatch.setattr(
        recording.Recording,
        "step",
        lambda self, n: pytest.fail("killed") if n == 4 else step(self, n),
    )
    with pytest.raises(pytest.fail.Exception):
        workflow.get_dynamics(tmp_path, toy_set, "toy", 0, **arguments)
    monkeypatch.setattr(
        recording.Recording, "step", lambda self, n: (epochs.append(n), step(self, n))[1]
    )
    workflow.get_dynamics(tmp_path, toy_set, "toy", 0, **{**arguments, "epochs": 2})
    (tmp_path / "dynamics.safetensors").unlink()
    assert epochs == [0, 1]
    rest = workflow.get_dynamics(tmp_path, toy_set, "toy", 0, **arguments)
    assert (
        epochs == [0, 1, 4, 5]
        and torch.equal(rest.logits, whole.logits)
        and torch.equal(rest.features, whole.features)
    )
    assert [path.name for path in tmp_path.iterdir()] == ["dynamics.safetensors"]


def test_a_replaced_file_keeps_permissions_and_links(tmp_path):
    secret = tensor_files.write_text(tmp_path / "secret", "a")
    secret.chmod(0o600)
    tensor_files.write_text(secret, "b")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    (tmp_path / "far").mkdir()
    for name in ("secret", "missing"):
        link = tmp_path / "far" / name
        link.symlink_to(tmp_path / name)
        assert tensor_files.write_text(link, "c") == link
        assert link.is_symlink() and (tmp_path / name).read_text() == "c"
    with locks.hold(tmp_path / "far/secret"), pytest.raises(BlockingIOError), locks.hold(secret):
        pass  # one file, one lock


def test_a_sweep_takes_the_leftovers_of_its_own_file_alone(tmp_path):
    own = [".[a-z]x.abcdef12.part", ".[a-z]x.________.part"]
    others = [".ax.abcdef12.part", ".[a-z]x.csv.abcdef12.part", ".*.abcdef12.part"]
    for name in (*own, *others):
        (tmp_path / name).touch()
    tensor_files.sweep(tmp_path / "[a-z]x")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: None)  # as if it was killed
        with pytest.raises(ZeroDivisionError):
            tensor_files.write_whole(tmp_path / "y", lambda _: 1 / 0)
    assert list(tmp_path.glob(".y.*"))
    tensor_files.sweep(tmp_path / "y")
    assert not list(tmp_path.glob(".y.*"))


def test_a_file_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done, fsync, rename = [], os.fsync, Path.replace
    told = lambda handle: os.path.realpath(f"/proc/self/fd/{handle}")
    monkeypatch.setattr(os, "fsync", lambda handle: done.append(told(handle)) or fsync(handle))
    monkeypatch.setattr(
        Path, "replace", lambda self, to: done.append(f"{self} named") or rename(self, to)
    )
    tensor_files.write_text(tmp_path / "x.txt", "text")
    part, named, folder = done
    assert named == f"{part} named" and folder == str(tmp_path)
