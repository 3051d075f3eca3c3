"""The tables of the README and of docs/, each made from its file by one function of `TABLES`."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import (
    bench,
    budgets,
    details,
    imagenet1k,
    last_batch,
    ncfm_terms,
    parts,
    published,
    scale_check,
    two_rules,
)
from benchmarks.rules import RULES
from yoco import zoo
from yoco.experiments import noise, tables
from yoco.sets.condensed_set import CondensedSet
from yoco.workflow import parameters
from yoco.workflow.options import Described, shared

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "figures"


def _read(name: str) -> pd.DataFrame:
    return pd.read_csv(FIGURES / name)


def _by(function: Callable[..., str], *names: str) -> str:
    """The table that a function makes of files."""
    return function(*map(_read, names))


def _markdown(columns: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _mean(values: pd.Series) -> str:
    """Mean and standard deviation (of a sample) in %; the mean alone if there is one value."""
    return tables.cell(values.mean(), values.std())


def _best_in_bold(rows: list[list[str]], columns: Iterable[int]) -> list[list[str]]:
    """Rows of cells with the largest number of some columns in bold."""
    for column in columns:
        best = max(rows, key=lambda row: _number(row[column]))
        best[column] = f"**{best[column]}**"
    return rows


def _best_of_rows_in_bold(rows: list[list[str]], columns: Sequence[int]) -> list[list[str]]:
    """Rows of cells with the largest number of each in bold, among some columns."""
    for row in rows:
        best = max(columns, key=lambda column: _number(row[column]))
        row[best] = f"**{row[best]}**"
    return rows


def _number(cell: str) -> float:
    """The number at the beginning of a cell; minus infinity if there is none."""
    found = re.match(r"[-+]?[\d.]+", cell)
    return float(found[0]) if found else -math.inf


def _parsed(text: str) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a table in Markdown."""
    lines = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines()]
    return lines[0], lines[2:]


def sections(path: Path) -> dict[str, str]:
    """The tables of a file that a notebook wrote, by their headings."""
    parts = path.read_text(encoding="utf-8").removeprefix("## ").split("\n## ")
    return {name: text.strip() for name, text in (part.split("\n\n", 1) for part in parts)}


# paths in figures/ncfm/evaluations.csv
TRAINED_ON = {
    "nested/condensed.safetensors": "prefixes after the nested steps with equal weights",
    "nestedA/condensed.safetensors": "prefixes after 600 more steps with weights 1/k",
    "nestedB/condensed.safetensors": "prefixes after 900 more steps with weights 1/k",
    "greedy/condensed.safetensors": "after 1,000 more steps with `prefix_share=0`",
    "share02/condensed.safetensors": "after 1,000 more steps with `prefix_share=0.2`",
    "share05/condensed.safetensors": "after 700 more steps with `prefix_share=0.5`",
    budgets.NESTED: "prefixes of the zoo's nested set: after 800 more steps",
    "nestedF/condensed.safetensors": "prefixes after 900 more steps, for IPC 1, 2, 5 and 10 only",
    "flat/at-015min.safetensors": "the flat set after 714 of its 2,500 steps",
    "flatCal2/steps714.safetensors": "the same with `calibrate_every=2`",
    "flat/at-030min.safetensors": "the flat set after 1,591 of its 2,500 steps",
    "flat/condensed.safetensors": "the zoo's flat set",
    "flatC/condensed.safetensors": "the flat set after 700 more steps at lower learning rates",
    "flatD/condensed.safetensors": "the flat set after 800 more steps with networks of 20 epochs",
    "flat/start.safetensors": "the start of the flat set",
    "idc-from-ncfm.safetensors": "the flat set after 213 more steps, of IDC",
    "alone1/condensed.safetensors": "a set for IPC 1 alone",
    "alone2/condensed.safetensors": "a set for IPC 2 alone",
    "alone5/condensed.safetensors": "a set for IPC 5 alone",
    "zoo:cifar10-idc-ipc10": "for comparison: the zoo's IDC set",
    "zoo:cifar10-dream-ipc10": "for comparison: the zoo's DREAM set",
}


# The README and the zoo


def results() -> str:
    """Some of Table 2 from the NCFM set, the paper's YOCO, and the prefixes of the nested set."""
    results, condensed = _named(*FLAT)
    ours = tables.pivot(tables.summary(results))
    paper = tables.beside_paper(results, condensed).set_index(["ipc_to", "method"])["paper"]
    nested, shown = _evaluated(budgets.NESTED), ["random", "ccs", "yoco", "yoco+"]
    rows = [
        [str(ipc), *ours.loc[ipc, shown], _mean(nested[ipc]), f"{paper[ipc, 'yoco']:.2f}"]
        for ipc in ours.index
    ]
    return _markdown(
        ["IPC", *map(tables.title_of, shown), "Nested set", "YOCO in the paper"],
        _best_of_rows_in_bold(rows, range(1, len(shown) + 2)),
    )


def zoo_table() -> str:
    return _markdown(
        ["set", "steps", "hours", "start, %", "condensed, %", "epochs"],
        [
            [
                f"`{row.name}`",
                f"{row.steps:,}",
                f"{row.hours:.4f}",
                f"{row.start_accuracy:.2f}",
                tables.cell(row.accuracy, row.accuracy_std),
                re.search(r"(\d+) epochs", row.evaluation)[1],
            ]
            for row in zoo.table().itertuples(index=False)
        ],
    )


# Condensation


def kernels() -> str:
    return _markdown(
        ["kernel", "images", "forward, s", "forward and backward, s"],
        [
            (
                f"`{row.kernel}`",
                f"{row.side} × {row.side}",
                f"{row.forward_s:g}",
                f"{row.with_backward_s:g}",
            )
            for row in _read("bench/kernels.csv").itertuples()
        ],
    )


def image_step() -> str:
    rows = []
    for row in _read("cifar10/image_lr.csv").itertuples():
        losses = f"{row.first_loss} → {row.last_loss}" if row.steps else "–"
        named = {0: "none: the start", 0.005: "0.005 (paper)"}.get(row.image_lr, f"{row.image_lr}")
        rows.append((named, losses, f"{row.accuracy} %"))
    return _markdown(["pixel step size", "loss, first → last", "accuracy"], rows)


def loops() -> str:
    grouped = _read("cifar10/loops.csv").groupby(["method", "steps"])["accuracy"]
    steps = sorted({steps for _, steps in grouped.groups})
    return _markdown(
        ["image steps", *steps],
        [
            [method.upper(), *(_mean(grouped.get_group((method, count))) for count in steps)]
            for method in ("idc", "dream")
        ],
    )


def _evaluated(path: str) -> dict[int, pd.Series]:
    """Accuracies of the sets that NCFM made, by budget."""
    rows = _read("ncfm/evaluations.csv").query("path == @path")
    return dict(iter(rows.groupby("ipc")["accuracy"]))


def ncfm() -> str:
    budgets = (1, 2, 5, 10)
    rows = []
    for path, name in TRAINED_ON.items():
        found = _evaluated(path)
        rows.append([name, *(_mean(found[b]) if b in found else "" for b in budgets)])
    return _markdown(["trained on", *(f"IPC {budget}" for budget in budgets)], rows)


def ncfm_gpu() -> str:
    """Sets of NCFM that were trained on a GPU: the zoo's, and one made there in two minutes."""
    rows = []
    for batch, protocol in (("even", "even"), ("small", "paper")):
        found = _read(f"ncfm/flat.{protocol}.accuracy.csv")
        assert {*found["last_batch"]} == {batch}
        rows.append(["the zoo's flat set", batch, str(len(found)), _mean(found["accuracy"])])
    for row in _read("ncfm/short_gpu.csv").itertuples():
        made = f"made in {row.seconds:.0f} s, networks included ({row.steps:,} steps)"
        rows.append([made, row.last_batch, "1", f"{row.accuracy:.2f}"])
    return _markdown(["set", "last batch", "seeds", "accuracy, %"], rows)


def ncfm_50() -> str:
    """The set of IPC 50 and its start."""
    rows = _read("ncfm/ipc50.csv").groupby(["set", "steps", "epochs"], sort=False)["accuracy"]
    return _markdown(
        ["trained on", "steps", "epochs", "seeds", "accuracy, %"],
        [[*key, str(len(found)), _mean(found)] for key, found in rows],
    )


def rules() -> str:
    """Accuracy after pruning by each rule of `benchmarks.rules`, a column per set and budget."""
    found = _read("rules/rules.csv")
    names = ["zoo:cifar10-ncfm-ipc10", "zoo:cifar10-idc-ipc10"]
    found = found[found["set"].isin(names) & (found["epochs"] == parts.PART_EPOCHS)]
    columns = sorted(
        {*zip(found["set"], found["ipc"])}, key=lambda column: (names.index(column[0]), column[1])
    )
    cells = found.groupby(["rule", "set", "ipc"])["accuracy"].agg(_mean)
    rows = [
        [rule, *(cells.get((rule, *column), "") for column in columns)]
        for rule in RULES
        if rule in cells
    ]
    titles = [f"{name.split('-')[1].upper()}, IPC {ipc}" for name, ipc in columns]
    return _markdown(["rule", *titles], _best_in_bold(rows, range(1, len(columns) + 1)))


def rules_on_sets() -> str:
    """The two rules apart and together on sets of other methods, two columns per set."""
    found = _read("rules/two_rules.csv")
    named = found.assign(set=found["condensation"].map(str.upper))  # one set of each method
    columns, rows = _parsed(two_rules.table(named))
    return _markdown(columns, _best_in_bold(rows, range(1, len(columns))))


def confirmed() -> str:
    """YOCO and YOCO+ on sets that YOCO+ was not chosen on, paired by recorded run."""
    scores = {"LBPE": "yoco", "AUM of 100 epochs": "yoco+"}
    own = _read("rules/rules.csv").rename(columns={"rule": "method", "ipc": "ipc_to"})
    own = own[own["epochs"] == parts.PART_EPOCHS]
    own = own[~own["set"].isin(CHOSEN_ON)].replace({"method": scores})
    own = own.assign(set=own["set"].map(lambda name: parts.SETS[name][1]), dynamics=own["seed"])
    published = _read("rules/two_rules.csv").query("balanced and set not in @CHOSEN_ON")
    published = published.assign(set=published["set"].str.split("/").str[-1])
    other = _read(CIFAR100[0]).assign(set="CIFAR-100, NCFM, 300 steps")
    found = pd.concat([own, published, other])
    rows = []
    for name, part in found[found["method"].isin(scores.values())].groupby("set", sort=False):
        cells = tables.pivot(tables.summary(part.assign(precision="")))
        for gap in tables.paired(part, "yoco+").itertuples():
            rows.append(
                [name, gap.ipc_to, *cells.loc[gap.ipc_to, ["yoco", "yoco+"]]]
                + [tables.cell(gap.mean, gap.std, "+.2f"), f"{gap.wins} of {gap.n}"]
            )
    return _markdown(["set", "IPC", "YOCO", "YOCO+", "difference", "ahead in"], rows)


def cifar100() -> str:
    """Accuracy of CIFAR-100's set and of its start."""
    found = _read("cifar100/evaluations.csv")
    return _markdown(
        ["trained on", "steps", "epochs", "accuracy, %"],
        [
            [name, f"{steps:,}", epochs, _mean(part["accuracy"])]
            for (name, steps, epochs), part in found.groupby(["trained_on", "steps", "epochs"])
        ],
    )


def nested_rules() -> str:
    """Parts of the nested set: each rule's accuracy, and how much of its prefix it keeps."""
    found = _read("rules/rules.csv")
    nested = found["set"] == "zoo:cifar10-nested-ipc10"
    found = found[nested & (found["epochs"] == parts.PART_EPOCHS)]
    cells = found.groupby(["ipc", "rule"])
    budgets, names = sorted({*found["ipc"]}), [rule for rule in RULES if rule in {*found["rule"]}]
    rows = [
        [rule]
        + [
            text
            for part in (cells.get_group((ipc, rule)) for ipc in budgets)
            for text in (_mean(part["accuracy"]), f"{100 * part['in_prefix'].mean():.0f}")
        ]
        for rule in names
    ]
    titles = [title for ipc in budgets for title in (f"IPC {ipc}", "in the prefix, %")]
    return _markdown(["rule", *titles], _best_in_bold(rows, range(1, len(titles), 2)))


def every_budget() -> str:
    """Accuracy of one set for every budget and of a set for each, a column per budget."""
    found = budgets.table(_read("ncfm/evaluations.csv"), _read(FLAT[0]))
    cells = found.groupby(["way", "ipc"])["accuracy"].agg(_mean)
    rows = [[way, *(cells.get((way, ipc), "") for ipc in budgets.BUDGETS)] for way in budgets.WAYS]
    titles = [f"IPC {ipc}<br>{ipc * budgets.PIXELS:,} bytes" for ipc in budgets.BUDGETS]
    return _markdown(["images", *titles], _best_in_bold(rows, range(1, len(titles) + 1)))


def by_bytes() -> str:
    rows = _read("cifar10/by_bytes.csv")
    grouped = rows.groupby(["stored", "per_class"])
    counts = sorted(rows.per_class.unique())
    return _markdown(
        ["stored as", *(f"IPC {count // 4}" for count in counts)],
        [
            [
                stored,
                *(
                    f"{_mean(part.accuracy)}<br>{part.bytes.iloc[0]:,} bytes"
                    for part in (grouped.get_group((stored, count)) for count in counts)
                ),
            ]
            for stored in ("uint8", "float32")
        ],
    )


# Results


def last_batches() -> str:
    return tables.markdown(last_batch.compared(_read("bench/last_batch.csv")))


def start_and_set() -> str:
    grouped = _read("cifar10/condensation.csv").groupby("subset")["accuracy"]
    return _markdown(
        ["trained on", "accuracy, %"],
        [
            ("the start", _mean(grouped.get_group("start"))),
            ("the condensed set", _mean(grouped.get_group("condensed"))),
        ],
    )


def _named(file: str, name: str) -> tuple[pd.DataFrame, CondensedSet]:
    """The rows of a block of Table 2, with methods named as there, and the set of the zoo."""
    condensed = zoo.load(name)
    return tables.with_sets_as_columns(_read(file), condensed.method), condensed


def _block(file: str, name: str) -> str:
    """A block of Table 2, from one row per training run: ours, the paper's, the difference."""
    results, condensed = _named(file, name)
    beside = tables.beside_paper(results, condensed)
    found = tables.table2(beside, tables.summary(results)).fillna("–")
    _, rows = _parsed(tables.markdown(found))
    titles = [
        title for ipc in sorted({*results["ipc_to"]}) for title in (f"IPC {ipc}", "paper (Δ)")
    ]
    return _markdown(["method", *titles], _best_in_bold(rows, range(1, len(titles), 2)))


def _leads(file: str, name: str) -> str:
    """YOCO's smallest leads over the paper's other methods, then YOCO+'s over all."""
    results, _ = _named(file, name)
    papers = results[results["method"] != "yoco+"]
    lines = tables.verdict(tables.paired(papers)).splitlines()
    if len(papers) < len(results):
        lines += tables.verdict(tables.paired(results, "yoco+"), "YOCO+").splitlines()
    return "\n".join(f"- {line}." for line in lines)


def _ablation(name: str, first: str) -> str:
    """A table of the ablations without the budget, which is 1 in all of them."""
    columns, rows = _parsed(sections(FIGURES / "cifar10/ablations.md")[name])
    assert {row[0] for row in rows} == {"1"}
    titled = [[tables.title_of(row[1]), *row[2:]] for row in rows]
    best = _best_of_rows_in_bold(titled, range(1, len(titled[0])))
    return _markdown([first, *columns[2:]], best)


def _study(name: str, best: Iterable[int]) -> str:
    columns, rows = _parsed((FIGURES / name).read_text(encoding="utf-8"))
    titled = [[tables.title_of(row[0]), *row[1:]] for row in rows]
    return _markdown(columns, _best_in_bold(titled, best))


def _noise(section: str) -> str:
    return sections(FIGURES / "noise/noise.md")[section].replace(
        "class_dependent", "class-dependent"
    )


def _noise_means(section: str) -> str:
    """A table about noise without the spread."""
    columns, rows = _parsed(_noise(section))
    short = [[row[0], *(f"{float(cell.split()[0]):.1f}" for cell in row[1:])] for row in rows]
    return _markdown(columns, short)


def _rules_by(
    found: pd.DataFrame, columns: pd.Series, values: str, shown: Callable[[pd.Series], str]
) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of a table with a row per pruning rule."""
    wide = found.groupby(["method", columns.rename("column")], sort=False)[values].agg(shown)
    wide = wide.unstack(sort=False)
    rows = [[tables.title_of(row[0]), *row[1:]] for row in wide.itertuples()]
    return ["rule", *wide.columns], rows


def _noise_ncfm(ipc: int) -> str:
    """Accuracy after pruning the damaged NCFM sets to a budget."""
    found = _read("noise/ncfm.csv").query("ipc_to == @ipc").dropna(subset="accuracy")
    columns, rows = _rules_by(found, found["kind"].str.replace("_", "-"), "accuracy", _mean)
    return _markdown(columns, _best_in_bold(rows, range(1, len(columns))))


def noise_ncfm_kept() -> str:
    """The damaged share of what is kept of the damaged NCFM sets."""
    found = _read("noise/ncfm.csv")
    found = found[found["kind"] != noise.CLEAN]
    named = found["kind"].str.replace("_", "-") + ", IPC " + found["ipc_to"].astype(str)
    mean = lambda shares: f"{shares.mean():.1f}"
    return _markdown(*_rules_by(found, named, "precision", mean))


def noise_ncfm_detection() -> str:
    """How well each score finds the damage of the NCFM set: the area under the ROC curve."""
    found = _read("noise/ncfm_detection.csv")
    titled = found.assign(damage=found["kind"].str.replace("_", "-"))
    wide = titled.pivot_table("auc", "score", "damage", sort=False)
    cells = [
        [tables.title_of(row[0]), *(f"{auc:.2f}" for auc in row[1:])] for row in wide.itertuples()
    ]
    return _markdown(["score", *wide.columns], cells)


# Performance


def _machine(row: Mapping[str, Any]) -> str:
    """Where a row of the benchmark was measured."""
    maker = "EPYC" if "EPYC" in row["processor"] else "Xeon"
    threads = f"{row['threads']} thread{'s' * (row['threads'] > 1)}"
    without_amx = row["instructions"] == "AVX512" and not row["bfloat16"]
    return f"{maker}, {row['instructions']}{' without AMX' * without_amx}, {threads}"


def _costs(precision: str) -> str:
    """The benchmark's rows in one precision."""
    columns = ("case", "machine", "literal, s", "ours, s", "ratio", "share of the limit")
    rows = [row for row in bench.read(FIGURES / "bench/cpu.json") if row["precision"] == precision]
    return _markdown(
        [*columns, "first run, s", "literal, MB", "ours, MB", "measured"],
        [
            [
                f"`{row['name']}`",
                _machine(row),
                f"{row['literal_s']:.2f}",
                f"{row['ours_s']:.2f}",
                f"{row['ratio']:.2f}×",
                f"{row['share']:.2f}" if "share" in row else "–",
                # by the wall clock, whatever else a shared machine did
                f"{row['first_s']:.1f}" if row["threads"] > 1 else "–",
                f"{row['literal_mb']:,.0f}",
                f"{row['ours_mb']:,.0f}",
                row["measured"],
            ]
            for row in rows
        ],
    )


def costs_gpu() -> str:
    """The benchmark's rows on a GPU."""
    rows = bench.read(FIGURES / "bench/gpu.json")
    return _markdown(
        ["case", "precision", "literal, s", "ours, s", "ratio", "share of the limit", "measured"],
        [
            [
                f"`{row['name']}`",
                row["precision"],
                *(f"{row[side]:.3f}" for side in ("literal_s", "ours_s")),
                f"{row['ratio']:.2f}×",
                f"{row['share']:.2f}",
                f"{row['measured']}, `{row['code']}`",
            ]
            for row in rows
        ],
    )


def gpu_steps() -> str:
    """What single steps took on a GPU, by code and layers."""
    rows = _read("bench/gpu_steps.csv").itertuples()
    shown = lambda ms: f"{ms:,.0f}" if ms >= 100 else f"{ms:.2f}"
    told = [[row.step, row.layers, f"`{row.code}`", shown(row.ms)] for row in rows]
    return _markdown(["step", "layers", "code", "ms"], told)


def precision() -> str:
    grouped = _read("bench/agreement.csv").groupby(["what", "way"], sort=False)["accuracy"]
    seeds = grouped.size()
    ways = ("literal", "ours, float32", "ours, bfloat16, compiled")
    rows = []
    for what in dict.fromkeys(what for what, _ in grouped.groups):
        cells = {way: _mean(grouped.get_group((what, way))) for way in seeds[what].index}
        name = f"{what} ({seeds[what].max()} seeds)"
        rows.append([name, *(cells.get(way, "–") for way in ways)])
    return _markdown(["work", *ways], rows)


def imagenet1k_facts() -> str:
    work = imagenet1k.known_work(FIGURES / "bench")
    return imagenet1k.facts(_read("bench/imagenet1k.csv"), work, _read("bench/costs.csv"))


# Parameters


def all_parameters() -> str:
    """The parameters of all notebooks: those that all share, then what each has besides."""
    told = parameters.described()
    first, names = next(iter(told.values())), shared()
    common = [row for row in first if row.name in names]
    own = {name: [row for row in rows if row not in common] for name, rows in told.items()}
    return "\n\n".join(
        [
            f"## All notebooks\n\n{_parameters(common)}",
            *(f"## {name}\n\n{_parameters(rows)}" for name, rows in own.items() if rows),
        ]
    )


def _parameters(rows: list[Described]) -> str:
    return _markdown(
        ["parameter", "type", "default", "meaning"],
        [(f"`{row.name}`", row.type, row.default, row.meaning) for row in rows],
    )


# blocks of Table 2: rows, and the set of the zoo that was pruned
IDC = "cifar10/table2.csv", "cifar10-idc-ipc10"
FLAT = "ncfm/flat.even.csv", "cifar10-ncfm-ipc10"
FLAT_PAPER = "ncfm/flat.paper.csv", "cifar10-ncfm-ipc10"
CIFAR100 = "cifar100/ncfm.even.csv", "cifar100-ncfm-ipc10"
CHOSEN_ON = ("zoo:cifar10-ncfm-ipc10", "zoo:cifar10-idc-ipc10")  # where YOCO+'s score was found

TABLES: dict[str, Callable[[], str]] = {
    "results": results,
    "zoo": zoo_table,
    "kernels": kernels,
    "image-step": image_step,
    "loops": loops,
    "ncfm": ncfm,
    "ncfm-gpu": ncfm_gpu,
    "ncfm-50": ncfm_50,
    "rules": rules,
    "two-rules": rules_on_sets,
    "confirmed": confirmed,
    "ncfm-terms": partial(_by, ncfm_terms.table, "ncfm/terms.csv"),
    "parts": partial(
        _by, parts.markdown, "rules/rules.csv", "ncfm/evaluations.csv", "rules/rest.csv"
    ),
    "nested-rules": nested_rules,
    "budgets": every_budget,
    "ncfm-step": partial(_by, details.step_table, "details/step.csv"),
    "bytes": by_bytes,
    "published": partial(_by, published.table, "published/accuracies.csv"),
    "last-batch": last_batches,
    "start-and-set": start_and_set,
    "table2": partial(_block, *IDC),
    "leads": partial(_leads, *IDC),
    "table2-ncfm": partial(_block, *FLAT),
    "leads-ncfm": partial(_leads, *FLAT),
    "table2-ncfm-paper": partial(_block, *FLAT_PAPER),
    "ablation-rules": partial(_ablation, "rules", "method"),
    "ablation-epochs": partial(_ablation, "epochs_read", "K"),
    "ablation-condensation": partial(_ablation, "condensation", "condensed by"),
    "ablation-network": partial(_ablation, "network", "network"),
    "cifar100": cifar100,
    "table2-cifar100": partial(_block, *CIFAR100),
    "hundred": partial(_study, "hundred/table.md", (1, 2, 3)),
    "tiny10": partial(_study, "tiny10/table.md", (1, 2)),
    "noise-kept": partial(_noise_means, "precision"),
    "noise-accuracy": partial(_noise_means, "accuracy"),
    "noise-kept-in-full": partial(_noise, "precision"),
    "noise-ncfm-1": partial(_noise_ncfm, 1),
    "noise-ncfm-5": partial(_noise_ncfm, 5),
    "noise-ncfm-kept": noise_ncfm_kept,
    "noise-ncfm-detection": noise_ncfm_detection,
    "noise-accuracy-in-full": partial(_noise, "accuracy"),
    "costs": partial(_costs, "bfloat16"),
    "costs-float32": partial(_costs, "float32"),
    "costs-gpu": costs_gpu,
    "gpu-steps": gpu_steps,
    "precision": precision,
    "imagenet1k": partial(_by, imagenet1k.table, "bench/imagenet1k.csv"),
    "imagenet1k-facts": imagenet1k_facts,
    "imagenet1k-check": partial(_by, scale_check.table, "bench/scale_check.csv"),
    "imagenet1k-costs": partial(_by, imagenet1k.cost_table, "bench/costs.csv"),
    "imagenet1k-work": partial(_by, imagenet1k.work_table, "bench/work.csv"),
    "parameters": all_parameters,
}
