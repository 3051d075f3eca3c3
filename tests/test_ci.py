"""Files that other machines read: the workflow of continuous integration, pre-commit's hooks."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import yaml

from yoco import cli
from yoco.workflow import parameters

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()


def workflow():
    return yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]


def commands(job):
    return [step["run"] for step in workflow()[job]["steps"] if "run" in step]


def test_workflow_covers_ci_the_site_and_the_macos_demo():
    assert commands("linux") == [".ci/run"] and commands("macos") == ["make demo"]
    assert commands("docs") == ["make docs"] and commands("package") == ["make package"]
    assert os.access(ROOT / ".ci/run", os.X_OK)
    versions = workflow()["linux"]["strategy"]["matrix"]["python"]
    assert versions == ["3.11", "3.12", "3.13"]  # text: 3.10 as a number is 3.1
    lowest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert lowest == f">={versions[0]}"


def test_every_target_that_ci_makes_exists():
    targets = set(re.findall(r"^([\w-]+):", MAKEFILE, re.M))
    script = (ROOT / ".ci/run").read_text()
    made = re.findall(
        r"^\s*make ([\w-]+)",
        "\n".join([script, *(line for job in workflow() for line in commands(job))]),
        re.M,
    )
    assert made == ["lint", "test", "docs", "demo", "package"] and set(made) <= targets


def test_hooks_are_commands_of_make_lint():
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", MAKEFILE, re.M).group(1)
    linters = {Path(line.split()[0]).name for line in recipe.splitlines()}
    assert linters == {"ruff", "lint-imports", "mypy"}
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert {Path(hook["entry"].split()[0]).name for hook in hooks} <= linters


def test_demo_passes_only_parameters_its_notebooks_know():
    parts = {"demo-00": ["00"], "demo-01-02": ["01", "02"], "demo-03": ["03"], "demo-04": ["04"]}
    for target, names in parts.items():
        recipe = subprocess.run(
            ["make", "-n", "-o", ".venv/.installed", target],
            cwd=ROOT,
            capture_output=True,
            text=True,
        ).stdout
        command = re.search(r"-m yoco (run [^>\n]*)", recipe).group(1).split()
        options = cli.parser().parse_args(command)
        assert options.notebooks == names
        fields = (
            model.model_fields for name, model in parameters.NOTEBOOKS.items() if name[:2] in names
        )
        known = {"run_dir"}.union(*fields)
        assert {name for name, _ in options.parameters} <= known, target
