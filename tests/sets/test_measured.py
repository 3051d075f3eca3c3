"""The benchmark that trains on published sets."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from benchmarks import published
from tests.conftest import make_data

README = """
| folder | what is in it | what should happen |
| --- | --- | --- |
| `a-ipc1` | 15 % of the values outside 0..1 | loads; 58 % clamped, 59 % unclamped; trained on |
| `b` | a copy | a clear error |
"""


def test_accuracies_are_taken_from_the_last_column():
    assert published.stated(README) == {"a-ipc1": "58 % clamped, 59 % unclamped", "b": ""}


@pytest.fixture
def wild(toy_set):
    return replace(toy_set, images=toy_set.normalise(toy_set.images), bounded=False)


def test_a_set_is_trained_on_as_it_is_and_clipped(wild, toy, tmp_path, monkeypatch):
    monkeypatch.setattr(published, "EPOCHS", {wild.ipc: 1})
    path = wild.export(tmp_path / "set.pt", "pt")
    rows = pd.DataFrame(published.measure(path, [make_data(channels=1), toy], 1))
    assert rows["values"].tolist() == [*published.VALUES] and set(rows.tested_on) == {"toy"}
    assert rows.accuracy.between(0, 100).all() and set(rows.read_as) == {"an export of yoco"}
    told = published.table(rows.assign(stated="40 %"))
    assert told.splitlines()[-1].startswith("| set.pt | an export of yoco | 1 | ")
    assert told.splitlines()[-1].endswith(" | 40 % |")


def test_what_cannot_be_trained_on_is_one_row(wild, tmp_path):
    torch.save([1, 2], tmp_path / "broken.pt")
    [unread] = published.measure(tmp_path / "broken.pt", [make_data()], 1)
    [lone] = published.measure(wild.export(tmp_path / "set.pt", "pt"), [make_data(channels=1)], 1)
    assert unread["read_as"].startswith("holds no readable set: ") and "accuracy" not in lone
    none = pd.DataFrame([unread]).assign(values=None, epochs=None, accuracy=None, stated=None)
    assert published.table(none).splitlines()[-1].endswith(" | – | – | – | – |")
