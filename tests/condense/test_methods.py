"""What every condensation method promises, tested for each of them."""

import pytest
import torch

from yoco import condense
from yoco.condense.condense import COMPILE_SECONDS
from yoco.training import resumable
from yoco.utils import device

MATCHING = {"outer_loops": 2, "inner_loops": 3, "width": 4}
TINY = {
    "idc": {**MATCHING, "network_images": 16},
    "dream": {**MATCHING, "network_images": 16, "renew_every": 2},
    "dsa": {**MATCHING, "network_epochs": 1},
    "mtt": {
        "iterations": 6,
        "width": 4,
        "student_steps": 2,
        "experts": 2,
        "buffer_epochs": 3,
        "max_start_epoch": 1,
        "buffer_images": 24,
    },
    "kip": {"iterations": 6, "kernel": "fc", "real_batch": 12},
    "ncfm": {
        "iterations": 6,
        "width": 4,
        "real_batch": 12,
        "frequencies": 16,
        "pool_networks": 2,
        "pool_epochs": 2,
        "pool_images": 24,
    },
}
SHORT = {"preset": "smoke", "precision": "float32", "progress": False}


def made_by(method, toy, **options):
    return condense.condense(toy, method, 1, **{**SHORT, **TINY[method], **options})


def test_all_methods_are_held():
    assert list(TINY) == list(condense.METHODS)


@pytest.mark.parametrize("method", TINY)
def test_the_set_is_whole_and_says_how_it_was_made(method, toy):
    made = made_by(method, toy, seed=4)
    start = condense.start_set(
        toy,
        method,
        1,
        seed=4,
        **{**{k: v for k, v in SHORT.items() if k != "progress"}, **TINY[method]},
    )
    factor = 2 if condense.METHODS[method].multi else 1
    assert (
        made.images.shape == start.images.shape == (3, 3, 16, 16)
        and made.factor == start.factor == factor
        and made.method == method
    )
    assert ((made.images - start.images).abs().amax((1, 2, 3)) > 0).all()
    info = made.info
    assert (
        info["steps"] == info["planned_steps"] == len(info["loss"]) == 6
        and info["finished"]
        and info["seed"] == 4
    )
    assert {name: info["settings"][name] for name in TINY[method]} == TINY[method] and info[
        "precision"
    ] == "float32"


@pytest.mark.parametrize("method", TINY)
def test_same_seed_same_set_and_the_global_generator_stays(method, toy):
    torch.manual_seed(1)
    first = made_by(method, toy, seed=7)
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    again = made_by(method, toy, seed=7)
    assert torch.equal(torch.random.get_rng_state(), before) and torch.equal(
        first.images, again.images
    )
    assert not torch.equal(first.images, made_by(method, toy, seed=8).images)


@pytest.mark.parametrize("stop_after", [1, 4])
@pytest.mark.parametrize("method", TINY)
def test_an_interrupted_run_resumes_to_the_same_set(method, stop_after, toy, tmp_path, monkeypatch):
    whole = made_by(method, toy)
    monkeypatch.setattr(resumable, "SAVE_EVERY", 0.0)
    stepper, path = condense.METHODS[method].stepper, tmp_path / "run/checkpoint.safetensors"
    step = stepper.step

    def killed(self, number):
        if number == stop_after:
            raise KeyboardInterrupt
        return step(self, number)

    monkeypatch.setattr(stepper, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        made_by(method, toy, checkpoint=path)
    monkeypatch.setattr(stepper, "step", step)
    rest = made_by(method, toy, checkpoint=path)
    assert (
        torch.equal(rest.images, whole.images)
        and rest.info["loss"] == whole.info["loss"]
        and rest.info["finished"]
    )
    with pytest.raises(
        ValueError, match="checkpoint .* belongs to another run .*seed: 0 there, 1 here"
    ):
        made_by(method, toy, checkpoint=path, seed=1)


@pytest.mark.parametrize("method", TINY)
def test_time_budget_and_progress(method, toy, capsys):
    made = made_by(method, toy, time_budget=0, progress=True)
    # experts take the time there is
    assert made.info["steps"] == (0 if condense.METHODS[method].experts else 1)
    assert not made.info["finished"] and made.info["planned_steps"] == 6
    assert "condensing" in capsys.readouterr().err


@pytest.mark.parametrize("method", TINY)
@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"preset": "huge"}, "preset='huge' is unknown.*paper, laptop, smoke"),
        ({"image_rl": 0.1}, "setting='image_rl' is unknown"),
        ({"ipc": 0}, "ipc must be at least 1"),
        ({"ipc": 25}, "ipc=25 with factor=[12] needs .* images of every class"),
        ({"factor": 17}, "factor must be between 1 and 16"),
        ({"seed": -1}, "seed must be"),
        ({"precision": "half"}, "precision='half' is unknown"),
        ({"time_budget": -1}, "time_budget must be"),
    ],
)
def test_bad_input_is_refused_before_work(method, toy, arguments, match, monkeypatch):
    monkeypatch.setattr(
        condense.METHODS[method].stepper, "step", lambda *_: pytest.fail("a step was taken")
    )
    with pytest.raises(ValueError, match=match):
        condense.condense(toy, method, **{**SHORT, **TINY[method], "ipc": 1, **arguments})


def test_experts_lie_beside_the_checkpoint_and_are_used_again(toy, tmp_path):
    made_by("mtt", toy, checkpoint=tmp_path / "a/checkpoint.safetensors")
    files = sorted((tmp_path / "a/experts").iterdir())
    assert [file.name for file in files] == ["expert-000.safetensors", "expert-001.safetensors"]
    written = [file.stat().st_mtime_ns for file in files]
    again = made_by("mtt", toy, expert_folder=tmp_path / "a/experts", seed=1)
    assert [file.stat().st_mtime_ns for file in files] == written and again.info["student_lr"] > 0
    with pytest.raises(
        ValueError,
        match="expert_folder='x' is for methods with experts .mtt, ncfm., got method='idc'",
    ):
        made_by("idc", toy, expert_folder="x")


def test_factor_can_be_set_for_every_method(toy):
    for method in TINY:
        assert made_by(method, toy, factor=2).form()[0].shape == (12, 3, 16, 16)
    assert (
        made_by("kip", toy).info["kernel"] == "fc"
        and made_by("kip", toy, learn_labels=True).info["changed_classes"] >= 0
    )


@pytest.mark.parametrize(
    "budget, compiled", [(None, True), (COMPILE_SECONDS, True), (COMPILE_SECONDS - 1, False)]
)
def test_a_short_time_budget_is_not_spent_on_compiling(budget, compiled, toy, monkeypatch):
    stopped = {"steps": 0, "planned_steps": 1, "seconds": 0.0, "loss": [], "loss_every": 1}
    monkeypatch.setattr(resumable, "run", lambda *_, **__: stopped)
    monkeypatch.setattr(device, "worth_compiling", lambda *_: True)
    assert made_by("idc", toy, time_budget=budget).info["compiled"] is compiled
    assert made_by("idc", toy, time_budget=budget, compiled=True).info["compiled"]
