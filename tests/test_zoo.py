from dataclasses import replace

import pandas as pd
import pytest
import torch

from benchmarks import zoo as making
from yoco import condense, dynamics, prune, workflow, zoo
from yoco.experiments import study
from yoco.sets import condensed_set
from yoco.workflow import parameters

ACCURACIES = pd.DataFrame(
    {"subset": ["start", "start", "condensed", "condensed"], "accuracy": [40.0, 42.0, 50.0, 53.0]}
)


def test_names_start_with_the_dataset_and_are_in_the_table():
    assert "cifar10-idc-ipc10" in zoo.names()
    table = zoo.table()
    assert table["name"].tolist() == zoo.names() and table["accuracy"].notna().all()


def test_the_cifar_set_is_real_and_says_how_it_was_made():
    condensed = zoo.load("cifar10-idc-ipc10")
    info = condensed.info
    assert (
        condensed.images.shape == (100, 3, 32, 32)
        and condensed.factor == 2
        and condensed.method == "idc"
    )
    assert info["dataset"] == "folder:cifar10-jpeg" and info["images"] == 50_000
    assert info["preset"] == "laptop" and info["steps"] == len(info["loss"]) and info["seconds"] > 0
    assert info["accuracy"] > info["start_accuracy"] + 5  # clearly ahead of its start


def test_zoo_has_digits_of_every_method_and_cifar_of_dream():
    for method in condense.METHODS:
        condensed = zoo.load(f"digits-{method}-ipc10")
        info = condensed.info
        assert condensed.method == method == info["method"] and condensed.images.shape == (
            100,
            1,
            16,
            16,
        )
        assert (
            condensed.factor == condense.factor_of(method, 16)
            and info["finished"]
            and info["seconds"] > 0
        )
        settings = condense.METHODS[method].settings_for(info["preset"], 16, 10, {})
        assert (
            set(info["settings"]) <= set(settings.record())
            and info["accuracy"] > 80
            and info["trainings"] == 5
        )
    dream = zoo.load("cifar10-dream-ipc10")
    assert (
        dream.method == "dream"
        and dream.images.shape == (100, 3, 32, 32)
        and dream.info["dataset"] == "folder:cifar10-jpeg"
    )
    assert dream.info["accuracy"] > dream.info["start_accuracy"] + 5


def test_its_dynamics_serve_every_method():
    condensed, dynamics = zoo.load("cifar10-idc-ipc10"), zoo.load_dynamics("cifar10-idc-ipc10")
    assert dynamics.of(condensed) and dynamics.complete
    for method in prune.METHODS:
        assert len(prune.prune(condensed, dynamics, method, 1).indices) == 40


def test_early_dynamics_of_the_ncfm_set_serve_yoco():
    condensed, dynamics = zoo.load("cifar10-ncfm-ipc10"), zoo.load_dynamics("cifar10-ncfm-ipc10")
    assert dynamics.of(condensed) and dynamics.info["until"] == 100
    for method in ("yoco", "yoco+", "el2n", "ccs"):
        assert len(prune.prune(condensed, dynamics, method, 1).indices) == 40
    with pytest.raises(ValueError, match="method='aum' needs the whole training run"):
        prune.prune(condensed, dynamics, "aum", 1)


def test_shipped_dynamics_without_augmentation_are_found(tmp_path, capsys):
    condensed, asked = (
        zoo.load("digits-dream-ipc10"),
        parameters.validated("04_pruning", {}).recording(16),
    )
    assert (
        asked["augmentation"] == "dsa"
        and "augmentation" not in zoo.load_dynamics("digits-dream-ipc10").info
    )
    workflow.get_dynamics(tmp_path, condensed, "digits", 0, **asked)
    assert "from the zoo: dynamics of 20 epochs" in capsys.readouterr().out
    with pytest.raises(ValueError, match="takes images of 3 channels"):  # others are recorded anew
        workflow.get_dynamics(
            tmp_path / "other",
            condensed,
            "digits",
            0,
            **{**asked, "augmentation": "imagenet"},
            progress=False,
        )


def test_unknown_name():
    with pytest.raises(
        ValueError, match="name='cifar10-idc' is unknown .did you mean 'cifar10-idc-ipc10'"
    ):
        zoo.load("cifar10-idc")


def test_publish_writes_what_was_measured(toy_set, toy_dynamics, tmp_path, monkeypatch):
    path = making.publish(
        "toy-real-ipc5", toy_set, ACCURACIES, "2 networks", [toy_dynamics], tmp_path
    )
    info = condensed_set.CondensedSet.load(path).info
    assert (info["accuracy"], info["start_accuracy"], info["trainings"]) == (51.5, 41.0, 2)
    assert torch.allclose(
        dynamics.Dynamics.load(tmp_path / "toy-real-ipc5.dynamics.safetensors").logits,
        toy_dynamics.logits,
        atol=0.02,
    )
    one = ACCURACIES.drop_duplicates("subset")
    small = making.publish("x", toy_set, one, "1 network", [], tmp_path, torch.uint8)
    info = condensed_set.CondensedSet.load(small).info
    assert info["accuracy"] == 50.0 and "accuracy_std" not in info
    assert small.stat().st_size < path.stat().st_size
    monkeypatch.setattr(making, "MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="too large to ship"):
        making.publish("toy-real-ipc5", toy_set, ACCURACIES, "2 networks", [], tmp_path)
    monkeypatch.undo()
    other = replace(toy_set, images=1 - toy_set.images)
    with pytest.raises(ValueError, match="must be of the set to publish"):
        making.publish("x", other, ACCURACIES, "", [toy_dynamics], tmp_path)


@pytest.fixture
def shipped_small(toy_set, monkeypatch):
    """Dynamics as version 0.1 shipped them: a small last batch, not mentioned in the info."""
    recorded = dynamics.record(
        toy_set,
        epochs=2,
        seed=0,
        width=8,
        batch_size=16,
        precision="float32",
        protocol="paper",
        progress=False,
    )
    told = {
        name: value
        for name, value in recorded.info.items()
        if name not in ("last_batch", "width", "batch_size")
    }
    old = replace(recorded, info=told)
    monkeypatch.setattr(
        zoo, "dynamics_of", lambda condensed, seed: old if seed == 0 and old.of(condensed) else None
    )
    return old


RECORDED = {
    "epochs": 2,
    "model": "convnet",
    "width": 8,
    "batch_size": 16,
    "precision": "float32",
    "progress": False,
}


def test_a_study_records_anew_for_another_last_batch(toy_set, shipped_small, tmp_path, capsys):
    made = workflow.get_all_dynamics(tmp_path, toy_set, "zoo:toy", [0], **RECORDED)
    said = capsys.readouterr().out
    assert (
        "zoo's dynamics of seed 0 were recorded with last_batch='small' instead of 'even': "
        "recording new ones"
    ) in said
    assert study.grid(toy_set, made, [{"method": "yoco"}], ipc_to=[1], seeds=[0], epochs=1), (
        "mixed dynamics are refused here"
    )
    workflow.get_all_dynamics(tmp_path, toy_set, "zoo:toy", [0], **RECORDED)
    assert "found dynamics.safetensors: 2 epochs" in capsys.readouterr().out
    with pytest.raises(ValueError, match="last_batch='small'"):
        study.grid(toy_set, [shipped_small], [{"method": "yoco"}], ipc_to=[1], seeds=[0], epochs=1)


def test_dynamics_of_another_last_batch_are_only_shown(toy_set, shipped_small, tmp_path, capsys):
    assert workflow.get_dynamics(tmp_path, toy_set, "zoo:toy", 0, **RECORDED) is shipped_small
    assert capsys.readouterr().out == (
        "from the zoo: dynamics of 2 epochs, recorded with last_batch='small' instead of 'even'\n"
    )
    assert not list(tmp_path.iterdir()), "a study in this folder would find them"
    assert (
        workflow.get_dynamics(tmp_path, toy_set, "zoo:toy", 0, **RECORDED, protocol="paper")
        is shipped_small
    )
    assert (tmp_path / "dynamics.safetensors").is_file() and capsys.readouterr().out == (
        "from the zoo: dynamics of 2 epochs\n"
    )


def test_shipped_dynamics_of_other_epochs_are_not_taken(toy_set, shipped_small, tmp_path, capsys):
    made = workflow.get_dynamics(tmp_path, toy_set, "zoo:toy", 0, **{**RECORDED, "epochs": 3})
    assert len(made.correct) == 3 and "epochs=2 instead of 3" in capsys.readouterr().out
