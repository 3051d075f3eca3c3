"""Accuracy against the processor time of condensing, for each method: CIFAR-10, IPC 10.

    # trains and tests
    python -m benchmarks.condensing_time runs/ncfm --dataset folder:PATH --seeds 3
    # only draws
    python -m benchmarks.condensing_time runs/ncfm

figures/ncfm/snapshots.csv lists snapshots of sets: path (in the given folder, or zoo:NAME), method,
minutes on one core (including the networks of a pool), steps. The folder's results.csv holds the
accuracies, one line per training run, without a header: path, steps, ipc, seed, epochs, accuracy,
cpu_seconds. Missing ones are trained if a dataset is given. Writes accuracy_by_time.csv and .png
beside the snapshots, together with the sets of figures/cifar10/loops.csv, which were tested after
100 epochs.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from yoco import data, evaluate, plots, workflow, zoo
from yoco.data import ImageData
from yoco.experiments.tables import title_of
from yoco.plots import style
from yoco.sets.condensed_set import CondensedSet
from yoco.training.protocol import Protocol
from yoco.utils import tensor_files

LOOPS = Path("figures/cifar10/loops.csv")
RESULTS = ["path", "steps", "ipc", "seed", "epochs", "accuracy", "cpu_seconds"]
KEYS = ["method", "minutes", "steps", "epochs", "seed"]


def load(path: str, folder: Path) -> CondensedSet:
    return workflow.load_set(
        path if path.startswith(zoo.PREFIX) else str((folder / path).absolute())
    )


def read_results(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, names=RESULTS) if path.exists() else pd.DataFrame(columns=RESULTS)


def measure(
    snapshots: pd.DataFrame, folder: Path, real: ImageData, epochs: int, seeds: int
) -> None:
    """Train on every snapshot with every seed, and append what is missing to results.csv."""
    results = folder / "results.csv"
    known = set(
        read_results(results)[["path", "ipc", "seed", "epochs"]].itertuples(index=False, name=None)
    )
    sets = {path: load(path, folder) for path in snapshots.path.unique()}
    wanted = list(product(range(seeds), sets))
    work = [evaluate.Training(*sets[path].form(), seed, Protocol(epochs)) for seed, path in wanted]
    missing = [
        number
        for number, (seed, path) in enumerate(wanted)
        if (path, sets[path].ipc, seed, epochs) not in known
    ]
    real, began = replace(real, mean=data.CIFAR_MEAN, std=data.CIFAR_STD), time.process_time()
    for number, accuracy in (
        evaluate.accuracies(work, real, only=missing, jobs=1) if missing else ()
    ):
        seed, path = wanted[number]
        steps = snapshots.steps[snapshots.path == path].iloc[0]
        with results.open("a") as file:
            print(
                path,
                steps,
                sets[path].ipc,
                seed,
                epochs,
                round(accuracy, 2),
                round(time.process_time() - began),
                sep=",",
                file=file,
            )
        began = time.process_time()


def table(snapshots: pd.DataFrame, results: pd.DataFrame, loops: pd.DataFrame) -> pd.DataFrame:
    """Return the accuracies of whole sets with their method and minutes.

    Those of `loops`, whose seconds are on one core, are included.
    """
    whole = results[results.ipc == results.groupby("path").ipc.transform("max")]
    made = snapshots.merge(whole.drop(columns="steps"), on="path")
    return pd.concat([made, loops.assign(minutes=(loops.seconds / 60).round(1))])[
        [*KEYS, "accuracy"]
    ].sort_values(KEYS, ignore_index=True)


def draw(found: pd.DataFrame) -> Axes:
    """Draw mean accuracy against minutes, one line per method.

    Sets tested after fewer epochs are dashed and hollow.
    """
    ax = style.axes(8, 4.2)
    colours = dict(zip(found.method.unique(), (style.PALETTE[2], plots.DROPPED, plots.KEPT)))
    for (method, epochs), rows in found.groupby(["method", "epochs"], sort=False):
        accuracy, less = (
            rows.groupby("minutes").accuracy.agg(["mean", "std"]),
            epochs < found.epochs.max(),
        )
        look = {
            "color": colours[method],
            "marker": "o",
            **({"mfc": "white", "ls": "--"} if less else {}),
        }
        label = f"{title_of(method)}, {epochs} epochs"
        ax.errorbar(
            accuracy.index,
            accuracy["mean"],
            accuracy["std"].fillna(0),
            capsize=2,
            label=label,
            **look,
        )
    ax.set(
        xlabel="minutes of one core, networks of the pool included",
        ylabel="test accuracy (%)",
        xlim=(0, None),
    )
    ax.legend(frameon=False, fontsize="small")
    return ax


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="of the snapshots and results.csv")
    parser.add_argument("--snapshots", type=Path, default=Path("figures/ncfm/snapshots.csv"))
    parser.add_argument("--dataset", help="train what is missing, and test it on this dataset")
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(arguments)
    snapshots = pd.read_csv(options.snapshots)
    if options.dataset:
        measure(
            snapshots, options.folder, data.load(options.dataset), options.epochs, options.seeds
        )
    found = table(snapshots, read_results(options.folder / "results.csv"), pd.read_csv(LOOPS))
    out = options.snapshots.with_name("accuracy_by_time.csv")
    tensor_files.write_text(out, found.to_csv(index=False))
    plots.use_style()
    plots.save(draw(found), out.with_suffix(".png"))
    print(found.groupby(KEYS[:-1])["accuracy"].agg(["mean", "std", "count"]).round(2))


if __name__ == "__main__":
    main()
