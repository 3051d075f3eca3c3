"""Long work that is killed (SIGKILL) at random moments resumes to a bit-identical result."""

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import HUNG, until
from tests.zygote import WORK
from yoco.utils import locks, owned, tensor_files

KILLS = 3 if os.environ.get("CI") == "true" else 1  # of each kind of work
ROOT = Path(__file__).parent.parent
ALONE = {**os.environ, "YOCO_COMPILE": "0", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def zygote():
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.zygote"],
        cwd=ROOT,
        env=ALONE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.stdin.close()
    process.wait(HUNG)


def run(zygote, kind: str, folder: Path, kill_after: float = 0.0) -> tuple[int, float]:
    """Do work in a folder, killed after that many CPU seconds (0: never).

    Returns its exit status and the time it took.
    """
    print(kind, folder, kill_after, file=zygote.stdin, flush=True)
    status, seconds = zygote.stdout.readline().split()
    return int(status), float(seconds)


def digest(folder: Path) -> str:
    """Return the result of the work in a folder, or how it failed."""
    assert (folder / "digest").exists(), (folder / "log").read_text()
    return (folder / "digest").read_text()


@pytest.mark.parametrize(
    "kind", [k if k == "kip" else pytest.param(k, marks=pytest.mark.slow) for k in WORK]
)
def test_killed_work_ends_as_if_it_was_not(zygote, tmp_path, kind):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir(), broken.mkdir()
    status, seconds = run(zygote, kind, whole)
    expected = digest(whole)
    assert status == 0
    moments, kills, left = random.Random(kind), 0, seconds
    for _ in range(4 * KILLS):
        if kills == KILLS:
            break
        ended, took = run(zygote, kind, broken, kill_after=moments.uniform(0.1, 0.8) * left)
        if ended == signal.SIGKILL:
            kills, left = kills + 1, left * 0.7  # what is done stays done: the rest is shorter
        else:  # it was done before the moment came: all over again
            assert digest(broken) == expected
            shutil.rmtree(broken)
            broken.mkdir()
            # the first may have been slow, on a machine that was busy
            left = seconds = min(seconds, took)
    assert kills == KILLS
    (broken / "digest").unlink(missing_ok=True)
    assert run(zygote, kind, broken)[0] == 0 and digest(broken) == expected
    assert not list(broken.rglob("*.part")), "what a killed process left is swept"


def test_what_was_done_before_the_kill_is_not_done_again(zygote, tmp_path):
    """The checkpoint is used: killed late, it holds most steps."""
    _, seconds = run(zygote, "kip", tmp_path)
    state, _ = tensor_files.load_tensors(tmp_path / "checkpoint.safetensors", "checkpoint")
    assert len(state["loop.losses"]) == 60
    (tmp_path / "checkpoint.safetensors").unlink()
    run(zygote, "kip", tmp_path, kill_after=0.7 * seconds)
    state, _ = tensor_files.load_tensors(tmp_path / "checkpoint.safetensors", "checkpoint")
    assert 5 < len(state["loop.losses"]) <= 60


@pytest.mark.parametrize(
    "moment, round_left", [("writing", 1), ("renaming", 1), ("renamed", 2), ("holder", 1)]
)
def test_a_process_killed_while_writing_leaves_no_damage(zygote, tmp_path, moment, round_left):
    path = tensor_files.save_tensors(
        tmp_path / "x.safetensors", "test", {"x": torch.zeros(1000)}, {"round": 1}
    )
    assert run(zygote, moment, tmp_path)[0] == signal.SIGKILL
    (tmp_path / "log").unlink()
    tensors, info = tensor_files.load_tensors(path, "test")
    assert info == {"round": round_left} and torch.equal(
        tensors["x"], torch.full((1000,), round_left - 1.0)
    )
    with locks.hold(path):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


@pytest.mark.slow
def test_a_notebook_run_that_is_killed_goes_on(tmp_path):
    short = {
        "seeds": 1,
        "compare": "kip",
        "compare_seconds": 0.1,
        "outer_loops": 4,
        "inner_loops": 10,
        "epochs": 1,
        "ipc": 2,
        "run_dir": tmp_path / "run",
        "precision": "float32",
    }
    command = [
        sys.executable,
        "-m",
        "yoco",
        "run",
        "01",
        *(part for name, value in short.items() for part in ("-p", name, str(value))),
    ]
    # while it condenses, and while it evaluates
    for begun in ("checkpoint.safetensors", "condensed.safetensors"):
        running = subprocess.Popen(
            command,
            cwd=ROOT,
            env=ALONE,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(lambda: (tmp_path / "run" / begun).exists() or running.poll() is not None)  # noqa: B023
        assert running.poll() is None, f"it ended before {begun} was seen"
        # the kernel is of another session, and ends with its parent
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    done = subprocess.run(command, cwd=ROOT, env=ALONE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    alike = {name: short[name] for name in ("outer_loops", "inner_loops", "ipc", "precision")} | {
        "run_dir": tmp_path / "other"
    }
    reference = [
        sys.executable,
        "-m",
        "yoco",
        "condense",
        *(part for name, value in alike.items() for part in ("-p", name, str(value))),
    ]
    subprocess.run(reference, cwd=ROOT, env=ALONE, check=True, capture_output=True)
    made = [
        tensor_files.load_tensors(tmp_path / name / "condensed.safetensors", "condensed")[0][
            "images"
        ]
        for name in ("run", "other")
    ]
    assert made[0].equal(made[1]) and (tmp_path / "run/01_condensation.ipynb").exists()
    assert [path.name for path in (tmp_path / "run").rglob(".*")] == [owned.MARKER]
