"""Folders that yoco writes into, and the files there that it may replace."""

import json
from dataclasses import replace

import pytest

from yoco.utils import digests, owned, tensor_files


def test_only_a_new_or_empty_folder_is_taken(tmp_path):
    for name in ("new/deep", "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        owned.claim(tmp_path / name)
        owned.claim(tmp_path / name)  # it is ours now
        assert [path.name for path in (tmp_path / name).iterdir()] == [owned.MARKER]
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "table.csv").write_text("mine")
    for call in (owned.claim, owned.check, owned.plan):
        with pytest.raises(FileExistsError, match="theirs holds files .*table.csv.*new or empty"):
            call(theirs)
    with pytest.raises(NotADirectoryError, match="is a file"):
        owned.check(theirs / "table.csv")
    assert [path.name for path in theirs.iterdir()] == ["table.csv"]


def test_files_of_ours_are_replaced_and_the_user_s_are_not(tmp_path):
    run = owned.claim(tmp_path / "run")
    for text in ("first", "second"):
        tensor_files.write_text(run / "table.csv", text)
    assert (run / "table.csv").read_text() == "second"
    (run / "notes.csv").write_text("mine")
    with pytest.raises(FileExistsError, match=r"notes.csv was not written by yoco.*move it away"):
        tensor_files.write_text(run / "notes.csv", "ours")
    assert (run / "notes.csv").read_text() == "mine"
    (tmp_path / "notes.csv").write_text("mine")  # named by the user, in a folder that is not ours
    tensor_files.write_text(tmp_path / "notes.csv", "asked for")


def test_a_planned_folder_is_made_by_its_first_file(tmp_path):
    run = owned.plan(tmp_path / "run")
    assert not run.exists()
    tensor_files.write_text(run / "table.csv", "text")
    assert (run / owned.MARKER).is_file()
    owned.check(run)


def test_work_that_fails_before_it_writes_leaves_no_folder(tmp_path):
    with pytest.raises(OSError, match="no images"), owned.used(tmp_path / "run"):
        raise OSError("no images")
    assert not (tmp_path / "run").exists()
    with pytest.raises(OSError, match="late"), owned.used(tmp_path / "run"):
        tensor_files.write_text(tmp_path / "run/x", "kept")
        raise OSError("late")
    with pytest.raises(OSError, match="again"), owned.used(tmp_path / "run"):
        raise OSError("again")
    assert (tmp_path / "run/x").read_text() == "kept"
    owned.claim(tmp_path / "earlier")
    with pytest.raises(OSError, match="once more"), owned.used(tmp_path / "earlier"):
        raise OSError("once more")
    assert (tmp_path / "earlier" / owned.MARKER).is_file()


def test_a_folder_of_yoco_s_inside_is_none_of_the_user_s(tmp_path):
    owned.claim(tmp_path / "run/dream")
    owned.check(tmp_path / "run")
    (tmp_path / "run/mine").mkdir()
    with pytest.raises(FileExistsError, match="not yoco's .mine."):
        owned.check(tmp_path / "run")


def test_a_previous_version_s_folder_is_taken_with_warning(tmp_path, toy_set):
    old = {name: value for name, value in toy_set.info.items() if name != digests.MADE_FROM}
    replace(toy_set, info=old).save(tmp_path / "condensed.safetensors")
    (tmp_path / "table.csv").write_text("of 0.1")
    owned.check(tmp_path)
    with pytest.warns(UserWarning, match="earlier version of yoco"):
        owned.claim(tmp_path)
    tensor_files.write_text(tmp_path / "table.csv", "new")
    results = tmp_path / "other/results.csv"
    results.parent.mkdir()
    for text, ours in (("condensation,method,keep,balanced\n", True), ("a,b\n", False)):
        results.write_text(text)
        assert owned._of_version_01(results.parent) == ours


def test_only_papermill_s_output_may_lie_there_before(tmp_path):
    executed = {"metadata": {"papermill": {"output_path": "x"}}, "cells": []}
    (tmp_path / "out.ipynb").write_text(json.dumps(executed))
    (tmp_path / ".DS_Store").touch()
    owned.check(tmp_path)
    (tmp_path / "01_condensation.ipynb").write_text(json.dumps({"metadata": {}, "cells": []}))
    with pytest.raises(FileExistsError, match="01_condensation.ipynb"):
        owned.check(tmp_path)


def test_a_folder_of_the_user_s_with_a_saved_set_is_not_yoco_s(tmp_path, toy_set):
    for name in ("mine.safetensors", "condensed.safetensors"):
        toy_set.save(tmp_path / name)
        (tmp_path / "table.csv").write_text("mine")
        with pytest.raises(FileExistsError, match="not yoco's"):
            owned.check(tmp_path)
