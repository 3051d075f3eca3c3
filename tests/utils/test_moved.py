"""Import paths of version 0.1: they give the modules that replaced them, with a warning."""

import importlib
import pickle
import subprocess
import sys

import pytest

import yoco
from yoco.utils import moved

WARNS = sorted(set(moved.MODULES) - moved.KEPT)


@pytest.fixture(autouse=True)
def unasked(monkeypatch):
    """Let every test use the old paths for the first time."""
    for old in moved.MODULES:
        monkeypatch.delitem(sys.modules, old, raising=False)
        monkeypatch.delitem(vars(yoco), old.removeprefix("yoco."), raising=False)


@pytest.mark.parametrize("old", WARNS)
def test_import(old):
    with pytest.warns(DeprecationWarning, match=rf"{old} is {moved.MODULES[old]} now") as told:
        module = importlib.import_module(old)
    assert module is importlib.import_module(moved.MODULES[old]) and len(told) == 1


def test_attribute():
    with pytest.warns(
        DeprecationWarning, match="yoco.tables is yoco.experiments.tables now"
    ) as told:
        tables = yoco.tables
    assert tables is importlib.import_module("yoco.experiments.tables")
    assert [warning.filename for warning in told] == [__file__], (
        "the warning names the line that asks"
    )


def test_from_imports():
    with pytest.warns(DeprecationWarning) as told:
        from yoco.tables import pivot
    assert [warning.filename for warning in told] == [__file__]
    with pytest.warns(DeprecationWarning):
        from yoco import published
    assert (
        pivot.__module__ == "yoco.experiments.tables"
        and published.__name__ == "yoco.sets.published"
    )


def test_names_that_went_elsewhere():
    from yoco import plots, prune

    with pytest.warns(DeprecationWarning):
        from yoco import paper
    with pytest.warns(DeprecationWarning):
        from yoco.charts import margins, score_names
    assert score_names is prune.score_names and margins is plots.margins
    assert paper.dataset_of is importlib.import_module("yoco.prune.ccs_cutoffs").dataset_of


def test_pickles():
    from yoco.experiments import tables

    with pytest.warns(DeprecationWarning):
        assert pickle.loads(b"cyoco.tables\npivot\n.") is tables.pivot


def test_study_stays(recwarn):
    import yoco.study

    from yoco import study

    assert yoco.study is study is sys.modules["yoco.experiments.study"] and not recwarn.list


def test_spec_of_the_new_module_stays():
    with pytest.warns(DeprecationWarning):
        tables = importlib.import_module("yoco.tables")
    assert tables.__spec__.name == tables.__name__ == "yoco.experiments.tables"


def test_one_finder():
    moved.install()
    assert sum(isinstance(finder, moved.Finder) for finder in sys.meta_path) == 1


def test_unknown_paths_fail():
    with pytest.raises(ModuleNotFoundError, match="yoco.studies"):
        importlib.import_module("yoco.studies")


def test_warnings_are_seen_in_a_script():
    code = "import yoco\nyoco.tables\n"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "DeprecationWarning: yoco.tables is yoco.experiments.tables now" in run.stderr
