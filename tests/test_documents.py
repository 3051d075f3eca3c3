"""The README and docs/ agree with the files.

Generated tables are current, numbers in sentences are those of their files, links lead somewhere,
and the README's code runs.
"""

import re
import tomllib
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from benchmarks import bench, budgets, parts
from tools import document_tables, documents, generate
from yoco import plots, prune
from yoco.condense import METHODS as CONDENSATIONS
from yoco.experiments import noise, paper, tables
from yoco.utils.device import WORTH
from yoco.workflow import parameters

ROOT = Path(__file__).parent.parent
FIGURES = ROOT / "figures"
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in documents.pages()}
OTHERS = {name: (ROOT / name).read_text("utf-8") for name in ("CONTRIBUTING.md", "CHANGELOG.md")}


def page(name: str) -> str:
    """A page of docs/, with ordinary spaces."""
    return PAGES[f"docs/{name}.md"].replace("\u00a0", " ")


def mean_and_std(values: pd.Series) -> str:
    return f"{values.mean():.2f} ± {values.std():.2f}"


def anchors(text: str) -> set[str]:
    """What a link to a page can point at, as GitHub and the site name its headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", name.lower()).replace(" ", "-") for name in headings}


def test_what_is_generated_is_current():
    assert not generate.stale(), "make tables"
    for name, model in parameters.NOTEBOOKS.items():  # and the cells say what they should
        values: dict = {}
        exec(generate.cell(name), values)
        assert list(parameters.assigned(generate.cell(name))) == list(model.shown), name
        assert 4 <= len(model.shown) <= 6, name
        assert {key: values[key] for key in model.shown} == {
            key: model.model_fields[key].default for key in model.shown
        }, name


def test_every_table_is_shown_and_every_marker_closed():
    shown = [name for text in PAGES.values() for name in re.findall(r"<!-- made: (\S+) -->", text)]
    assert sorted(shown) == sorted(document_tables.TABLES)
    for name, text in PAGES.items():
        assert len(documents.MARKED.findall(text)) == text.count("<!-- made:"), name


def test_tables_are_filled_between_their_own_markers():
    text = "<!-- made: bytes -->\n<!-- end -->\nkept\n<!-- made: kernels -->\nold\n<!-- end -->\n"
    filled = documents.filled(text)
    assert "kept" in filled and "old" not in filled and documents.filled(filled) == filled
    with pytest.raises(KeyError, match="nothing"):
        documents.filled("<!-- made: nothing -->\n<!-- end -->")


@pytest.mark.parametrize("name", [*PAGES, *OTHERS])
def test_links_lead_somewhere(name):
    text = {**PAGES, **OTHERS}[name]
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        file, _, anchor = target.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        assert path.exists(), f"{name}: {target}"
        assert not anchor or anchor in anchors(path.read_text("utf-8")), f"{name}: {target}"


def test_files_that_pages_name_exist():
    for name, text in PAGES.items():
        for file in re.findall(r"`((?:figures|benchmarks|tests|yoco|tools)/[\w./-]+)`", text):
            assert (ROOT / file).exists(), f"{name}: {file}"
        for module in re.findall(r"python -m (benchmarks\.\w+|tools\.\w+)", text):
            assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), f"{name}: {module}"


def test_the_site_lists_every_page():
    def files(entry):
        if isinstance(entry, str):
            return [entry]
        inner = entry.values() if isinstance(entry, dict) else entry
        return [file for each in inner for file in files(each)]

    listed = files(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(f"docs/{file}" for file in listed) == sorted(set(PAGES) - {"README.md"})


def test_the_readme_is_short_and_its_code_runs(tmp_path, monkeypatch, capsys):
    readme = PAGES["README.md"]
    assert len(readme.split()) <= 900
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.S)
    assert len([line for line in code.splitlines() if line]) <= 10
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert (tmp_path / "kept.png").is_file()
    assert capsys.readouterr().out.strip() == re.search(r"print.*# (.+)", code)[1]
    for name in parameters.NOTEBOOKS:
        assert f"| `{name}` |" in readme
    assert all(name in readme.lower() for name in CONDENSATIONS)


def test_yoco_in_a_few_lines_is_yoco(toy_set, toy_dynamics):
    names = {
        "torch": torch,
        "condensed": toy_set,
        "table": prune.score_table(toy_set, toy_dynamics),
    }
    exec(re.findall(r"```python\n(.*?)```", page("pruning"), re.S)[1], names)
    kept = prune.prune(toy_set, toy_dynamics, "yoco", 1).indices
    assert sorted(names["by_hand"].tolist()) == sorted(kept.tolist())


def test_every_evaluated_set_of_ncfm_has_a_row():
    paths = pd.read_csv(FIGURES / "ncfm/evaluations.csv").path
    assert set(paths) == set(document_tables.TRAINED_ON)


@pytest.mark.parametrize(
    ("ipc", "plus", "early", "clean", "cost"),
    [(1, [2, 5], [2.2, 3.2], [0.4, 0.6], [7, 10]), (5, [1, 2], [-1, 1.2], [-1.2, -2.7], [13, 19])],
)
def test_sentences_on_noise_in_the_ncfm_set(ipc, plus, early, clean, cost):
    found = pd.read_csv(FIGURES / "noise/ncfm.csv").query("ipc_to == @ipc")
    means = found.pivot_table("accuracy", "kind", "method")
    papers = ["random", "ssp", "entropy", "aum", "forgetting", "el2n", "ccs"]
    assert (means["yoco"] > means[papers].max(axis=1)).all()
    gains = means.sub(means["yoco"], axis=0)
    wrong = ["symmetric", "class_dependent"]
    assert gains["yoco+"][wrong].round().tolist() == plus
    assert gains["early"][wrong].round(1).tolist() == early
    assert gains.loc["clean", ["yoco+", "early"]].round(1).tolist() == clean
    assert (means.loc["clean", "yoco"] - means["yoco"][wrong]).round().tolist() == cost


def test_sentences_on_damaged_images_in_the_ncfm_set():
    found = pd.read_csv(FIGURES / "noise/ncfm.csv").query("ipc_to == 1")
    by_run = found.pivot_table("accuracy", ["kind", "dynamics"], "method")
    images = by_run.loc[["blur", "noise", "occlusion"]]
    assert (images["yoco+"] > images["yoco"]).all()
    means = images.groupby("kind").mean()
    assert (means.idxmax(axis=1) == "yoco+").all()
    gains = (means["yoco+"] - means["yoco"]).round(1)
    assert (gains.min(), gains.max()) == (1.8, 2.3)
    cost = (by_run.loc["clean", "yoco"].mean() - means["yoco"]).round()
    assert (cost.min(), cost.max()) == (2, 4)


def test_sentences_on_damaged_images_at_ipc_5():
    found = pd.read_csv(FIGURES / "noise/ncfm.csv").query("ipc_to == 5")
    means = found.pivot_table("accuracy", "kind", "method")
    images = means.loc[["blur", "noise", "occlusion"]]
    cost = (means.loc["clean", "yoco"] - images["yoco"]).round()
    assert (cost.min(), cost.max()) == (3, 4)
    gains = images.sub(images["yoco"], axis=0)
    assert gains["early"].round().tolist() == [-3, -3, -2]
    others = gains[["yoco+", "trimmed", "all runs", "two-sided"]]
    assert others.abs().max().max() < 0.7


def test_sentences_on_finding_damage_in_the_ncfm_set():
    auc = pd.read_csv(FIGURES / "noise/ncfm_detection.csv").pivot_table("auc", "score", "kind")
    said = auc.round(2)
    assert said.to_numpy().max() == 0.63
    assert said.loc[["lbpe", "el2n", "aum"], "symmetric"].tolist() == [0.58, 0.61, 0.63]
    assert said["class_dependent"].max() == 0.55
    kept = pd.read_csv(FIGURES / "noise/ncfm.csv").query("ipc_to == 5")
    share = kept.pivot_table("precision", "method", "kind")[["symmetric", "class_dependent"]]
    assert (share.min().min().round(), share.max().max().round()) == (32, 48)


def test_the_sentences_on_the_two_rules_are_the_file():
    found = pd.read_csv(FIGURES / "rules/two_rules.csv")
    means = found.pivot_table("accuracy", ["condensation", "method"], "balanced")
    gained, own = means[True] - means[False], means.loc["ncfm"]
    assert gained["ncfm"].round().tolist() == [3, 2, 3, 5]  # EL2N, random, YOCO, YOCO+
    ahead = own.drop("random") - own.loc["random"]
    assert [(ahead[b].min().round(), ahead[b].max().round()) for b in (False, True)] == [
        (5, 6),
        (6, 9),
    ]
    published = gained.drop("ncfm").round(1).sort_values().tolist()
    assert published[0] == 0.9 and published[-2:] == [2.6, 6.4]
    yoco, random = (means[True].unstack()[method] for method in ("yoco", "random"))
    assert sorted((yoco - random).round(1)[["datm", "mtt"]]) == [1.5, 1.9]
    datm = means.loc["datm", False]
    assert round(datm["el2n"] - datm["random"]) == -5
    el2n = means[True].unstack()["el2n"] - yoco
    assert (el2n[["ncfm", "mtt"]] > 0).all() and el2n["datm"] < 0


def test_the_budgets_sentences_are_the_files():
    found = budgets.table(*(pd.read_csv(path) for path in (budgets.MADE, budgets.CHOSEN)))
    means = found.groupby(["way", "ipc"])["accuracy"].mean()
    nested, (plus, yoco) = means[budgets.NESTED_WAY], (means[way] for way in budgets.PRUNED)
    assert (means[budgets.ALONE_WAY] - nested).abs().max() < 1  # "within a point"
    lost = [(nested - kept).dropna().round() for kept in (plus, yoco)]
    assert [part.tolist() for part in lost] == [[7, 7, 6], [9, 8, 5]]
    text = page("results/ablations")
    late = pd.read_csv(FIGURES / "ncfm/flat.whole_run_aum.csv").groupby("ipc_to")["accuracy"].mean()
    for kept in (plus, yoco, late):
        assert f"{kept[1]:.1f} and {kept[2]:.1f} %" in text


def test_the_parts_sentences_are_the_files():
    found = parts.table(*map(pd.read_csv, (parts.PARTS, parts.WHOLE, parts.REST_OF_SETS)))
    rest, test = (found.set_index("set")[column].round() for column in (parts.REST, "random"))
    text = page("results/parts")
    for said, name in (
        ("{} % of the rest, about as many as of the real test images ({} %)", "start"),
        ("{} % of the rest and {} % of the test images", "IDC, 440 steps"),
        ("On NCFM's flat set, {} and {} %", "NCFM, 2,500 steps"),
    ):
        assert said.format(int(rest[name]), int(test[name])) in text
    steps = ("start", "NCFM, 714 steps", "NCFM, 2,500 steps")
    assert "({:.0f}, {:.0f} and {:.0f} % after 0, 714".format(*rest[list(steps)]) in text


def test_cifar100_s_sentence_is_the_file():
    found = pd.read_csv(FIGURES / "cifar100/evaluations.csv").set_index("trained_on")["accuracy"]
    for name in ("results/cifar100", "results/README"):
        assert f"reaches {found['the set']:.2f} % after 300 epochs" in page(name)
    assert round(found["the set"] - found["the start"]) == 12


def test_sentences_on_pruning_cifar100_are_the_file():
    found = pd.read_csv(FIGURES / document_tables.CIFAR100[0]).groupby(["ipc_to", "method"])
    one, two = (found["accuracy"].mean()[ipc] for ipc in (1, 2))
    yoco = paper.beside("cifar100", 10).query("method == 'yoco'").set_index("ipc_to")["mean"]
    text = page("results/cifar100")
    for said, numbers in (
        ("by {:.1f} points over CCS and by {:.1f} over YOCO", one["yoco+"] - one[["ccs", "yoco"]]),
        ("at IPC 2 by {:.1f} over YOCO", [two["yoco+"] - two["yoco"]]),
        ("behind CCS** by {:.1f} points at IPC 1", [one["ccs"] - one["yoco"]]),
        ("there, and {:.1f} points below the paper's", [yoco[1] - one["yoco"]]),
        (
            "ahead of SSP by {:.1f} points, of random pruning by {:.1f} and of CCS by {:.1f}",
            two["yoco"] - two[["ssp", "random", "ccs"]],
        ),
        ("and {:.1f} below the paper's", [yoco[2] - two["yoco"]]),
        ("first at IPC 2, by {:.1f} points over SSP", [two["yoco"] - two["ssp"]]),
    ):
        assert said.format(*numbers) in text
    assert one.idxmax() == two.idxmax() == "yoco+" and abs(one["ssp"] - one["yoco"]) < 0.1
    assert two.drop("yoco+").nlargest(2).index.tolist() == ["yoco", "ssp"]
    early = pd.read_csv(FIGURES / "cifar100/ncfm.easy_el2n.csv")["accuracy"]
    said = f"{mean_and_std(early)} %", f"{early.mean() - one['yoco']:.1f} points more than LBPE"
    assert all(text in page("results/cifar100") for text in said)


def test_what_the_hard_end_costs_on_cifar100_is_the_file():
    ours = pd.read_csv(FIGURES / document_tables.CIFAR100[0]).groupby(["ipc_to", "method"])
    means = ours["accuracy"].mean()
    theirs = paper.beside("cifar100", 10).set_index(["ipc_to", "method"])["mean"]
    hard, lost = ["aum", "el2n", "forgetting", "entropy"], []
    for found in (means, theirs):
        for ipc in (1, 2):
            less = found[ipc]["random"] - found[ipc][hard]
            lost.append(f"{less.min():.1f} to {less.max():.1f}")
    text = page("results/cifar100")
    assert f"{lost[0]} points against random pruning at IPC 1 and {lost[1]} at IPC 2." in text
    assert f"In the paper they lose {lost[2]} and {lost[3]}." in text


def test_the_sentence_on_where_yoco_plus_is_ahead_is_its_table():
    cells = [row.strip("| ").split(" | ") for row in document_tables.confirmed().splitlines()[2:]]
    leads = pd.DataFrame(
        [(row[1], float(row[4].split()[0])) for row in cells], columns=["ipc", "by"]
    )
    one = leads[leads.ipc == "1"].by
    assert len(one) == 8 and one.round().between(1, 3).sum() == 6
    assert one.nsmallest(2).abs().max() < 0.5  # "on a par"
    assert (leads.ipc != "1").sum() == 2  # the nested set, and CIFAR-100's one pair


def test_cifar10_s_sentences_are_the_files():
    order = tables.order_as_paper(pd.read_csv(FIGURES / "cifar10/beside_paper.csv")).spearman
    assert "by {:.2f}, {:.2f} and {:.2f} (Spearman".format(*order) in page("results/cifar10")
    flat = pd.read_csv(FIGURES / "ncfm/flat.even.csv").query("method == 'yoco'")
    ours = flat.groupby("ipc_to")["accuracy"].mean()
    theirs = paper.beside("cifar10", 10).query("method == 'yoco'").set_index("ipc_to")["mean"]
    below = (theirs - ours).round()
    assert f"YOCO is {below[1]:.0f} and {below[2]:.0f} points below" in page("results/cifar10")
    assert abs(ours[5] - theirs[5]) < 1  # "on a par"
    runs = pd.read_csv(FIGURES / "ncfm/flat.even.csv").query("ipc_to == 5")
    runs = runs.groupby(["condensation", "method"]).size()
    assert {*runs[runs < 3].index} == {("dream", "random")} and (runs > 1).all()
    rows = pd.read_csv(FIGURES / "ncfm/flat.even.csv").query("method != 'yoco+'")
    gaps = tables.paired(tables.with_sets_as_columns(rows, "ncfm")).set_index("method")
    assert (gaps["mean"] > 0).all() and gaps.groupby("ipc_to").size().tolist() == [8, 8, 8]
    close = gaps.query("ipc_to == 5")["mean"].loc[lambda lead: lead.round() <= 2]
    assert {*close.index} == {"random", "ssp", "ccs", "entropy"} and close.min() > 1


def test_sentences_on_ncfm_s_terms_are_the_file():
    found = pd.read_csv(FIGURES / "ncfm/terms.csv").set_index("protocol")
    last = found.query("seed == 0")["last"][["ncfm", "paper"]]
    worth = (found["best"] - found["last"]).groupby("protocol").mean()[["ncfm", "paper"]]
    text = page("results/cifar10")
    counted = "{:.1f} points after NCFM's training (two seeds), and {:.1f} after"
    assert "reaches {:.2f} instead of {:.2f} %".format(*last) in text
    assert counted.format(*worth) in text


def test_the_ablations_sentences_are_the_files():
    text = page("results/ablations")
    agreement = pd.read_csv(FIGURES / "cifar10/agreement.csv").groupby("score", sort=False)
    means = agreement["spearman"].mean().items()
    assert ", ".join(f"{name} {value:.2f}" for name, value in means) in text
    found = document_tables.sections(FIGURES / "cifar10/ablations.md")
    cells = re.findall(r"([\d.]+) ±", found["output"])
    assert "**Probabilities** give {:.1f}, raw **logits** {:.1f}".format(*map(float, cells)) in text
    cells = re.findall(r"([\d.]+) ±", found["record_on"].splitlines()[-1])
    assert "dynamics give {:.1f}, **clean** ones {:.1f}".format(*map(float, cells)) in text
    cells = [float(cell) for cell in re.findall(r"([\d.]+) ±", found["epochs_read"])]
    assert f"({min(cells):.1f} to {max(cells):.1f} over sixteen pairs)" in text and len(cells) == 16


def test_leads_at_100_classes_and_64_pixels_match_files():
    def smallest(path: str) -> pd.DataFrame:
        gaps = tables.paired(pd.read_csv(FIGURES / path))
        return gaps.loc[gaps.groupby("ipc_to")["mean"].idxmin()]

    for row in smallest("hundred/results.csv").itertuples():
        assert f"{row.mean:.2f} ± {row.std:.2f}" in page("results/cifar100")
    text = page("results/imagenet")
    for row in smallest("tiny10/table2.csv").itertuples():
        assert f"{row.mean:.2f} ± {row.std:.2f} over {row.method} (p = {row.p:.3g})" in text
    for _, part in pd.read_csv(FIGURES / "tiny10/condensation.csv").groupby("subset"):
        assert f"{mean_and_std(part.accuracy)} %" in text


def test_the_repairs_gains_are_the_file():
    gains = pd.read_csv(FIGURES / "noise/noise_gains.csv")
    chosen = gains[gains["method"].isin(noise.REPAIRS)].groupby("method")["mean"].mean()
    assert all(f"{rule} {gain:+.2f}" in page("results/noise") for rule, gain in chosen.items())


def test_performance_s_sentences_are_the_files():
    text, rows = page("performance"), bench.read(FIGURES / "bench/cpu.json")
    fast = [r["ratio"] for r in rows if r["precision"] == "bfloat16" and r["bfloat16"]]
    assert f"fast in bfloat16, yoco is {min(fast):.1f} to {max(fast):.1f} times as fast" in text
    for instructions, named in (("AVX512", "on a CPU with AVX-512"), ("AVX2", "on one that has")):
        of = [r for r in rows if (r["precision"], r["instructions"]) == ("float32", instructions)]
        ratios = [r["ratio"] for r in of]
        assert f"{min(ratios):.1f} to {max(ratios):.1f} times as fast {named}" in text
    assert f"fewer than {WORTH:,} images" in text


def test_the_gallery_is_there_and_its_calls_exist():
    gallery = page("explore").split("## Gallery")[1]
    shown = re.findall(r"!\[\]\(\.\./(figures/gallery/\w+\.png)\)", gallery)
    assert len(shown) >= 12 and all((ROOT / name).is_file() for name in shown)
    calls = re.findall(r"\) `(\w+)\(", gallery)
    assert len(calls) >= 12 and all(callable(getattr(plots, name)) for name in calls)
    notebook = (ROOT / "notebooks/07_gallery.ipynb").read_text().replace('\\"', '"')
    assert all(f'gallery / "{name}"' in notebook for name in calls)


def test_guarantees_name_a_test_each():
    rows = [
        line
        for line in page("guarantees").splitlines()
        if line.startswith("| ") and not line.startswith(("| promise", "| ---"))
    ]
    assert len(rows) >= 18 and all(re.search(r"`tests/[\w/]+\.py` \|$", row) for row in rows)


def test_citation_and_changelog_know_the_version_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    version = re.search(r'__version__ = "(.+?)"', (ROOT / "yoco/__init__.py").read_text())[1]
    assert citation["version"] == version and f"## [{version}]" in OTHERS["CHANGELOG.md"]
    assert citation["references"][0]["title"] in PAGES["README.md"]
    licence = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"]
    assert citation["license"] == licence


def test_the_site_builds(tmp_path):
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    pytest.importorskip("mkdocs_jupyter")
    pytest.importorskip("mkdocstrings")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path), strict=True))
    concepts = (tmp_path / "concepts/index.html").read_text("utf-8")
    assert "<math" in concepts and "figures/concept.png" in concepts
    assert "arithmatex" not in concepts


def test_sentences_on_the_small_last_batch_of_the_ncfm_block():
    keys = ["condensation", "method", "ipc_to", "dynamics"]
    small, even = (
        pd.read_csv(FIGURES / f"ncfm/flat.{kind}.csv").set_index(keys)["accuracy"]
        for kind in ("paper", "even")
    )
    cost = (even - small).dropna().groupby("ipc_to")
    least, most = cost.min(), cost.max()
    text = page("results/cifar10")
    assert f"At IPC 5, a small last batch costs {least[5]:.1f} to {most[5]:.1f} points" in text
    assert f"it costs {least[2]:.0f} to {most[2]:.1f} points" in text
    at = lambda ipc: small.xs(("ncfm", ipc, 0), level=["condensation", "ipc_to", "dynamics"])
    yoco = at(5)["yoco"]
    assert f"YOCO reaches {yoco:.2f} instead of {even['ncfm', 'yoco', 5, 0]:.2f} %" in text
    leads = (yoco - at(5).drop("yoco")).sort_values()
    assert [*leads.index[:2]] == ["yoco+", "ccs"] and leads.min() > 0
    theirs = paper.beside("cifar10", 10).query("method == 'yoco'").set_index("ipc_to")["mean"]
    told = f"by {leads['yoco+']:.1f} points over YOCO+ and {leads['ccs']:.1f} over CCS, and "
    assert told + f"{theirs[5] - yoco:.1f} points below the paper's" in text
    published = paper.beside("cifar10", 10).set_index(["ipc_to", "method"])["mean"][5]
    assert (at(5) - published)[["random", "ccs", "entropy"]].abs().max() < 1
    assert abs(at(2)["yoco+"] - at(2)["yoco"]) < 0.5  # "on a par"
    assert f"{theirs[2] - at(2)['yoco']:.1f} points below the paper's YOCO" in text
