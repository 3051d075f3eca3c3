"""What long work announces before it begins, with given speeds."""

from dataclasses import replace

import pytest
import torch

from yoco import condense, dynamics, evaluate, workflow
from yoco.condense import kip
from yoco.experiments import condensations, study
from yoco.training import network as training
from yoco.training import resumable, timing

CPU = torch.device("cpu")
SMALL = timing.Network("convnet", 8, 3, 3, 16, "float32", CPU)
LARGE = replace(SMALL, width=32)
PASSES = 100_000


@pytest.fixture
def asked(monkeypatch):
    """Make every measurement find 1000 small images a second, and remember how it was asked."""
    asked = []

    def per_second(network, threads, patience):
        asked.append((network, threads, patience))
        return 1000 / (network.width / SMALL.width)

    monkeypatch.setattr(timing.Network, "per_second", per_second)
    return asked


def test_passes_become_seconds_over_networks_and_jobs(asked):
    assert timing.seconds({SMALL: PASSES}) == 100
    assert timing.seconds({SMALL: PASSES, LARGE: PASSES}, 2) == (100 + 400) / 2
    assert asked[0] == (SMALL, torch.get_num_threads(), 0.0) and asked[-1] == (
        LARGE,
        1,
        timing.PATIENCE,
    )


def test_short_work_is_not_measured(capsys, asked):
    timing.say({SMALL: timing.LEAST_PIXELS // 16**2})
    assert asked == []
    timing.say({SMALL: 29_000})
    assert [patience for _, _, patience in asked] == [0.0], "a single step tells"
    timing.say({SMALL: PASSES}, budget=29)
    assert len(asked) == 1 and capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "passes, jobs, budget, line",
    [
        (40_000, 1, None, "about 40 s on this machine"),
        (480_000, 2, None, "about 4 min on this machine (2 at a time)"),
        (9_000_000, 1, None, "about 2.5 h on this machine"),
        (9_000_000, 1, 120.0, "about 2.5 h on this machine; this call stops after 2 min"),
        (40_000, 1, 120.0, "about 40 s on this machine"),
    ],
)
def test_long_work_says_how_long(asked, capsys, passes, jobs, budget, line):
    timing.say({SMALL: passes}, jobs, budget)
    assert capsys.readouterr().out == line + "\n"


def test_measuring_changes_no_state_and_is_done_once(monkeypatch):
    timing.Network.per_second.cache_clear()
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    speed = SMALL.per_second(1, 0.05)
    assert 0 < speed < float("inf")
    assert torch.equal(torch.get_rng_state(), before) and torch.get_num_threads() == threads
    monkeypatch.setattr(training, "epoch", lambda *_, **__: pytest.fail("measured again"))
    assert SMALL.per_second(1, 0.05) == speed


@pytest.fixture
def long_work(monkeypatch):
    """Make any work count as long."""
    said = []
    monkeypatch.setattr(
        timing, "say", lambda work, jobs=1, budget=None: said.append((dict(work), jobs, budget))
    )
    return said


def test_trainings_say_their_passes(toy, long_work):
    subset = toy.train_images[:6], toy.train_labels[:6]
    options = {"epochs": 2, "seeds": (0, 1), "width": 8, "precision": "float32", "jobs": 2}
    evaluate.evaluate_many({"one": subset}, toy, **options)
    network = timing.Network("convnet", 8, toy.channels, len(toy.classes), toy.size, "float32", CPU)
    assert long_work == [({network: 2 * (2 * 6 + len(toy.test_labels) // 3)}, 2, None)]
    evaluate.evaluate_many({"one": subset}, toy, progress=False, **options)
    assert len(long_work) == 1, "quiet work says nothing"


def test_condensing_says_its_passes_and_its_budget(toy, tmp_path, long_work):
    short = {
        "method": "idc",
        "ipc": 1,
        "preset": "smoke",
        "outer_loops": 1,
        "inner_loops": 2,
        "width": 8,
        "precision": "float32",
        "device": "cpu",
    }
    checkpoint = tmp_path / "checkpoint.safetensors"
    condense.condense(toy, **short, checkpoint=checkpoint, time_budget=60)
    work = condense.settings_for("smoke", toy.size, 1, {}).work(len(toy.classes), 4)
    network = timing.Network("convnet", 8, toy.channels, len(toy.classes), toy.size, "float32", CPU)
    assert long_work == [({network: 2 * work}, 1, 60)]
    condense.condense(toy, **short, checkpoint=checkpoint)
    assert len(long_work) == 1, "what is resumed says nothing: its bar does"


def test_condensing_counts_what_is_trained_beside_its_steps(toy, tmp_path, long_work):
    count = len(toy.train_images)
    tiny = {
        "ipc": 1,
        "preset": "smoke",
        "width": 8,
        "precision": "float32",
        "device": "cpu",
        "time_budget": 0,
    }
    loops = {"outer_loops": 3, "inner_loops": 2}
    for method, own, images in (
        ("idc", {**loops, "pretrain_epochs": 2}, 3 * 2 * count),
        (
            "dream",
            {**loops, "pretrain_epochs": 1, "renew_every": 2},
            3 * count + 6 // 2 * count // 3,
        ),
        ("dsa", loops, 0),
        ("mtt", {"iterations": 2, "experts": 3, "buffer_images": 10}, 3 * 16 * 10),
        ("ncfm", {"iterations": 2, "pool_networks": 3, "pool_epochs": 2}, 3 * 2 * count),
    ):
        settings = condense.METHODS[method].settings_for("smoke", toy.size, 1, own)
        condense.condense(toy, method, **tiny, **own)
        (work, *_) = long_work.pop()
        steps = settings.steps * settings.work(
            len(toy.classes), condense.factor_of(method, toy.size) ** 2
        )
        assert work == {SMALL: steps + images}, method


def test_experts_that_are_there_are_not_counted(toy, tmp_path, long_work):
    options = {
        "ipc": 1,
        "preset": "smoke",
        "width": 8,
        "precision": "float32",
        "device": "cpu",
        "expert_folder": tmp_path,
    }
    options |= {"iterations": 1, "pool_networks": 2, "pool_epochs": 1}
    for _ in range(2):
        condense.condense(toy, "ncfm", **options)
    first, second = (sum(work.values()) for work, *_ in long_work)
    assert first - second == 2 * len(toy.train_images)


def test_kip_says_its_kernels(toy, long_work):
    for kernel in ("fc", "conv"):
        condense.condense(
            toy,
            "kip",
            ipc=2,
            preset="smoke",
            iterations=3,
            kernel=kernel,
            real_batch=5,
            device="cpu",
            time_budget=0,
        )
        [(unit, pairs)] = long_work.pop()[0].items()
        assert pairs == 3 * 6 * (6 + 5) and unit == kip.Pair(kernel, 3, toy.channels, toy.size, CPU)


@pytest.mark.parametrize("kernel", ["fc", "conv"])
def test_kernels_are_measured_in_ever_larger_runs(monkeypatch, kernel):
    now, asked = [0.0], []

    def slow(x, y, depth):
        asked.append(len(x))
        now[0] += len(x) * len(y) / 1000
        return x.flatten(1) @ y.flatten(1).T

    monkeypatch.setattr(kip.time, "monotonic", lambda: now[0])
    monkeypatch.setitem(kip.KERNELS, kernel, slow)
    unit, before = kip.Pair(kernel, 3, 1, 8, CPU), torch.get_rng_state()
    assert unit.per_second(1, 1.0) == pytest.approx(1000) and asked == [2, 4, 8, 16]
    assert unit.per_second(1, 0.0) == pytest.approx(1000) and asked[4:] == [2], "once"
    assert torch.equal(torch.get_rng_state(), before)


def test_comparing_condensations_says_its_budgets(toy, toy_set, long_work, capsys, monkeypatch):
    monkeypatch.setattr(condensations, "evaluate_many", lambda *_, **__: pytest.fail("not reached"))
    monkeypatch.setattr(
        condense, "condense", lambda *_, **__: (_ for _ in ()).throw(InterruptedError)
    )
    with pytest.raises(InterruptedError):
        study.condensations(toy, ["idc", "dsa", "mtt"], 120.0, ipc=2, ready={"idc": toy_set})
    assert capsys.readouterr().out == "about 4 min on this machine\n"


def test_recordings_say_their_passes(toy_set, tmp_path, long_work):
    options = {"epochs": 3, "model": "convnet", "width": 8, "precision": "float32"}
    workflow.get_all_dynamics(
        tmp_path, toy_set, "toy", [0, 1], until=2, jobs=1, progress=False, **options
    )
    [(work, jobs, _)] = long_work
    assert list(work.values()) == [2 * 2 * len(toy_set.formed_labels)] and jobs == 1
    workflow.get_all_dynamics(
        tmp_path, toy_set, "toy", [0, 1], until=2, jobs=1, progress=False, **options
    )
    assert len(long_work) == 1, "nothing is recorded the second time"


@pytest.mark.parametrize("compiled", [True, False])
def test_work_that_compiles_says_so_once_before_it_begins(
    toy, toy_set, capsys, monkeypatch, compiled
):
    """With a bar; whether compiling pays is decided elsewhere."""
    begun = lambda *_, **__: pytest.fail("work began")
    monkeypatch.setattr(timing, "say", lambda *_, **__: None)
    monkeypatch.setattr("yoco.utils.device.worth_compiling", lambda *_: compiled)
    monkeypatch.setattr("yoco.utils.device.compiled", lambda function: function)
    monkeypatch.setattr(resumable, "run", begun)
    monkeypatch.setattr("yoco.parallel.pool.run", begun)
    part = toy_set.form()
    works = (
        lambda **how: condense.condense(toy, "idc", 1, preset="smoke", **how),
        lambda **how: dynamics.record(toy_set, epochs=2, seed=0, **how),
        lambda **how: list(dynamics.record_many(toy_set, epochs=2, seeds=[0, 1], until=1, **how)),
        lambda **how: evaluate.evaluate_many({"all": part}, toy, epochs=2, seeds=[0], **how),
    )
    for work in works:
        for progress, said in ((False, 0), (True, compiled)):
            timing.say_compiling.cache_clear()
            for _ in range(2):
                with pytest.raises(pytest.fail.Exception):
                    work(progress=progress, device="cpu")
            assert capsys.readouterr().out.count("compiling for this processor first") == said
