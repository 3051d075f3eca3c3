"""What several condensation methods teach: read from the zoo if all sets ship, else trained."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from yoco import data, workflow, zoo
from yoco.utils import owned
from yoco.workflow import comparison, condensation, parameters

KNOWN = pd.DataFrame()
ONE = torch.tensor([0])


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def test_accuracies_that_ship_are_read_and_nothing_is_trained(
    digits, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(comparison, "condensations", lambda *_, **__: pytest.fail("trained"))
    chosen = parameters.validated("01_condensation", {"compare": ["dsa", "kip"]})
    table, sets = workflow.get_comparison(tmp_path, chosen, digits, KNOWN)
    assert "accuracies from the zoo: ConvNet-D3 of width 24, 100 epochs" in capsys.readouterr().out
    assert list(sets) == ["dsa", "kip"]
    ships = zoo.table().set_index("name")
    for row in table.itertuples():
        own = ships.loc[f"digits-{row.method}-ipc10"]
        assert row.accuracy == own.accuracy if row.subset == "condensed" else own.start_accuracy
        assert (row.steps, row.factor) == (own.steps, own.factor)
    assert len(table) == 4


@pytest.mark.parametrize("values", [{"epochs": 3}, {"ipc": 2}, {"size": 8}, {"preset": "laptop"}])
def test_other_settings_are_trained(digits, tmp_path, monkeypatch, values):
    asked = {}
    monkeypatch.setattr(comparison, "condensations", lambda *_, **how: asked.update(how))
    chosen = parameters.validated("01_condensation", {"compare": ["dsa", "kip"], **values})
    workflow.get_comparison(tmp_path, chosen, digits, KNOWN)
    assert set(asked["ready"]) == ({"dsa", "kip"} if "epochs" in values else set())
    assert asked["known"] == {chosen.method: KNOWN} and asked["ipc"] == chosen.ipc


@pytest.mark.parametrize("info", [{"steps": 8}, {"factor": 1}, {"settings": {}}, {"seed": 1}])
def test_a_run_s_own_set_is_trained_on(digits, tmp_path, monkeypatch, info):
    asked = {}
    monkeypatch.setattr(comparison, "condensations", lambda *_, **how: asked.update(how))
    chosen = parameters.validated("01_condensation", {"compare": ["idc", "dsa"]})
    shipped = zoo.load("digits-idc-ipc10")
    replace(shipped, info={**shipped.info, **info}).save(tmp_path / "condensed.safetensors")
    workflow.get_comparison(tmp_path, chosen, digits, KNOWN)
    assert set(asked["ready"]) == {"idc", "dsa"}


def test_an_unfinished_set_beside_is_not_the_zoo_s(digits, tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(comparison, "condensations", lambda *_, **how: asked.update(how))
    (owned.claim(tmp_path / "dsa") / "checkpoint.safetensors").touch()
    chosen = parameters.validated("01_condensation", {"compare": ["dsa", "kip"]})
    workflow.get_comparison(tmp_path, chosen, digits, KNOWN)
    assert set(asked["ready"]) == {"kip"}


def _other_images(digits):
    return replace(digits, train_images=digits.train_images.clone().index_fill_(0, ONE, 7))


def _other_labels(digits):
    return replace(digits, train_labels=digits.train_labels.flip(0))


@pytest.mark.parametrize("other", [_other_images, _other_labels])
@pytest.mark.parametrize("name", [name for name in zoo.names() if name.startswith("digits")])
def test_a_shipped_set_is_not_taken_for_other_images(digits, tmp_path, name, other):
    info = zoo.load(name).info
    names = ("method", "ipc", "factor", "preset", "seed", "nested")
    arguments = {**{key: info[key] for key in names if key in info}, **info["settings"]}
    assert condensation.made_by(zoo.load(name), digits, arguments)
    assert not condensation.made_by(zoo.load(name), other(digits), arguments)
    chosen = parameters.validated("04_pruning", {})
    for images, taken in ((other(digits), False), (digits, True)):
        workflow.take_from_zoo(tmp_path, chosen, name.split("-")[1], images)
        assert (tmp_path / "condensed.safetensors").exists() == taken
