import pandas as pd
import pytest
import torch

from yoco import condense, params, prune, runs, zoo

ACCURACIES = pd.DataFrame({"subset": ["start", "start", "condensed", "condensed"], "accuracy": [40.0, 42.0, 50.0, 53.0]})


def test_names_start_with_the_dataset_and_table_has_a_row_for_each():
    assert "cifar10-idc-ipc10" in zoo.names()
    table = zoo.table()
    assert table["name"].tolist() == zoo.names() and table["accuracy"].notna().all()


def test_the_cifar_set_is_real_and_says_how_it_was_made():
    condensed = zoo.load("cifar10-idc-ipc10")
    info = condensed.info
    assert condensed.images.shape == (100, 3, 32, 32) and condensed.factor == 2 and condensed.method == "idc"
    assert info["dataset"] == "folder:cifar10-jpeg" and info["images"] == 50_000
    assert info["preset"] == "laptop" and info["steps"] == len(info["loss"]) and info["seconds"] > 0
    assert info["accuracy"] > info["start_accuracy"] + 5  # clearly ahead of its start


def test_there_is_a_digits_set_of_every_method_and_a_dream_set_of_cifar():
    for method in condense.METHODS:
        condensed = zoo.load(f"digits-{method}-ipc10")
        info = condensed.info
        assert condensed.method == method == info["method"] and condensed.images.shape == (100, 1, 16, 16)
        assert condensed.factor == condense.factor_of(method, 16) and info["finished"] and info["seconds"] > 0
        settings = condense.METHODS[method].settings_for(info["preset"], 16, 10, {})
        assert set(info["settings"]) == set(settings.record()) and info["accuracy"] > 80 and info["trainings"] == 5
    dream = zoo.load("cifar10-dream-ipc10")
    assert dream.method == "dream" and dream.images.shape == (100, 3, 32, 32) and dream.info["dataset"] == "folder:cifar10-jpeg"
    assert dream.info["accuracy"] > dream.info["start_accuracy"] + 5


def test_its_dynamics_serve_every_method():
    condensed, dynamics = zoo.load("cifar10-idc-ipc10"), zoo.load_dynamics("cifar10-idc-ipc10")
    assert dynamics.of(condensed) and dynamics.complete
    for method in prune.METHODS:
        assert len(prune.prune(condensed, dynamics, method, 1).indices) == 40


def test_shipped_dynamics_are_found_though_they_do_not_name_their_augmentation(tmp_path, capsys):
    condensed, asked = zoo.load("digits-idc-ipc10"), params.validated("04_pruning", {}).recording(16)
    assert asked["augmentation"] == "dsa" and "augmentation" not in zoo.load_dynamics("digits-idc-ipc10").info
    runs.get_dynamics(tmp_path, condensed, "digits", 0, **asked)
    assert "from the zoo: dynamics of 20 epochs" in capsys.readouterr().out
    with pytest.raises(ValueError, match="takes images of 3 channels"):  # others are recorded anew
        runs.get_dynamics(tmp_path / "other", condensed, "digits", 0, **{**asked, "augmentation": "imagenet"}, progress=False)


def test_unknown_name():
    with pytest.raises(ValueError, match="name='cifar10-idc' is unknown .did you mean 'cifar10-idc-ipc10'"):
        zoo.load("cifar10-idc")


def test_publish_writes_what_was_measured(toy_set, toy_dynamics, tmp_path, monkeypatch):
    path = zoo.publish("toy-real-ipc5", toy_set, ACCURACIES, "2 networks", [toy_dynamics], tmp_path)
    info = zoo.CondensedSet.load(path).info
    assert (info["accuracy"], info["start_accuracy"], info["trainings"]) == (51.5, 41.0, 2)
    assert torch.allclose(zoo.Dynamics.load(tmp_path / "toy-real-ipc5.dynamics.safetensors").logits, toy_dynamics.logits, atol=0.02)
    monkeypatch.setattr(zoo, "MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="too large to ship"):
        zoo.publish("toy-real-ipc5", toy_set, ACCURACIES, "2 networks", [], tmp_path)
    monkeypatch.undo()
    other = zoo.replace(toy_set, images=1 - toy_set.images)
    with pytest.raises(ValueError, match="of another set"):
        zoo.publish("x", other, ACCURACIES, "", [toy_dynamics], tmp_path)
