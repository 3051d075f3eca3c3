"""The project's own rules: import layers, and agreement of files that say the same thing."""

import ast
import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from tools.generate import WIDTH
from tools.notebooks import MOST_BYTES
from yoco.workflow import notebooks, parameters
from yoco.workflow.stills import WIDGET

ROOT = Path(__file__).parent.parent


def test_files_are_short_and_say_their_idea():
    for path in (ROOT / "yoco").rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 350, path.name
        assert ast.get_docstring(ast.parse(path.read_text())), path.name


def test_functions_are_short_without_their_docstrings():
    for path in (ROOT / "yoco").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = node.end_lineno - node.lineno + 1
                if ast.get_docstring(node):
                    lines -= node.body[0].end_lineno - node.body[0].lineno + 1
                assert lines <= 60, f"{path.name}: {node.name}"


def test_names_of_tests_are_short():
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                assert len(node.name) <= 60, f"{path.name}: {node.name}"


def test_public_functions_have_docstrings():
    for path in (ROOT / "yoco").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"


def test_devices_are_named_in_one_place():
    for path in (ROOT / "yoco").rglob("*.py"):
        if path.name != "device.py":
            # to ask is not to name
            code = re.sub(r"device\.type [!=]= \"cuda\"", "", path.read_text())
            assert not re.search(r"\.cuda\(|[\"']cuda|[\"']mps[\"']", code), path.name


def test_nothing_is_unpickled():
    for path in (ROOT / "yoco").rglob("*.py"):
        code = path.read_text()
        assert not re.search(
            r"^\s*(import|from) .*pickle|allow_pickle=True|joblib\.load", code, re.M
        ), path.name
        assert len(re.findall(r"torch\.load\(", code)) == len(
            re.findall(r"torch\.load\([^)]*weights_only=True", code)
        ), path.name


def test_environment_yml_agrees_with_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    conda_names = {"torch": "pytorch", "matplotlib": "matplotlib-base", "seaborn": "seaborn-base"}
    wanted = {f"python{project['requires-python']}"}
    for line in project["dependencies"] + project["optional-dependencies"]["test"]:
        name, bound = re.fullmatch(r"([a-z-]+)(.*)", line).groups()
        wanted.add(conda_names.get(name, name) + bound)
    assert set(yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]) == wanted


@pytest.mark.parametrize("name", notebooks.names())
def test_notebooks_are_executed_and_checked(name):
    text = (ROOT / f"notebooks/{name}.ipynb").read_text()
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in cells), "an unexecuted cell is never compared"
    assert not any(output["output_type"] == "error" for cell in cells for output in cell["outputs"])
    assert sum("nbval-check-output" in cell["metadata"].get("tags", []) for cell in cells) >= 2
    assert not any(re.match(r"(def|class) ", line) for cell in cells for line in cell["source"]), (
        "logic belongs in the package"
    )
    lines = [line.rstrip("\n") for cell in cells for line in cell["source"]]
    assert max(map(len, lines)) <= WIDTH, "JupyterLab scrolls longer lines at 1280 pixels"
    kinds = [cell["cell_type"] for cell in json.loads(text)["cells"]]
    assert not any(pair == ("code", "code") for pair in zip(kinds, kinds[1:])), (
        "a sentence before each cell"
    )
    assert len(text.encode()) < MOST_BYTES and '"widgets"' not in text and WIDGET not in text
    assert "<details>" in text, "an exercise, its solution folded"
    assert not re.search(r"/(work|root|home|tmp)/", re.sub(r'"image/png": "[^"]*"', "", text))


def test_nbval_runs_every_notebook():
    lots = re.findall(r"^nbval-\w+: LOT = (.+)$", (ROOT / "Makefile").read_text(), re.M)
    there = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
    assert (
        sorted(name for lot in lots for name in lot.split())
        == ["00_quickstart", *parameters.NOTEBOOKS]
        == there
    )


def test_paper_tables_are_the_appendix_s_where_it_is_at_hand():
    shared = ROOT.parent / "shared/paper"
    if not shared.is_dir():
        pytest.skip("no shared/paper beside the checkout")
    for path in (ROOT / "yoco/paper_tables").glob("*.csv"):
        assert path.read_text() == (shared / path.name).read_text()
