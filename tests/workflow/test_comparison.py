"""What several condensation methods teach: read from the zoo if all sets ship, else trained."""

import pandas as pd
import pytest

from yoco import data, workflow, zoo
from yoco.workflow import comparison, parameters

KNOWN = pd.DataFrame()


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
