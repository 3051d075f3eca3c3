"""The command for a GPU, rehearsed on the CPU: stages, interruptions, and what travels."""

import functools
import os
import time

import pytest
import torch

from benchmarks import (
    gpu,
    gpu_job,
    gpu_sets,
    gpu_stages,
    gpu_steps,
    mosaic,
    ncfm_terms,
    packed_folder,
    packed_pool,
)
from benchmarks.gpu_job import Job, Stage
from benchmarks.gpu_plan import PLAN, PLANS, TINY
from tests.conftest import make_data
from yoco import condense, prune, zoo
from yoco.condense.expert_training import PairSettings
from yoco.condense.mtt_experts import train_experts
from yoco.condense.ncfm_settings import NcfmSettings
from yoco.experiments import grid, results_file
from yoco.selfcheck import checks, speed
from yoco.training import stacked

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


def a_job(tmp_path, seconds=1000.0, real=None):
    """Return a call with a fresh scratch folder."""
    out, scratch = tmp_path / "out", tmp_path / f"scratch-{time.monotonic_ns()}"
    out.mkdir(exist_ok=True)
    return Job(out, scratch, real or make_data(), "cpu", TINY, time.monotonic() + seconds)


def call(tmp_path, seconds=1000.0):
    """Make one call; return whether all is done, the report, and the files that travel."""
    real = gpu_job.load("digits", ["zoo:digits-ncfm-ipc10"])
    job = a_job(tmp_path, seconds, real)
    done = gpu.run(job, gpu_stages.stages(TINY))
    packed_folder.unpack(tmp_path / "work", job.out)
    return done, gpu.read(job.out), {path.name for path in (tmp_path / "work").iterdir()}


@pytest.mark.slow
def test_calls_continue_each_other(tmp_path, quick, monkeypatch):
    done, report, _ = call(tmp_path, seconds=0.0)
    assert not done and not any("result" in entry for entry in report["stages"].values())

    whole = condense.condense

    def cut(*arguments, **options):
        return whole(*arguments, **options | ({"time_budget": 0.0} if "nested" in options else {}))

    with monkeypatch.context() as patch:
        patch.setattr(gpu_sets.condense, "condense", cut)
        done, report, files = call(tmp_path)
    names, told = [stage.name for stage in gpu_stages.stages(TINY)], report["stages"]
    lacking = {name for name in names if "result" not in told.get(name, {})}
    assert not done and lacking == {"nested", "nested accuracy", "nested on terms"}
    assert "nested.checkpoint.safetensors" in files and "idc.checkpoint.safetensors" not in files

    with monkeypatch.context() as patch:  # the networks come from their packed file
        patch.setattr("yoco.condense.mtt_experts._train", lambda *_: pytest.fail("trained again"))
        done, report, files = call(tmp_path)
    assert done and report["stages"]["nested"]["result"]["steps"] == 2
    assert "yoco" in report["stages"]["flat block paper"]["result"].lower()
    assert len(report["machines"]) == 1
    travelling = list((tmp_path / "out").iterdir())
    assert len(travelling) <= MOST_FILES
    assert max(path.stat().st_size for path in travelling) < MOST_BYTES
    assert not any("dynamics" in name for name in files)  # every block is done

    work = tmp_path / "work"
    for protocol, last_batch in (("paper", "small"), ("even", "even")):
        for name in (f"flat.{protocol}.csv", f"flat.{protocol}.accuracy.csv"):
            rows = results_file.read_results(work / name).values()
            assert {row["last_batch"] for row in rows} == {last_batch}
    nested = results_file.read_results(work / "nested.even.accuracy.csv").values()
    assert sorted((row["ipc_to"], row["seed"]) for row in nested) == [
        (ipc, seed) for ipc in (1, 10) for seed in TINY.seeds
    ]
    assert len(ncfm_terms.read(work / gpu_sets.TERMS)) == len(ncfm_terms.TITLES)

    quick.clear()
    assert call(tmp_path)[0] and len(quick) == 2  # the machine, and the files that travelled


def test_a_stage_that_fails_is_told_and_those_without_it_go_on(tmp_path):
    def failing(job):
        raise RuntimeError("an illegal memory access")

    def good(job):
        return 1

    stages = [
        Stage("bad", failing),
        Stage("after", good, needs=("bad",)),
        Stage("other", good),
        Stage("long", good, least=10_000.0),
    ]
    job = a_job(tmp_path)
    assert not gpu.run(job, stages)
    entries = gpu.read(job.out)["stages"]
    assert "an illegal memory access" in entries["bad"]["error"]
    assert "result" not in entries["after"] and entries["other"]["result"] == 1
    assert "result" not in entries.get("long", {})


def test_nothing_is_replaced_if_the_files_cannot_be_unpacked(tmp_path):
    job = a_job(tmp_path)
    (job.out / "work.tar.0").write_bytes(b"half an archive")
    before = {path.name: path.read_bytes() for path in job.out.iterdir()}
    assert not gpu.run(job, [Stage("never", lambda job: os._exit(3))])
    report = gpu.read(job.out)
    assert "never" not in report["stages"]
    assert before.items() <= {path.name: path.read_bytes() for path in job.out.iterdir()}.items()


def test_a_stage_whose_files_are_lost_is_not_done(tmp_path, monkeypatch):
    stages, pack = [Stage("set", lambda job: 1)], packed_folder.pack
    with monkeypatch.context() as patch:
        patch.setattr(packed_folder, "pack", lambda *_: (_ for _ in ()).throw(OSError("full")))
        assert not gpu.run(a_job(tmp_path), stages)
    assert "could not be packed" in gpu.read(tmp_path / "out")["stages"]["set"]["error"]
    assert gpu.run(a_job(tmp_path), stages) and pack is packed_folder.pack


def test_a_stage_is_killed_at_its_end_and_leaves_no_lock(tmp_path):
    def hanging(job):
        (job.out / ".results.csv.lock").touch()
        time.sleep(1000)

    job = Job(tmp_path, tmp_path, make_data(), "cpu", TINY, time.monotonic())
    began = time.monotonic()
    assert gpu.apart(hanging, job, 0.5) == {} and time.monotonic() - began < 100
    gpu._sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert "status 3" in gpu.apart(lambda job: os._exit(3), job, 100)["error"]


def test_steps_are_timed_with_and_without_kernels(monkeypatch):
    small = functools.partial(gpu_steps.epochs, networks=2, images=40)
    monkeypatch.setattr(gpu_steps, "WORK", {"small": (small, 1)})
    monkeypatch.setattr(gpu_steps, "REPEATS", 1)
    monkeypatch.setenv("YOCO_FUSED", "1")
    plain, kernels = gpu_steps.measure(torch.device("cpu"))
    assert (plain["layers"], kernels["layers"]) == ("PyTorch's layers", "kernels")
    assert plain["ms"] > 0 and kernels["ms"] > 0


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


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_every_set_of_a_plan_can_be_made(plan):
    before = []
    for name, recipe in plan.recipes.items():
        assert recipe.start in (None, *before)
        before.append(name)
        if recipe.given:
            given = zoo.load(recipe.given.removeprefix(zoo.PREFIX))
            assert (given.method, given.ipc) == (recipe.method, recipe.ipc)
            continue
        own = {key: value for key, value in recipe.settings.items() if key != "nested"}
        settings_for = condense.METHODS[recipe.method].settings_for
        assert settings_for(own.pop("preset"), 32, recipe.ipc, own).steps > 0
    names = [stage.name for stage in gpu_stages.stages(plan)]
    assert names[0] == "selfcheck" and len({*names}) == len(names)


def test_sets_for_one_budget_take_as_many_steps_as_the_nested():
    nested = PLAN.sets["nested"]
    before = zoo.load(PLAN.sets[nested.start].given.removeprefix(zoo.PREFIX)).info["steps"]
    assert PLAN.sets["alone-1"].settings["iterations"] == before + nested.settings["iterations"]


def test_the_process_that_forks_asks_nothing_of_cuda(monkeypatch):
    for name in ("is_available", "device_count", "current_device"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: pytest.fail("a child could not use it"))
    real = gpu_job.load("digits", ["zoo:digits-ncfm-ipc10"])
    assert real.mean == zoo.load("digits-ncfm-ipc10").mean


def test_results_of_lost_dynamics_are_not_kept(tmp_path, monkeypatch):
    class Fake:
        def save(self, path, dtype):
            path.touch()

    monkeypatch.setattr(
        gpu_sets.dynamics,
        "record_many",
        lambda *_, seeds, **options: [(seed, Fake()) for seed in seeds],
    )
    job = a_job(tmp_path)
    job.work.mkdir(parents=True)
    results = job.work / "flat.even.csv"
    for kept in (False, True):  # the second time, the dynamics are there
        results.touch()
        recorded = gpu_sets._recorded(job, "flat", "even", results)
        assert len(recorded) == len(TINY.seeds) and results.exists() is kept


def test_the_cells_of_one_budget_train_at_once_on_a_card():
    made, recorded = zoo.load("digits-ncfm-ipc10"), zoo.load_dynamics("digits-ncfm-ipc10")
    variants = [{"method": method} for method in prune.compared(made)]
    cells = grid.grid(made, [recorded], variants, **recorded.training)
    kinds = [training.kind for training in grid.trainings(cells)]
    groups = stacked.grouped(kinds, torch.device("cuda"))
    assert [len(group) for group in groups] == [len(variants)] * len(PLAN.budgets)


def test_a_folder_travels_in_pieces(tmp_path):
    folder, out = tmp_path / "work", tmp_path / "out"
    folder.mkdir(), out.mkdir()
    (folder / "a").write_bytes(os.urandom(30_000))
    (folder / ".a.lock").touch()
    assert packed_folder.pack(folder, out, size=4_000) > 10
    assert max(path.stat().st_size for path in out.iterdir()) == 4_000
    packed_folder.unpack(tmp_path / "b" / "work", out)
    found = list((tmp_path / "b" / "work").iterdir())
    assert [path.name for path in found] == ["a"]
    assert found[0].read_bytes() == (folder / "a").read_bytes()
    assert packed_folder.pack(folder, out, size=100_000) == len(list(out.iterdir())) == 1


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
    assert torch.equal(read.test_images, data.test_images)
    assert torch.equal(read.train_images[0], data.train_images[0])
    with pytest.raises(ValueError, match="that divides by 8"):
        mosaic.pack(make_data(size=12), tmp_path)
