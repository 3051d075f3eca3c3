"""What `pip install yoco` gives: the built sdist and wheel, and a run with nothing else."""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import yoco
from tests.conftest import HUNG
from yoco.workflow import notebooks

ROOT = Path(__file__).parent.parent
SOURCES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
BUILD = """
from setuptools import build_meta
build_meta.build_sdist("dist")
build_meta.build_wheel("dist")
"""
# imported names of distributions that are called otherwise, or that come with another one
COMES_WITH = {
    "sklearn": "scikit-learn",
    "PIL": "pillow",
    "IPython": "ipykernel",
    "nbclient": "papermill",
    "jupyter_client": "ipykernel",
}
# hf:NAME asks for the first; the second comes with PyTorch for CUDA
OPTIONAL = {"datasets", "triton"}


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """A folder with the sdist and the wheel, built from a copy of the sources."""
    copy = tmp_path_factory.mktemp("sources")
    for folder in ("yoco", "notebooks", "tests"):
        shutil.copytree(
            ROOT / folder,
            copy / folder,
            ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"),
        )
    for name in SOURCES:
        shutil.copy(ROOT / name, copy)
    subprocess.run([sys.executable, "-c", BUILD], cwd=copy, check=True, capture_output=True)
    return copy / "dist"


def sources() -> set[str]:
    """The package's files, and the notebooks as they are inside the package."""
    files = [path for path in (ROOT / "yoco").rglob("*") if path.is_file()]
    inside = {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}
    return inside | {f"yoco/notebooks/{name}.ipynb" for name in notebooks.names()}


def test_the_wheel_holds_only_package_and_notebooks(dist):
    (wheel,) = dist.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in held if ".dist-info/" not in name} == sources()
    assert wheel.name == f"yoco-{yoco.__version__}-py3-none-any.whl"


def test_the_sdist_holds_what_the_wheel_is_built_from(dist):
    (archive,) = dist.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        held = {name.split("/", 1)[-1] for name in opened.getnames()}
    assert sources() - held == {f"yoco/notebooks/{name}.ipynb" for name in notebooks.names()}
    assert {*SOURCES, *(f"notebooks/{name}.ipynb" for name in notebooks.names())} <= held
    assert not any(name.startswith("tests") for name in held)


@pytest.mark.slow
def test_the_wheel_alone_runs_a_notebook_in_an_empty_folder(dist, tmp_path):
    """In an environment that sees the test environment's packages, but not its yoco."""
    home, work = tmp_path / "environment", tmp_path / "empty"
    work.mkdir()
    venv.create(home, with_pip=False)
    inside = Path(sysconfig.get_path("purelib", "venv", {"base": home, "platbase": home}))
    # a path of its own, whose .pth files are not read: the editable install stays out
    (inside / "packages.pth").write_text(sysconfig.get_path("purelib"))
    python, (wheel,) = home / "bin/python", dist.glob("*.whl")
    install = ["install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "--python", python, *install], check=True)
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "YOCO"))
    }

    def yoco_command(*arguments: str) -> str:
        done = subprocess.run(
            [home / "bin/yoco", *arguments],
            cwd=work,
            env=clean,
            capture_output=True,
            text=True,
            timeout=HUNG,
        )
        assert done.returncode == 0 and not done.stderr, done.stderr
        return done.stdout

    assert yoco_command("--version") == f"yoco {yoco.__version__}\n"
    place = subprocess.run(
        [python, "-c", "import yoco; print(yoco.__file__)"],
        cwd=work,
        env=clean,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert place.startswith(str(home))
    assert re.search(r"00_quickstart: \d+ s -> runs/quickstart/", yoco_command("run", "00"))
    assert (work / "runs/quickstart/00_quickstart.ipynb").is_file()
    yoco_command("notebooks", "mine")
    assert len(list((work / "mine").glob("*.ipynb"))) == len(notebooks.names())


def test_every_import_of_the_package_is_a_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    allowed = {re.match(r"[\w-]+", line)[0] for line in project["dependencies"]}
    for path in (ROOT / "yoco").rglob("*.py"):
        for name in imported(ast.parse(path.read_text())):
            known = COMES_WITH.get(name, name)
            assert known in allowed or name in OPTIONAL, f"{path.name} imports {name}"


def imported(tree: ast.AST) -> set[str]:
    """Return the top-level names that a file imports, without the standard library and its own."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"yoco"}
