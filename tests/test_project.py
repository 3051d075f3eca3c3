"""The project's own rules: what imports what, and that files which say the same thing agree."""

import ast
import json
import re
import tomllib
from pathlib import Path

import pandas as pd
import pytest
import yaml

from benchmarks import last_batch
from tools import generate
from yoco import plots, zoo
from yoco.experiments import noise, tables
from yoco.utils.device import WORTH
from yoco.workflow import notebooks, parameters

ROOT = Path(__file__).parent.parent


def test_files_are_short_and_say_their_idea():
    for path in (ROOT / "yoco").rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 350, path.name
        assert ast.get_docstring(ast.parse(path.read_text())), path.name


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


def test_environment_yml_has_the_packages_and_bounds_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    conda_names = {"torch": "pytorch", "matplotlib": "matplotlib-base", "seaborn": "seaborn-base"}
    wanted = {f"python{project['requires-python']}"}
    for line in project["dependencies"] + project["optional-dependencies"]["test"]:
        name, bound = re.fullmatch(r"([a-z-]+)(.*)", line).groups()
        wanted.add(conda_names.get(name, name) + bound)
    assert set(yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]) == wanted


@pytest.mark.parametrize("name", notebooks.names())
def test_notebooks_are_executed_checked_and_without_machine_paths(name):
    text = (ROOT / f"notebooks/{name}.ipynb").read_text()
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in cells), "an unexecuted cell is never compared"
    assert not any(output["output_type"] == "error" for cell in cells for output in cell["outputs"])
    assert sum("nbval-check-output" in cell["metadata"].get("tags", []) for cell in cells) >= 2
    assert not any(re.match(r"(def|class) ", line) for cell in cells for line in cell["source"]), (
        "logic belongs in the package"
    )
    kinds = [cell["cell_type"] for cell in json.loads(text)["cells"]]
    assert not any(pair == ("code", "code") for pair in zip(kinds, kinds[1:])), (
        "a sentence before each cell"
    )
    assert not re.search(r"/(work|root|home|tmp)/", re.sub(r'"image/png": "[^"]*"', "", text))


def test_nbval_runs_every_notebook():
    lots = re.findall(r"^nbval-\w+: LOT = (.+)$", (ROOT / "Makefile").read_text(), re.M)
    there = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
    assert (
        sorted(name for lot in lots for name in lot.split())
        == ["00_quickstart", *parameters.NOTEBOOKS]
        == there
    )


def test_what_is_made_from_the_declared_parameters_is_up_to_date():
    assert generate.stale() == [], "make tables"
    for name, model in parameters.NOTEBOOKS.items():  # and the cells say what they should
        values: dict = {}
        exec(generate.cell(name), values)
        assert parameters.assigned(generate.cell(name)) == list(model.model_fields), name
        assert {key: values[key] for key in model.model_fields} == {
            key: field.default for key, field in model.model_fields.items()
        }, name


def test_readme_s_numbers_are_the_files():
    readme = (ROOT / "README.md").read_text()
    figures = ROOT / "figures/cifar10"
    for cell in tables.pivot(pd.read_csv(figures / "table.csv")).to_numpy().flat:
        assert cell in readme
    assert (figures / "table2.md").read_text() in readme
    gaps = pd.read_csv(figures / "paired.csv")
    assert all(line in readme for line in tables.verdict(gaps).splitlines())
    accuracy = (
        pd.read_csv(figures / "condensation.csv").groupby("subset")["accuracy"].agg(["mean", "std"])
    )
    for row in accuracy.itertuples():
        assert f"{row.mean:.2f} ± {row.std:.2f} %" in readme
    for value in pd.read_csv(figures / "image_lr.csv").accuracy:
        assert f"{value} %" in readme
    for name in re.findall(r"figures/cifar10/[\w.]+", readme):
        assert (ROOT / name).is_file(), name


def test_readme_s_ablations_are_the_files():
    readme, figures = (ROOT / "README.md").read_text(), ROOT / "figures/cifar10"
    sections = dict(
        part.split("\n\n", 1)
        for part in (figures / "ablations.md").read_text().removeprefix("## ").split("\n## ")
    )
    for name in ("rules", "condensation", "network"):
        assert sections[name].strip() in readme, name
    agreement = (
        pd.read_csv(figures / "agreement.csv").groupby("score", sort=False)["spearman"].mean()
    )
    assert ", ".join(f"{name} {value:.2f}" for name, value in agreement.items()) in readme
    order = tables.order_as_paper(pd.read_csv(figures / "beside_paper.csv")).spearman
    assert "by {:.2f}, {:.2f} and {:.2f} (Spearman".format(*order) in readme
    assert (ROOT / "figures/hundred/table.md").read_text() in readme
    gaps = tables.paired(pd.read_csv(ROOT / "figures/hundred/results.csv"))
    for row in gaps.loc[gaps.groupby("ipc_to")["mean"].idxmin()].itertuples():
        assert f"{row.mean:.2f} ± {row.std:.2f}" in readme


def test_readme_s_costs_are_the_files():
    readme = (ROOT / "README.md").read_text()
    measured = json.loads((ROOT / "figures/bench/cpu.json").read_text())
    for case in measured["cases"]:
        times = (
            f"| `{case['name']}` | {case['literal_s']:.2f} | {case['ours_s']:.2f} | "
            f"{case['ratio']:.2f}× | {case['first_s']:.1f} |"
        )
        assert f"{times} {case['literal_mb']:,.0f} | {case['ours_mb']:,.0f} |" in readme
    assert f"would train {measured['limit']['convolutions_images_per_s']:,.0f} images/s" in readme
    assert (
        f"a share of {measured['limit']['train_400_share']:.2f}" in readme
        and (f"fewer than {WORTH:,} images") in readme
    )
    agreement = (
        pd.read_csv(ROOT / "figures/bench/agreement.csv")
        .query("way != 'start'")
        .groupby(["what", "way"])["accuracy"]
    )
    for row in agreement.agg(["mean", "std"]).itertuples():
        assert f"{row.mean:.2f} ± {row.std:.2f}" in readme
    for name in re.findall(r"figures/bench/[\w.]+", readme):
        assert (ROOT / name).is_file(), name


def test_readme_s_last_batches_are_the_file():
    table = last_batch.compared(pd.read_csv(ROOT / "figures/bench/last_batch.csv"))
    assert tables.markdown(table) in (ROOT / "README.md").read_text() and table.notna().all().all()


def test_readme_s_condensation_methods_are_the_files():
    readme = (ROOT / "README.md").read_text()
    for row in zoo.table().itertuples():
        assert (
            f"| `{row.name}` | {row.steps:,} | {row.hours:.4f} | {row.start_accuracy:.2f} |"
            in readme
        )
        assert f" {row.accuracy:.2f} ± {row.accuracy_std:.2f} |" in readme
    for row in pd.read_csv(ROOT / "figures/bench/kernels.csv").itertuples():
        assert (
            f"| `{row.kernel}` | {row.side} × {row.side} | {row.forward_s:g} | "
            f"{row.with_backward_s:g} |"
        ) in readme
    for name, keys in (("loops", ["method", "steps"]), ("by_bytes", ["stored", "per_class"])):
        for row in (
            pd.read_csv(ROOT / f"figures/cifar10/{name}.csv")
            .groupby(keys)["accuracy"]
            .agg(["mean", "std"])
            .itertuples()
        ):
            assert f"{row.mean:.2f} ± {row.std:.2f}" in readme


def test_readme_s_gallery_is_there_and_its_calls_exist():
    gallery = (ROOT / "README.md").read_text().split("## Gallery")[1].split("## Presets")[0]
    shown = re.findall(r"!\[\]\((figures/gallery/\w+\.png)\)", gallery)
    assert len(shown) >= 12 and all((ROOT / name).is_file() for name in shown)
    calls = re.findall(r"\) `(\w+)\(", gallery)
    assert len(calls) >= 12 and all(callable(getattr(plots, name)) for name in calls)
    assert all(
        f'gallery / "{name}"'
        in (ROOT / "notebooks/07_gallery.ipynb").read_text().replace('\\"', '"')
        for name in calls
    )


def test_paper_tables_are_the_appendix_s_where_it_is_at_hand():
    shared = ROOT.parent / "shared/paper"
    if not shared.is_dir():
        pytest.skip("no shared/paper beside the checkout")
    for path in (ROOT / "yoco/paper_tables").glob("*.csv"):
        assert path.read_text() == (shared / path.name).read_text()


def test_readme_s_promises_name_tests_that_exist():
    promises = (
        (ROOT / "README.md").read_text().split("## What is promised", 1)[1].split("\n## ", 1)[0]
    )
    named = re.findall(r"`(tests/[\w/]+\.py)`", promises)
    assert len(set(named)) >= 12 and all((ROOT / name).is_file() for name in named)


def test_readme_s_64_pixel_study_is_the_files():
    readme, figures = (ROOT / "README.md").read_text(), ROOT / "figures/tiny10"
    assert (figures / "table.md").read_text().strip() in readme
    for row in (
        pd.read_csv(figures / "condensation.csv")
        .groupby("subset")["accuracy"]
        .agg(["mean", "std"])
        .itertuples()
    ):
        assert f"{row.mean:.2f} ± {row.std:.2f} %" in readme
    gaps = tables.paired(pd.read_csv(figures / "table2.csv"))
    for row in gaps.loc[gaps.groupby("ipc_to")["mean"].idxmin()].itertuples():
        assert f"{row.mean:.2f} ± {row.std:.2f} over {row.method} (p = {row.p:.3g})" in readme


def test_readme_s_noise_is_the_files():
    readme, figures = (ROOT / "README.md").read_text(), ROOT / "figures/noise"
    for section in (figures / "noise.md").read_text().removeprefix("## ").split("\n## "):
        assert section.split("\n\n", 1)[1].strip() in readme
    gains = pd.read_csv(figures / "noise_gains.csv")
    for rule, gain in (
        gains[gains["method"].isin(noise.REPAIRS)].groupby("method")["mean"].mean().items()
    ):
        assert f"{rule} {gain:+.2f}" in readme
    for name in re.findall(r"figures/noise/[\w.]+", readme):
        assert (ROOT / name).is_file(), name
