"""The command for a GPU, rehearsed on the CPU: stages, interruptions, and what travels."""

import os
import time

import pytest
import torch

from benchmarks import gpu, gpu_stages, mosaic, packed_pool
from benchmarks.gpu_stages import TINY, Job, Plan
from tests.conftest import make_data
from yoco import condense
from yoco.condense.expert_training import PairSettings
from yoco.condense.mtt_experts import train_experts
from yoco.condense.ncfm_settings import NcfmSettings
from yoco.selfcheck import checks, speed

MOST_FILES, MOST_BYTES = 8, 16 * 2**20


@pytest.fixture
def quick(monkeypatch):
    """Do everything in this process, with one self-check and no other process to time."""
    done = []

    def here(work, job, seconds):
        done.append(work)
        return {"result": work(job)}

    monkeypatch.setattr(gpu, "apart", here)
    monkeypatch.setattr(checks, "CHECKS", {"evaluate": checks.CHECKS["evaluate"]})
    monkeypatch.setattr(speed, "WORK", {"nothing": lambda device, compiled: lambda: None})
    row = {"name": "train_40", "precision": "float32", "ours_s": 1.0, "ratio": 2.0}
    monkeypatch.setattr(gpu_stages.bench, "measure", lambda *_, **__: [row])
    return done


def call(tmp_path, seconds=1000.0):
    """Make one call with a fresh scratch folder; return whether all is done, and the report."""
    out, scratch = tmp_path / "out", tmp_path / f"scratch-{time.monotonic_ns()}"
    out.mkdir(exist_ok=True)
    job = Job(out, scratch, "digits", "cpu", TINY, time.monotonic() + seconds)
    return gpu.run(job, gpu_stages.stages(TINY)), gpu.read(out)


@pytest.mark.slow
def test_calls_continue_each_other(tmp_path, quick, monkeypatch):
    done, report = call(tmp_path, seconds=0.0)
    assert not done and not any("result" in entry for entry in report["stages"].values())

    whole = condense.condense

    def cut(*arguments, **options):
        stops = arguments[1] == "ncfm" and "checkpoint" in options
        return whole(*arguments, **options | ({"time_budget": 0.0} if stops else {}))

    with monkeypatch.context() as patch:
        patch.setattr(gpu_stages.condense, "condense", cut)
        done, report = call(tmp_path)
    out = tmp_path / "out"
    found = {name for name, entry in report["stages"].items() if "result" in entry}
    assert not done and found == {"selfcheck", "bench train_40", "short ncfm", "pool"}
    assert {path.name for path in out.iterdir()} == {
        "report.json",
        "pool.safetensors",
        "ncfm.checkpoint.safetensors",
    }

    with monkeypatch.context() as patch:  # the networks come from their packed file
        patch.setattr("yoco.condense.mtt_experts._train", lambda *_: pytest.fail("trained again"))
        done, report = call(tmp_path)
    assert done and report["stages"]["ncfm"]["result"]["steps"] == TINY.ncfm["iterations"]
    assert len(report["stages"]["idc accuracy"]["result"]) == TINY.evaluations
    assert "yoco" in report["stages"]["table 2"]["result"].lower()
    files = list(out.iterdir())
    assert len(files) <= MOST_FILES and max(f.stat().st_size for f in files) < MOST_BYTES
    assert len(report["machines"]) == 1

    quick.clear()
    assert call(tmp_path)[0] and len(quick) == 3  # the machine, and the networks out and in


def test_a_stage_that_fails_is_told_and_those_without_it_go_on(tmp_path, quick, monkeypatch):
    def failing(job):
        raise RuntimeError("an illegal memory access")

    def good(job):
        return 1

    stages = [
        gpu_stages.Stage("bad", failing),
        gpu_stages.Stage("after", good, needs=("bad",)),
        gpu_stages.Stage("other", good),
        gpu_stages.Stage("long", good, least=10_000.0),
    ]
    monkeypatch.undo()  # each in a process
    monkeypatch.setattr(gpu_stages, "unpack_pool", good)
    job = Job(tmp_path, tmp_path / "scratch", "digits", "cpu", TINY, time.monotonic() + 1000)
    assert not gpu.run(job, stages)
    entries = gpu.read(tmp_path)["stages"]
    assert "an illegal memory access" in entries["bad"]["error"]
    assert "result" not in entries["after"] and entries["other"]["result"] == 1
    assert "result" not in entries.get("long", {})


def test_a_stage_is_killed_at_its_end_and_leaves_no_lock(tmp_path):
    def hanging(job):
        (job.out / ".results.csv.lock").touch()
        time.sleep(1000)

    job = Job(tmp_path, tmp_path, "digits", "cpu", TINY, time.monotonic())
    began = time.monotonic()
    assert gpu.apart(hanging, job, 0.5) == {} and time.monotonic() - began < 100
    gpu._sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert "status 3" in gpu.apart(lambda job: os._exit(3), job, 100)["error"]


def test_packed_networks_draw_their_first_weights_again(tmp_path):
    data, settings = make_data(), PairSettings(epochs=1, width=8, batch_size=16)
    train_experts(
        data, tmp_path / "a", settings, count=2, device="cpu", precision="float32", progress=False
    )
    assert packed_pool.pack(tmp_path / "a", tmp_path / "pool.safetensors") == 2
    packed_pool.unpack(tmp_path / "pool.safetensors", tmp_path / "b", data, settings)
    again = train_experts(
        data,
        tmp_path / "b",
        settings,
        count=2,
        device="cpu",
        precision="float32",
        progress=False,
        time_budget=0.0,
    )
    made = train_experts(
        data, tmp_path / "a", settings, count=2, device="cpu", precision="float32", progress=False
    )
    assert len(again) == 2
    for number in range(2):
        (first, last), (same, close) = made.pair(number, 0, 1), again.pair(number, 0, 1)
        assert torch.equal(first, same) and torch.allclose(last, close, atol=1e-3)
    assert 2 * 320_010 * NcfmSettings().pool_networks < MOST_BYTES


def test_the_plan_is_the_paper_s():
    settings = condense.METHODS["ncfm"].settings_for("paper", 32, 10, {})
    assert Plan().ncfm == {"preset": "paper"} and settings.pool_networks == 20
    assert [stage.name for stage in gpu_stages.stages(Plan())][0] == "selfcheck"


def test_images_travel_as_one_picture(tmp_path):
    data = make_data(size=16)
    data.train_images[0] = 77
    mosaic.pack(data, tmp_path, quality=95)
    read = mosaic.load(tmp_path)
    assert read.classes == data.classes and read.name == tmp_path.name
    for split in ("train", "test"):
        assert torch.equal(getattr(read, f"{split}_labels"), getattr(data, f"{split}_labels"))
        there, here = getattr(read, f"{split}_images"), getattr(data, f"{split}_images")
        assert there.shape == here.shape and (there.float() - here.float()).abs().mean() < 10
    assert torch.equal(read.train_images[0], data.train_images[0])
    with pytest.raises(ValueError, match="divides by 8"):
        mosaic.pack(make_data(size=12), tmp_path)
