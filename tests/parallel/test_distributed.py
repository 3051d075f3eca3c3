"""Condensation over several processes.

It equals that of one process, detects lost ranks, and resumes with another number of ranks.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import HUNG
from tests.parallel import torchrun
from yoco import CondensedSet, cli
from yoco.parallel import distributed
from yoco.utils import device, tensor_files

ROOT = Path(__file__).parent.parent.parent
ENVIRONMENT = {**os.environ, "YOCO_COMPILE": "0", "OMP_NUM_THREADS": "1"}
STEPS = {"outer_loops": 2, "inner_loops": 3, "width": 4, "ipc": 2}
IDC = {"method": "idc", **STEPS, "network_images": 16}
JOBS = {  # the toy data has three classes: two for rank 0, one for rank 1
    "idc": IDC,
    "sampled": {**IDC, "synthetic_batch": 4, "ipc": 3, "drift": True},
    "dream": {
        "method": "dream",
        **STEPS,
        "network_images": 16,
        "renew_every": 2,
        "pool": 20,
        "real_batch": 5,
        "drift": True,
    },
    "dsa": {"method": "dsa", **STEPS, "network_epochs": 1, "drift": True},
    "mtt": {
        "method": "mtt",
        "ipc": 2,
        "iterations": 4,
        "width": 4,
        "student_steps": 3,
        "synthetic_batch": 5,
        "experts": 3,
        "buffer_epochs": 3,
        "max_start_epoch": 1,
        "buffer_images": 24,
    },
    "kip": {
        "method": "kip",
        "ipc": 2,
        "iterations": 6,
        "kernel": "fc",
        "real_batch": 11,
        "learn_labels": True,
    },
    "ncfm": {
        "method": "ncfm",
        "ipc": 2,
        "iterations": 6,
        "width": 4,
        "real_batch": 12,
        "frequencies": 16,
        "pool_networks": 3,
        "pool_epochs": 3,
        "pool_images": 24,
        "nested": [1],
    },
}
REFUSED = {
    "unlike": {**IDC, "of_rank": {"1": {"seed": 3}}},
    "damaged": {**IDC, "checkpoint": "damaged"},
}


def written(folder: Path, jobs: dict) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "jobs.json").write_text(
        json.dumps(
            [{"name": name, **job} if "method" in job else job for name, job in jobs.items()]
        )
    )
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The sets made by one process."""
    folder = tmp_path_factory.mktemp("alone")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield {name: torchrun.do(folder, name, **job) for name, job in JOBS.items()}
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The folder in which two ranks under torchrun have done all jobs."""
    folder = written(
        tmp_path_factory.mktemp("together"),
        {**JOBS, **REFUSED, "mtt": {**JOBS["mtt"], "checkpoint": "mtt"}},
    )
    (folder / "damaged").write_text("no checkpoint")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "tests.parallel.torchrun",
        str(folder),
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=HUNG
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def agent():
    """Starts ranks as torchrun does, without repeating the imports for each."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.parallel.torchrun"], cwd=ROOT, env=ENVIRONMENT, **pipes
    )

    def start(count: int, folder: Path, **jobs: dict) -> tuple[list[int], list[str]]:
        """Run jobs in a folder with this many ranks; return their exit statuses and outputs."""
        print(count, written(folder, jobs), file=process.stdin, flush=True)
        statuses = json.loads(process.stdout.readline())
        return statuses, [(folder / f"said-{number}").read_text() for number in range(count)]

    yield start
    process.stdin.close()
    process.wait(HUNG)


def seen(folder: Path, name: str, count: int = 2) -> list[dict]:
    return [json.loads((folder / f"{name}-{number}.json").read_text()) for number in range(count)]


@pytest.mark.parametrize("name", JOBS)
def test_two_ranks_make_the_set_that_one_process_makes(alone, together, name):
    """Bit-identical if classes are divided, although rank 1's networks drift after each training.

    It takes rank 0's weights.
    """
    made, (first, second) = (
        CondensedSet.load(together / f"{name}.safetensors"),
        seen(together, name),
    )
    exact = JOBS[name]["method"] in ("idc", "dream", "dsa")
    assert (made.images - alone[name].images).abs().max() <= (0 if exact else 5e-5)
    assert made.info["loss"] == (
        alone[name].info["loss"] if exact else pytest.approx(alone[name].info["loss"], rel=1e-3)
    )
    assert made.info["ranks"] == 2 and alone[name].info["ranks"] == 1
    assert first["images"] == second["images"] and first["info"] == second["info"]
    assert first["networks"] == second["networks"] and len(first["networks"]) == (6 if exact else 0)
    assert first["looks"] and not second["looks"]


def test_what_one_rank_refuses_all_refuse(together):
    first, second = (rank["error"] for rank in seen(together, "unlike"))
    assert (
        "all ranks must work on the same run" in first
        and "seed: 0 on rank 0, 3 on rank 1" in second
    )
    first, second = (rank["error"] for rank in seen(together, "damaged"))
    assert "corrupted" in first and first == second


def test_experts_are_divided(together):
    assert sorted(path.name for path in (together / "experts").iterdir()) == [
        f"expert-00{number}.safetensors" for number in range(3)
    ]


@pytest.mark.parametrize(
    "lost, how",
    [
        (0, signal.SIGKILL),
        pytest.param(1, signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param(0, signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_a_lost_rank_ends_the_others_and_leaves_the_checkpoint(agent, broken, lost, how):
    folder, statuses, said = broken(lost, how)
    assert (
        statuses[1 - lost] == 1
        and f"LOST rank {1 - lost} of 2 has lost rank {lost} (" in said[1 - lost]
    )
    if how == signal.SIGTERM:
        assert statuses[lost] == 1 and "LOST rank 0 of 2 received SIGTERM" in said[lost]
    left = {path.name for path in folder.iterdir() if "checkpoint" in path.name}
    # which has no time to remove its lock
    assert left == {"checkpoint"} or (lost, how) == (0, signal.SIGKILL)
    state, _ = tensor_files.load_tensors(folder / "checkpoint", "checkpoint")
    assert len(state["loop.losses"]) == 4


@pytest.fixture
def broken(agent, tmp_path):
    """Two ranks, one of which sends itself a signal at step 4: the folder, statuses and outputs."""

    def run(lost: int, how: signal.Signals) -> tuple[Path, list[int], list[str]]:
        return tmp_path / "run", *agent(
            2,
            tmp_path / "run",
            idc={**IDC, "checkpoint": "checkpoint", "signal": [lost, 4, int(how)]},
        )

    return run


def test_any_number_of_ranks_go_on_from_a_lost_one_s_checkpoint(agent, broken, alone, tmp_path):
    folder, *_ = broken(0, signal.SIGKILL)
    for count in (1, 4):  # more of them than classes
        copy = shutil.copytree(folder, tmp_path / str(count))
        assert agent(count, copy, idc={**IDC, "checkpoint": "checkpoint"}) == (
            [0] * count,
            [""] * count,
        )
        again, steps = (
            CondensedSet.load(copy / "idc.safetensors"),
            len(seen(copy, "idc", count)[0]["networks"]),
        )
        assert (
            torch.equal(again.images, alone["idc"].images)
            and again.info["loss"] == alone["idc"].info["loss"]
            and steps == 2
        )


def test_the_command_line_condenses_once_over_ranks(agent, tmp_path):
    chosen = {"ipc": 1, "outer_loops": 1, "inner_loops": 2, "width": 4, "run_dir": tmp_path / "run"}
    fast = [part for name, value in chosen.items() for part in ("-p", name, str(value))]
    statuses, said = agent(2, tmp_path / "a", run={"cli": ["condense", *fast]})
    assert (
        statuses == [0, 0]
        and "made condensed.safetensors: idc of digits" in said[0]
        and not said[1]
    )
    assert [path.name for path in (tmp_path / "run").glob("[!.]*")] == ["condensed.safetensors"]
    statuses, said = agent(2, tmp_path / "a", run={"cli": ["condense", *fast]})
    assert statuses == [0, 0] and "found condensed.safetensors" in said[0] and not said[1]


@pytest.fixture
def one_of_two(monkeypatch):
    for name, value in {
        "RANK": "0",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)


def test_only_condense_is_for_torchrun(one_of_two, capsys):
    assert cli.main(["study"]) == 2 and "torchrun is for yoco condense" in capsys.readouterr().err


def test_a_lost_rank_is_one_line_and_status_1(monkeypatch, capsys):
    def lost(*_, **__):
        raise distributed.LostRank("rank 0 of 2 has lost rank 1 (connection closed)")

    monkeypatch.setattr("yoco.workflow.get_condensed", lost)
    assert cli.main(["condense"]) == 1
    said = (
        "yoco: rank 0 of 2 has lost rank 1 (connection closed); the same command, on any number "
        "of ranks, resumes from the last checkpoint\n"
    )
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("count, size", [(10, 3), (3, 2), (2, 4), (5, 1)])
def test_every_part_is_taken_once_and_evenly(count, size):
    parts = [distributed.Ranks(rank, size).part(count) for rank in range(size)]
    assert sorted(number for part in parts for number in part) == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert [
        torch.arange(count)[distributed.Ranks(rank, size).rows].tolist() for rank in range(size)
    ] == [list(part) for part in parts]


def test_a_rank_takes_its_share_of_the_threads_unless_told(monkeypatch):
    taken = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 9)
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert device.take_share(1, 4) == "gloo" and taken == []
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert device.take_share(1, 4) == "gloo" and taken == [2]


def test_more_ranks_than_gpus_are_refused(monkeypatch):
    taken = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    assert device.take_share(1, 2) == "cpu:gloo,cuda:nccl" and taken == [1]
    with pytest.raises(
        ValueError, match="--nproc-per-node must be at most 2, the GPUs of this machine, got 3"
    ):
        device.take_share(0, 3)
