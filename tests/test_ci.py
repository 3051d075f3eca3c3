"""Files that other machines read: the workflow of continuous integration, pre-commit's hooks."""

import os
import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()


def workflow():
    return yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]


def commands(job):
    return [step["run"] for step in workflow()[job]["steps"] if "run" in step]


def test_workflow_runs_ci_on_linux_builds_the_site_and_runs_the_demo_on_macos():
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
