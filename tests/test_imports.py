"""What is imported when: counted in modules of a fresh interpreter, not in seconds."""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

import yoco

ROOT = Path(__file__).resolve().parents[1]
TORCH = ("torch", "numpy", "matplotlib", "pydantic")
LATER = ("pandas", "seaborn", "scipy", "sklearn", "matplotlib.pyplot")
HEAVY = (
    "torchvision",
    "torch._dynamo",
    "sympy",
    "ipywidgets",
    "IPython",
    "papermill",
    "dask",
    "distributed",
)
FIRST_CELL = """
import yoco
from yoco import plots, workflow as runs
from yoco.workflow.parameters import check, NOTEBOOKS

fields = NOTEBOOKS["01_condensation"].model_fields
check("01_condensation", {name: field.default for name, field in fields.items()})
plots.use_style()
"""


@functools.cache
def modules_after(code: str) -> frozenset[str]:
    """Return what a fresh interpreter has imported after `code`."""
    # at once: tearing torch down takes half a second
    tell = "print('\\n' + ' '.join(sys.modules), file=sys.__stdout__, flush=True)\nos._exit(0)"
    told = f"{code}\nimport os, sys\n{tell}"
    run = subprocess.run(
        [sys.executable, "-c", told], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return frozenset(run.stdout.splitlines()[-1].split())


def imported(code: str, unwanted: tuple[str, ...]) -> list[str]:
    """Return which of `unwanted` a fresh interpreter has imported after `code`."""
    return [name for name in unwanted if name in modules_after(code)]


def test_importing_yoco_imports_nothing_else():
    assert imported("import yoco", (*TORCH, *LATER, *HEAVY)) == []


def test_the_first_cell_of_a_notebook_draws_and_compiles_nothing():
    assert imported(FIRST_CELL, (*LATER, *HEAVY)) == []


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["run", "--help"], ["condense", "--help"], ["sweep", "--help"]],
)
@pytest.mark.parametrize(
    "start",
    [
        "from yoco.cli import main; main()",
        ("import runpy; runpy.run_module('yoco', run_name='__main__')"),
    ],
)
def test_help_needs_no_torch(start, arguments):
    code = (
        f"import sys\nsys.argv = {['yoco', *arguments]}\ntry:\n    {start}\nexcept SystemExit as "
        "end:\n    assert not end.code"
    )
    assert imported(code, (*TORCH, *LATER, *HEAVY)) == []


def test_training_and_testing_compile_nothing():
    code = """
import torch
from yoco import data, evaluate

half = torch.zeros(8, 1, 8, 8, dtype=torch.uint8), torch.arange(8) % 2
tiny = data.ImageData("tiny", *half, *half, ("a", "b"), (0.5,), (0.2,))
evaluate.evaluate(*half, tiny, epochs=1, seed=0, width=4, precision="float32")
"""
    assert imported(code, HEAVY) == []


def test_the_command_line_tells_the_version():
    told = subprocess.run(
        [sys.executable, "-m", "yoco", "--version"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert told == f"yoco {yoco.__version__}\n"


def test_every_public_name_is_there_and_completed():
    for name in yoco.__all__:
        assert getattr(yoco, name).__name__.rpartition(".")[2] == name
    assert set(yoco.__all__) <= set(dir(yoco))
    with pytest.raises(AttributeError, match="no attribute 'studies'"):
        yoco.studies  # noqa: B018
    with pytest.raises(ImportError):
        exec("from yoco import studies")


def test_a_public_name_is_imported_when_it_is_used():
    code = (
        "import yoco\nassert yoco.evaluate.evaluate and yoco.condense.condense and "
        "yoco.CondensedSet.load\nfrom yoco import study, RankedSet"
    )
    assert imported(code, (*LATER, *HEAVY)) == []
    assert imported(code, ("torch", "yoco.experiments.study")) == [
        "torch",
        "yoco.experiments.study",
    ], "the other tests can fail"


def test_no_module_reaches_a_higher_layer_through_the_package():
    """import-linter does not see what `import yoco` leads to."""
    reaching = [
        (file.name, node.attr)
        for file in ROOT.glob("yoco/**/*.py")
        if re.search(r"^\s*import yoco$", text := file.read_text(encoding="utf-8"), re.MULTILINE)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "yoco"
    ]
    assert all(attribute.startswith("__") for _, attribute in reaching), reaching
