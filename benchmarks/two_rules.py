"""The paper's two rules apart and together, on the sets of several condensation methods.

    python -m benchmarks.two_rules folder:PATH zoo:cifar10-ncfm-ipc10 published/mtt-cifar10-ipc10

Every set is pruned to IPC 1 at random and by each score that needs only the first epochs, always
at its easy end, with and without balanced classes. Writes figures/rules/two_rules.csv, one row per
training run. Recorded runs (the first 100 of 1000 epochs) and finished trainings are kept in
`--runs`.
"""

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pandas as pd

from benchmarks.rules import recorded
from yoco import data, workflow
from yoco.experiments import study, tables
from yoco.sets.condensed_set import CondensedSet
from yoco.utils import tensor_files

METHODS = ("random", "el2n", "yoco", "yoco+")
BALANCE = {False: "unbalanced", True: "balanced"}
EPOCHS, EARLY = 300, 100  # of training; recorded, of 1000


def measure(name: str, real: data.ImageData, seeds: Sequence[int], folder: Path) -> pd.DataFrame:
    """Prune one set to IPC 1 by every rule, train, and return the rows.

    folder: where recorded runs and finished trainings are kept.
    """
    published = Path(name).is_dir()
    condensed = CondensedSet.from_published(name) if published else workflow.load_set(name)
    variants = [
        {"method": method, "keep": "easy", "balanced": balanced}
        for method, balanced in product(METHODS, BALANCE)
    ]
    cells = study.grid(
        condensed,
        [recorded(condensed, seed, EARLY, folder) for seed in seeds],
        variants,
        ipc_to=[1],
        epochs=EPOCHS,
        labels={"set": name},
        compiled=True,
    )
    return study.train(cells, real, results=folder / "two_rules-results.csv", jobs=1)


def table(rows: pd.DataFrame) -> str:
    """Return accuracies as Markdown: a row per rule, two columns per set."""
    short = rows["set"].str.split("[:/]").str[-1]
    column = short + ", " + rows["balanced"].map(BALANCE)
    named = rows.assign(column=column, rule=rows["method"].map(tables.title_of))
    return tables.markdown(tables.spread(named, "rule", "column"))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset")
    parser.add_argument("sets", nargs="+", help="files, folders of published sets, or zoo:NAME")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs/rules"))
    parser.add_argument("--out", type=Path, default=Path("figures/rules/two_rules.csv"))
    options = parser.parse_args(arguments)
    real = data.load(options.dataset)
    options.runs.mkdir(parents=True, exist_ok=True)
    for name in options.sets:
        rows = measure(name, real, range(options.seeds), options.runs)
        if options.out.exists():
            earlier = pd.read_csv(options.out)
            rows = pd.concat([earlier[earlier["set"] != name], rows], ignore_index=True)
        tensor_files.write_text(options.out, rows.to_csv(index=False))
        print(rows.groupby(["set", "method", "balanced"])["accuracy"].agg(["mean", "std", "count"]))


if __name__ == "__main__":
    main()
