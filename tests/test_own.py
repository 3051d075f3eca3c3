"""The user's own network and dataset (tests/own.py), by path or factory.

They go through everything that takes `model=` and `dataset=`.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from tests import own
from yoco import condense, data, dynamics, evaluate, models, prune
from yoco.experiments import study
from yoco.sets.condensed_set import CondensedSet
from yoco.utils import foreign
from yoco.workflow import parameters, recordings

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
PLAIN, TONES = "tests.own:plain", "tests.own:tones"
QUICK = {"precision": "float32", "device": "cpu", "progress": False}
TINY = {
    "idc": {"outer_loops": 1, "inner_loops": 2, "network_images": 4},
    "dream": {"outer_loops": 1, "inner_loops": 2, "network_images": 4},
    "dsa": {"outer_loops": 1, "inner_loops": 2, "network_epochs": 1},
    "mtt": {
        "iterations": 2,
        "student_steps": 2,
        "experts": 1,
        "buffer_epochs": 3,
        "max_start_epoch": 1,
    },
    "ncfm": {
        "iterations": 2,
        "pool_networks": 1,
        "pool_epochs": 1,
        "frequencies": 8,
        "real_batch": 4,
    },
}


@pytest.fixture(scope="module")
def tones() -> data.ImageData:
    return data.load(TONES)


@pytest.fixture(scope="module")
def made(tones) -> dict[str, CondensedSet]:
    common = {"preset": "smoke", "model": PLAIN, **QUICK}
    return {
        method: condense.condense(tones, method, 2, 1, **common, **settings)
        for method, settings in TINY.items()
    }


def anew() -> None:
    """Forget networks, as in a new process."""
    foreign.examined.cache_clear()


def test_a_dataset_is_known_by_its_path(tones):
    assert (
        tones.name == TONES == data.name_of(TONES)
        and tones.classes == ("dark", "middle", "bright")
        and tones.mean == (0.5,)
    )
    small = data.load(TONES, size=8, limit_per_class=5)
    assert small.train_images.shape == (15, 1, 8, 8) and small.test_images.shape == (12, 1, 8, 8)


@pytest.mark.parametrize("method", TINY)
def test_every_method_with_networks_condenses_by_it(made, tones, method):
    start = condense.start_set(
        tones,
        method,
        2,
        1,
        preset="smoke",
        model=own.plain,
        precision="float32",
        device="cpu",
        **TINY[method],
    )
    assert (made[method].images - start.images).abs().max() > 1e-6
    info = made[method].info
    assert info["settings"]["model"] == PLAIN and info["dataset"] == TONES
    assert info["weights"] == models.layout(PLAIN, 1, 3, 16)["weights"] and info["finished"]


@pytest.mark.parametrize("record_on", ["augmented", "clean"])
def test_networks_train_and_are_tested_in_their_modes(made, tones, record_on):
    own.Watched.modes.clear()
    condensed, how = made["idc"], {"model": own.watched, "compiled": False, **QUICK}
    images, labels = condensed.form()
    recorded = dynamics.record(condensed, epochs=3, seed=0, record_on=record_on, **how)
    how.pop("progress")
    last = evaluate.evaluate(images, labels, tones, epochs=3, seed=0, **how)
    checked = evaluate.checked(images, labels, tones, epochs=3, seed=0, every=1, **how)
    assert checked.last == last and set(own.Watched.modes) == {(True, True), (False, False)}
    if record_on == "clean":
        assert torch.allclose(recorded.logits[-1].float(), recorded.final_logits, atol=1e-2)


def test_dynamics_pruning_and_a_study_in_worker_processes(made, tones, tmp_path):
    condensed = made["idc"]
    recorded = dynamics.record(condensed, epochs=3, seed=0, model=PLAIN, **QUICK)
    network = own.plain(1, 3, 16)
    assert (
        recorded.info["model"] == PLAIN
        and recorded.features.shape[1] == network.classifier.in_features
    )
    by_text = dynamics.record(condensed, epochs=3, seed=0, model=own.plain, **QUICK)
    assert torch.equal(recorded.logits, by_text.logits) and by_text.info == recorded.info
    assert len(prune.prune(condensed, recorded, "ssp", 1).indices) == 3
    options = {
        "methods": ["random", "yoco"],
        "ipc_to": [1],
        "epochs": 2,
        "model": PLAIN,
        "results": tmp_path / "results.csv",
        **QUICK,
    }
    table = study.run(condensed, tones, [recorded], jobs=2, **options)
    assert table.model.tolist() == [PLAIN] * 2 and table.accuracy.notna().all()
    assert pd.read_csv(tmp_path / "results.csv").model.tolist() == [PLAIN] * 2


def test_a_factory_that_cannot_be_imported_travels_with_its_text(made, tones):
    width = 4
    lambda_ = lambda channels, classes, size: own.Plain(channels, classes, size, width)
    parts = {"whole": made["idc"].form()}
    told = {"epochs": 2, "seeds": [0, 1], "model": lambda_, **QUICK}
    there, here = (
        evaluate.evaluate_many(parts, tones, jobs=jobs, **told).accuracy.tolist() for jobs in (2, 1)
    )
    assert len(there) == 2 and here == pytest.approx(there, abs=10)
    assert (
        str(models.named(lambda_)).startswith("tests.test_own:test_a_factory")
        and models.named(own.plain) == PLAIN
    )


def test_another_network_of_the_same_name_is_noticed(made, tones, tmp_path, monkeypatch, capsys):
    condensed, run = made["idc"], tmp_path
    asked = {"epochs": 2, "model": PLAIN, "jobs": 1, **QUICK}
    recordings.get_dynamics(run, condensed, TONES, 0, **asked)
    cell = study.grid(condensed, [None], [{"method": "random"}], ipc_to=[1], epochs=2, model=PLAIN)[
        0
    ]
    before, experts = cell.fingerprint, tmp_path / "networks"
    options = {"preset": "smoke", "model": PLAIN, "expert_folder": experts, **QUICK, **TINY["ncfm"]}
    condense.condense(tones, "ncfm", 1, 1, **options)
    recordings.get_dynamics(run, condensed, TONES, 0, **asked)
    assert "found dynamics.safetensors" in capsys.readouterr().out
    monkeypatch.setattr(own, "WIDTH", 8)
    anew()
    assert cell.fingerprint != before
    with pytest.raises(
        ValueError, match=r"belongs to another run \(weights: '\w{16}' there, '\w{16}' " r"here\)"
    ):
        condense.condense(tones, "ncfm", 1, 1, **options)
    recordings.get_dynamics(run, condensed, TONES, 0, **asked)
    assert "recording again" in capsys.readouterr().out
    monkeypatch.undo()
    anew()


def test_names_of_the_package_have_no_digest():
    assert models.layout("convnet", 3, 10, 32) == {} and models.layout(
        "resnet10ap-w32", 3, 10, 32
    ) == {"layout": 2}


def test_a_network_of_torchvision_s_trains(toy, toy_set, made, tones):
    images, labels = toy_set.form()
    torchvision = "torchvision:resnet18"
    assert (
        0
        <= evaluate.evaluate(
            images[:6],
            labels[:6],
            toy,
            epochs=1,
            seed=0,
            model=torchvision,
            precision="float32",
            device="cpu",
        )
        <= 100
    )
    with pytest.raises(
        ValueError,
        match="model='torchvision:resnet18' does not take 1x16x16 images of 3 classes.*channels",
    ):
        evaluate.evaluate(*made["idc"].form(), tones, epochs=1, seed=0, model=torchvision)
    with pytest.raises(ValueError, match="'resnet19' is unknown.*did you mean"):
        models.named("torchvision:resnet19")
    with pytest.raises(
        ValueError,
        match=r"model='torchvision:resnet18' has batch norm \(bn1\), which condensing cannot "
        r"use",
    ):
        condense.condense(toy, "idc", 1, preset="smoke", model=torchvision, progress=False)


@pytest.mark.parametrize("method", TINY)
def test_condensing_refuses_what_it_cannot_take_before_any_work(
    tones, tmp_path, monkeypatch, method
):
    monkeypatch.setattr(condense.base.resumable, "run", lambda *_, **__: pytest.fail("work began"))
    refused = {
        "normed": r"has batch norm \(1\).*use group or instance norm",
        "flat": ("does not take 1x16x16 images of 3 classes: RuntimeError"),
    }
    for name, why in refused.items():
        with pytest.raises(ValueError, match=f"model='tests.own:{name}' {why}"):
            condense.condense(
                tones,
                method,
                1,
                1,
                preset="smoke",
                model=f"tests.own:{name}",
                checkpoint=tmp_path / "c",
                **QUICK,
            )
    assert not list(tmp_path.iterdir())


def test_what_needs_features_says_so_before_any_work(made, tones, monkeypatch):
    name = "tests.own:headless"
    dynamics.record(made["idc"], epochs=3, until=2, seed=0, model=name, **QUICK)
    assert (
        0
        <= evaluate.evaluate(*made["idc"].form(), tones, epochs=1, seed=0, model=name, device="cpu")
        <= 100
    )
    monkeypatch.setattr(
        dynamics.recorder.resumable, "run", lambda *_, **__: pytest.fail("work began")
    )
    with pytest.raises(
        ValueError, match="model='tests.own:headless' must end in a linear layer, whose input"
    ):
        dynamics.record(made["idc"], epochs=3, seed=0, model=name, **QUICK)
    with pytest.raises(ValueError, match="model='tests.own:headless' must end in a linear layer"):
        condense.condense(tones, "ncfm", 1, 1, preset="smoke", model=name, **QUICK)


@pytest.mark.parametrize(
    "model, kind, told",
    [
        (
            "tests.own:plan",
            ValueError,
            ("model='tests.own:plan': module 'tests.own' has no attribute 'plan'"),
        ),
        (
            "nowhere.own:plain",
            ValueError,
            ("model='nowhere.own:plain': nowhere.own cannot be imported"),
        ),
        ("tests.own:WIDTH", TypeError, "model='tests.own:WIDTH' must be a factory"),
        ("__main__:plain", ValueError, "other processes cannot import __main__"),
        ("a b:c", ValueError, "must have the form 'package.module:name'"),
        (nn.Linear(2, 2), TypeError, "model must be a name .*'package.module:factory'.*got Linear"),
        (3, TypeError, "model must be a name .*got 3"),
    ],
)
def test_what_is_no_network_is_refused(made, tones, model, kind, told):
    with pytest.raises(kind, match=told):
        evaluate.evaluate(*made["idc"].form(), tones, epochs=1, seed=0, model=model)
    with pytest.raises(kind, match=told):
        condense.condense(tones, "idc", 1, preset="smoke", model=model, progress=False)


def test_what_gives_no_logits_is_refused(made, tones):
    for model, kind, told in (
        (lambda *_: 3, TypeError, "must return an nn.Module, got 3"),
        (
            lambda channels, classes, size: own.plain(channels, 5, size),
            TypeError,
            (r"must return logits of shape \[N, 3\], got shape \[2, " r"5\]"),
        ),
        (lambda *_: nn.Identity(), ValueError, "has no weights to train"),
    ):
        with pytest.raises(kind, match=told):
            evaluate.evaluate(*made["idc"].form(), tones, epochs=1, seed=0, model=model)


def test_a_dataset_s_function_is_checked():
    for name, kind, told in (
        ("tests.own:nothing", ValueError, "dataset='tests.own:nothing': module 'tests.own' has no"),
        (
            "tests.own:WIDTH",
            TypeError,
            ("dataset='tests.own:WIDTH' must be a function that returns an ImageData, got 6"),
        ),
        ("os:getcwd", TypeError, "dataset='os:getcwd' must return an ImageData .*from_arrays"),
        ("package.module:function", ValueError, "is a placeholder for your own data"),
    ):
        with pytest.raises(kind, match=told):
            data.load(name)
    with pytest.raises(ValueError, match="dataset='nowhere:f': nowhere cannot be imported"):
        parameters.validated("01_condensation", {"dataset": "nowhere:f"})
    assert parameters.validated(
        "05_ablations", {"networks": f"convnet,{PLAIN}", "dataset": TONES}
    ).networks == ["convnet", PLAIN]


@pytest.mark.slow
def test_a_notebook_takes_them_from_the_working_folder(tmp_path):
    shutil.copy(own.__file__, tmp_path / "mine.py")
    given = {
        "dataset": "mine:tones",
        "model": "mine:plain",
        "preset": "smoke",
        "method": "idc",
        "ipc": 2,
        "outer_loops": 1,
        "inner_loops": 1,
        "epochs": 1,
        "dynamics": 1,
        "ipc_to": 1,
        "methods": "random,yoco",
        "also": "",
    }
    options = [text for name, value in given.items() for text in ("-p", name, str(value))]
    # as the script `yoco`: not from here
    command = (
        "import sys; sys.path.remove(''); from yoco import cli; sys.exit(cli.main(sys.argv[1:]))"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parent.parent),
        "YOCO_RUNS": str(tmp_path / "runs"),
    }
    done = subprocess.run(
        [sys.executable, "-c", command, "run", "04", "--folder", str(NOTEBOOKS), *options],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    results = pd.read_csv(tmp_path / "runs/mine-tones/results.csv")
    assert set(results.model) == {"mine:plain"} and len(results) == 2
    assert (
        CondensedSet.load(tmp_path / "runs/mine-tones/condensed.safetensors").info["dataset"]
        == "mine:tones"
    )


class Layers(nn.Module):
    """A linear network with one more layer, which has no weights."""

    def __init__(self, shape, between):
        super().__init__()
        channels, classes, size = shape
        self.between, self.head = between, nn.Linear(channels * size**2, classes)

    def forward(self, images):
        return self.head(self.between(images.flatten(1)))


def test_networks_without_a_path_differ_by_their_layers(toy, toy_set, tmp_path):
    relu = lambda *shape: Layers(shape, nn.ReLU())
    tanh = lambda *shape: Layers(shape, nn.Tanh())
    told = [models.layout(models.named(network), 3, 3, 16) for network in (relu, tanh)]
    assert told[0] != told[1]
    options = {"epochs": 2, "seed": 0, "checkpoint": tmp_path / "c.safetensors", **QUICK}
    options.pop("progress")
    evaluate.evaluate(*toy_set.form(), toy, model=relu, **options)
    with pytest.raises(ValueError, match="belongs to another run .*weights"):
        evaluate.evaluate(*toy_set.form(), toy, model=tanh, **options)
