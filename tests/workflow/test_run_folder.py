"""Where a run keeps its files: never among images, never over the user's files."""

import json
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from yoco import cli, workflow, zoo
from yoco.data import pixel_cache
from yoco.utils import owned
from yoco.workflow import execution

ZOO = "zoo:digits-idc-ipc10"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("YOCO_RUNS", raising=False)


def images(folder, classes=("cat", "dog")):
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(folder / name / "0.png")


@pytest.mark.parametrize(
    "run_dir, dataset, expected",
    [
        (None, "digits", "runs/digits"),
        (None, "folder:pictures/flowers/", "runs/flowers"),
        (None, "folder:pictures/flowers/../birds", "runs/birds"),
        (None, "folder:~/flowers", "runs/flowers"),
        (None, "hf:someone/flowers", "runs/hf-flowers"),
        (None, "mine.data:flowers", "runs/mine.data-flowers"),
        ("~/x", "digits", "home/x"),
        ("a{b}[c]", "digits", "a{b}[c]"),
    ],
)
def test_the_folder_is_named_after_what_the_dataset_is(
    run_dir, dataset, expected, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert workflow.folder(run_dir, dataset) == tmp_path / expected
    assert not (tmp_path / expected).exists(), "what is only asked for is not made"


def test_the_working_folder_and_the_one_above_have_names(tmp_path, monkeypatch):
    inside = tmp_path / "data/flowers/train"
    inside.mkdir(parents=True)
    monkeypatch.setenv("YOCO_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(inside)
    assert workflow.folder(None, "folder:.") == tmp_path / "runs/train"
    assert workflow.folder(None, "folder:..") == tmp_path / "runs/flowers"


def test_a_run_among_the_images_is_refused(tmp_path, monkeypatch):
    images(tmp_path / "flowers/train")
    images(tmp_path / "plain")
    monkeypatch.chdir(tmp_path / "flowers/train")
    with pytest.raises(ValueError, match="flowers/train/runs/flowers lies among the images"):
        workflow.folder(None, "folder:..")
    monkeypatch.chdir(tmp_path / "plain")
    for run_dir in (None, ".", "new"):
        with pytest.raises(ValueError, match="lies among the images.*another run_dir"):
            workflow.folder(run_dir, "folder:.")
    monkeypatch.chdir(tmp_path / "flowers")  # beside train/ it is no class
    assert workflow.folder(None, "folder:.") == tmp_path / "flowers/runs/flowers"


@pytest.mark.parametrize("given, expected", [("", "runs"), ("~/y", "home/y"), ("z", "z")])
def test_yoco_runs_may_be_empty_of_the_home_or_relative(given, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("YOCO_RUNS", given)
    assert workflow.folder(None, "digits") == tmp_path / expected / "digits"


def test_a_home_that_is_not_known_is_said(monkeypatch, capsys):
    with pytest.raises(ValueError, match="dataset='~nobody-here/x' starts in an unknown home"):
        workflow.folder(None, "folder:~nobody-here/x")
    assert cli.main(["sweep", "04", "--out", "~nobody-here/x"]) == 2
    assert "--out='~nobody-here/x' starts in an unknown home" in capsys.readouterr().err
    for name, call in (
        ("YOCO_RUNS", lambda: workflow.folder(None, "digits")),
        ("YOCO_CACHE", pixel_cache.default_folder),
    ):
        monkeypatch.setenv(name, "~nobody-here/x")
        with pytest.raises(ValueError, match=f"{name}='~nobody-here/x' starts in an unknown home"):
            call()


@pytest.mark.parametrize(
    "run_dir, said", [("", "must be a path, got ''"), ("a\0b", "null"), ("~nobody-here", "home")]
)
def test_a_run_dir_that_is_none_is_refused(run_dir, said):
    with pytest.raises(ValueError, match=f"run_dir.*{said}"):
        workflow.folder(run_dir, "digits")


def test_commands_and_notebooks_refuse_the_user_s_folder(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/table.csv").write_text("mine")
    for command in ("condense", "study"):
        assert cli.main([command, "-p", "run_dir", "mine"]) == 2
        assert "mine holds files that are not yoco's (table.csv)" in capsys.readouterr().err
    with pytest.raises(FileExistsError, match="not yoco's"):
        workflow.folder("mine", "digits")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["table.csv"]


def test_images_that_cannot_be_loaded_leave_no_folder(tmp_path, capsys):
    assert cli.main(["condense", "--dataset", "folder:nowhere"]) == 2
    assert "no folder at" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_zoo_set_takes_nothing_from_a_run_that_is_unfinished(tmp_path):
    (tmp_path / "checkpoint.safetensors").write_bytes(b"of another run")
    with pytest.raises(ValueError, match="unfinished condensation of another.*--run-dir"):
        workflow.get_condensed(tmp_path, ZOO)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]
    other = tmp_path / "other"
    assert workflow.get_condensed(other, ZOO).method == "idc"
    (other / "checkpoint.safetensors").write_bytes(b"of another run")
    workflow.get_condensed(other, ZOO)  # it is found
    assert (other / "checkpoint.safetensors").read_bytes() == b"of another run"


def test_sources_of_notebooks_are_never_replaced(tmp_path, monkeypatch, capsys):
    source = Path(cli.__file__).parents[1] / "notebooks/02_scores.ipynb"
    book = tmp_path / "nb/02_scores.ipynb"
    book.parent.mkdir()
    book.write_bytes(source.read_bytes())
    monkeypatch.setattr("papermill.execute_notebook", lambda *_, **__: pytest.fail("it ran"))
    command = ["run", "02", "--folder", "nb", "-p", "run_dir", "nb"]
    assert cli.main(command) == 2 and "not yoco's" in capsys.readouterr().err
    owned.claim(tmp_path / "run")
    (tmp_path / "run/02_scores.ipynb").write_bytes(source.read_bytes())
    assert cli.main(["run", "02", "--folder", "run", "-p", "run_dir", "run"]) == 2
    assert "would be replaced by its executed copy" in capsys.readouterr().err
    assert cli.main(["run", "02", "--folder", "nb", "-p", "run_dir", "run"]) == 2
    assert "was not written by yoco" in capsys.readouterr().err
    assert book.read_bytes() == (tmp_path / "run/02_scores.ipynb").read_bytes()


def test_braces_in_a_path_are_its_own(tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr("papermill.execute_notebook", lambda *places, **_: taken.extend(places[:2]))
    (tmp_path / "{a}").mkdir()
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "{a}/{0}.ipynb")
    execution.execute(tmp_path / "{a}/{0}.ipynb", tmp_path / "{b}{}.ipynb", {"seed": 1})
    from papermill.parameterize import parameterize_path

    assert [parameterize_path(path, {"seed": 1}) for path in taken] == [
        str(tmp_path / "{a}/{0}.ipynb"),
        str(tmp_path / ".{b}{}.running.ipynb"),
    ]


@pytest.mark.slow
def test_a_notebook_runs_in_a_folder_whose_name_has_braces(tmp_path):
    cell = nbformat.v4.new_code_cell("seed = 0", metadata={"tags": ["parameters"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "x.ipynb")
    execution.execute(tmp_path / "x.ipynb", tmp_path / "{run}.ipynb", {"seed": 1})
    assert (
        "output_path" in json.loads((tmp_path / "{run}.ipynb").read_text())["metadata"]["papermill"]
    )


def test_zoo_names_are_names_of_folders(tmp_path):
    for name in zoo.names():
        assert workflow.folder(None, f"zoo:{name}").parent == tmp_path / "runs"


def test_a_notebook_s_table_replaces_only_its_own(tmp_path):
    run = owned.claim(tmp_path / "run")
    for number in (1, 2):
        workflow.keep_table(pd.DataFrame({"a": [number]}), run / "scores.csv")
    assert (run / "scores.csv").read_text() == "a\n2\n"
    (run / "overlap.csv").write_text("mine")
    with pytest.raises(FileExistsError, match="overlap.csv was not written by yoco"):
        workflow.keep_table(pd.DataFrame({"a": [1]}), run / "overlap.csv")
    for path in (Path(cli.__file__).parents[1] / "notebooks").glob("*.ipynb"):
        assert ".to_csv(" not in path.read_text(encoding="utf-8"), path
