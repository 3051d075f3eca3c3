"""Pruning a set that somebody else condensed, by the path of its file."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from tests.conftest import make_data
from yoco import cli, data, workflow, zoo
from yoco.sets.condensed_set import CondensedSet
from yoco.workflow import given_set, parameters


@pytest.fixture
def author_s(tmp_path):
    """An unclipped set of digits with soft labels, as MTT's and DATM's authors save them."""
    digits = data.load("digits")
    index = torch.cat([torch.nonzero(digits.train_labels == k).flatten()[:3] for k in range(10)])
    images = (digits.train_images[index].float() / 255 - digits.mean[0]) / digits.std[0] * 1.5
    torch.save(images, tmp_path / "images_best.pt")
    torch.save(torch.eye(10)[digits.train_labels[index]] * 6 - 1, tmp_path / "labels_best.pt")
    return tmp_path / "images_best.pt"


def test_04_prunes_a_published_set_by_its_path(author_s, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("YOCO_RUNS", str(tmp_path / "runs"))
    few = [
        "-p",
        "epochs",
        "2",
        "-p",
        "dynamics",
        "1",
        "-p",
        "ipc_to",
        "1",
        "-p",
        "methods",
        "random,yoco",
    ]
    assert cli.main(["study", "-p", "set_path", str(author_s), *few]) == 0
    run = tmp_path / "runs/digits"
    table, kept = pd.read_csv(run / "table2.csv"), CondensedSet.load(run / "condensed.safetensors")
    assert set(table.method) == {"random", "yoco"} and set(table.condensation) == {"datm"}, (
        "no dream beside it"
    )
    assert (
        kept.soft
        and not kept.bounded
        and kept.classes == data.load("digits").classes
        and kept.info["dataset"] == "digits"
    )
    assert (
        "images_best.pt: images with labels_best.pt beside them, taken for datm's"
        in capsys.readouterr().out
    )
    first = table.accuracy.tolist()
    assert cli.main(["study", "-p", "set_path", str(author_s), *few]) == 0
    assert pd.read_csv(run / "table2.csv").accuracy.tolist() == first
    torch.save(torch.load(author_s, weights_only=True) * 1.1, author_s)
    assert cli.main(["study", "-p", "set_path", str(author_s), *few]) == 2
    assert "holds another set than set_path=" in capsys.readouterr().err


def test_a_set_of_yoco_s_own(toy_set, toy, tmp_path):
    path = toy_set.save(tmp_path / "mine.safetensors")
    assert (
        given_set.take(tmp_path / "run/condensed.safetensors", str(path), toy).fingerprint
        == toy_set.fingerprint
    )
    assert (
        workflow.get_condensed(tmp_path / "run", "toy", lambda: toy, path=str(path), ipc=99).ipc
        == 5
    )


def test_a_set_of_the_zoo(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("YOCO_RUNS", str(tmp_path))
    name, few = "zoo:digits-idc-ipc10", "--epochs 1 --dynamics 1 --ipc-to 1 --methods random"
    assert cli.main(["study", "--set-path", name, *few.split()]) == 0
    kept = CondensedSet.load(tmp_path / "digits/condensed.safetensors")
    assert kept.fingerprint == zoo.load("digits-idc-ipc10").fingerprint
    assert kept.info["source"] == name
    assert cli.main(["study", "--set-path", "zoo:digits-dsa-ipc10", *few.split()]) == 2
    assert "holds another set than set_path='zoo:digits-dsa-ipc10'" in capsys.readouterr().err
    assert cli.main(["study", "--set-path", "zoo:digits-idc-ipc1"]) == 2
    assert "did you mean 'digits-idc-ipc10'?" in capsys.readouterr().err


def test_a_set_that_does_not_fit_the_data_is_not_kept(toy_set, tmp_path):
    path = toy_set.save(tmp_path / "mine.safetensors")
    with pytest.raises(
        ValueError,
        match="set_path=.*mine.safetensors' does not fit toy: it has size 16, not 8",
    ):
        given_set.take(tmp_path / "kept.safetensors", str(path), make_data(size=8))
    assert not (tmp_path / "kept.safetensors").exists()
    with pytest.raises(FileNotFoundError, match="no file at"):
        given_set.take(tmp_path / "kept.safetensors", str(tmp_path / "none.pt"), make_data())


def test_statistics_are_the_authors_or_those_of_the_data(tmp_path):
    real = make_data(channels=3)
    torch.save(
        [real.train_images[:: 24 // 2].float() / 255, real.train_labels[:: 24 // 2]],
        tmp_path / "data.pt",
    )
    assert (
        given_set.take(tmp_path / "run/a.safetensors", str(tmp_path / "data.pt"), real).mean
        == real.mean
    )
    named = replace(real, name="folder:cifar10")
    assert (
        given_set.take(tmp_path / "run/b.safetensors", str(tmp_path / "data.pt"), named).mean
        == data.CIFAR_MEAN
    )


def test_only_the_run_s_own_set_is_read_from_the_path():
    chosen = parameters.validated("04_pruning", {"set_path": "x.pt"})
    assert chosen.condensation()["path"] == "x.pt" and "path" not in chosen.condensation("dream")
    assert "path" not in parameters.validated("04_pruning", {}).condensation()


def test_the_run_s_own_file_stays_as_it_is(toy_set, toy, tmp_path):
    kept = toy_set.save(tmp_path / "condensed.safetensors")
    before = kept.read_bytes()
    found = given_set.take(kept, str(kept), toy)
    assert kept.read_bytes() == before and "source" not in found.info
