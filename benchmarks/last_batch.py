"""What a small last batch costs: training with even batches and with a small last one.

The data are parts of a condensed set.

    python -m benchmarks.last_batch folder:PATH zoo:cifar10-ncfm-ipc10

Writes figures/bench/last_batch.csv, one row per training run as it ends, and last_batch.png. A
second start trains what the table lacks; `--most N` stops after N training runs.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.axes import Axes

from yoco import data, evaluate, plots, workflow
from yoco.data import ImageData
from yoco.experiments import tables
from yoco.plots import style
from yoco.sets.condensed_set import CondensedSet
from yoco.training.protocol import LAST_BATCHES, Protocol
from yoco.utils import device as devices
from yoco.utils import tensor_files

# the last few are close to whole batches
IMAGES = (40, 60, 65, 80, 100, 129, 130, 160, 200, 260, 300, 400, 66, 72, 257, 321)
# what distinguishes a training from the others
KEY = ["set", "images", "last_batch", "seed", "epochs", "precision"]
LOOKS = {
    "even": ("split evenly (default)", plots.KEPT, "o"),
    "small": (("small last batch (as published)"), plots.DROPPED, "X"),
}


def part(condensed: CondensedSet, count: int) -> torch.Tensor:
    """Return the indices of the first formed images of each class, int64 [count].

    Each class has as many as `count` allows.
    """
    per_class = len(condensed.formed_labels) // len(condensed.classes)
    return torch.arange(len(condensed.formed_labels)).view(-1, per_class).T.flatten()[:count]


def smallest(count: int, last_batch: str, batch_size: int) -> int:
    """Return the number of images in the smallest batch of an epoch."""
    return (
        count // -(-count // batch_size) if last_batch == "even" else (count - 1) % batch_size + 1
    )


def plan(
    condensed: CondensedSet, epochs: int, seeds: int
) -> tuple[list[evaluate.Training], list[dict[str, Any]]]:
    """Return the training runs, and the columns of each.

    Settings whose batches are all full are the same in both ways and are trained once.
    """
    images, labels = condensed.form()
    work, rows = [], []
    precision = devices.choose_precision("auto", devices.choose())
    for seed in range(seeds):
        for count in IMAGES:
            chosen = part(condensed, count)
            for last_batch in LAST_BATCHES:
                protocol = Protocol(epochs, last_batch=last_batch)
                least = smallest(count, last_batch, protocol.batch_size)
                if last_batch == "small" and least == min(count, protocol.batch_size):
                    continue
                work.append(evaluate.Training(images[chosen], labels[chosen], seed, protocol))
                values = condensed.fingerprint, count, last_batch, seed, epochs, precision
                rows.append({**dict(zip(KEY, values)), "smallest_batch": least})
    return work, rows


def measured(
    condensed: CondensedSet, real: ImageData, path: Path, epochs: int, seeds: int, most: int | None
) -> pd.DataFrame:
    """Return the table at `path` after at most `most` further training runs."""
    work, rows = plan(condensed, epochs, seeds)
    done = pd.read_csv(path).to_dict("records") if path.exists() else []
    known = {tuple(row[name] for name in KEY) for row in done}
    missing = [
        number for number, row in enumerate(rows) if tuple(row[name] for name in KEY) not in known
    ]
    began = time.process_time()
    for number, accuracy in (
        evaluate.accuracies(work, real, only=missing[:most], jobs=1) if missing else ()
    ):
        done.append(
            {
                **rows[number],
                "accuracy": round(accuracy, 2),
                "cpu_seconds": round(time.process_time() - began, 1),
            }
        )
        began = time.process_time()
        tensor_files.write_text(path, pd.DataFrame(done).sort_values(KEY).to_csv(index=False))
    print(f"{len(done)} runs in {path}, {max(0, len(missing) - (most or len(missing)))} missing")
    return pd.DataFrame(done)


def compared(table: pd.DataFrame) -> pd.DataFrame:
    """Return the accuracies of both ways, mean ± standard deviation, if the ways differ.

    The index has the number of images and that in the last batch.
    """
    small = table[table.last_batch == "small"].groupby("images").smallest_batch.first()
    both = table[table.images.isin(small.index)].sort_values("images")
    named = both.assign(
        last_batch=both.last_batch.map({"small": "small last batch", "even": "split evenly"}),
        rest=both.images.map(small),
    )
    wide = tables.spread(
        named.rename(columns={"rest": "last batch of"}), ["images", "last batch of"], "last_batch"
    )
    # a call that stopped early may have one way alone
    return wide.reindex(columns=["small last batch", "split evenly"])


def draw(table: pd.DataFrame) -> Axes:
    """Draw accuracy against the number of images in both ways.

    The points of the published way are labelled with the size of the last batch.
    """
    ax = style.axes(8, 4)
    whole = table[~table.images.isin(table.images[table.last_batch == "small"])]
    both = {
        "even": table[table.last_batch == "even"],
        "small": pd.concat([table[table.last_batch == "small"], whole]),
    }
    for last_batch, (label, colour, marker) in LOOKS.items():
        ax.plot(
            both[last_batch].images,
            both[last_batch].accuracy,
            marker,
            color=colour,
            alpha=0.35,
            ms=style.scaled(4),
        )
        means = (
            both[last_batch].groupby("images").agg({"accuracy": "mean", "smallest_batch": "first"})
        )
        ax.plot(means.index, means.accuracy, f"{marker}-", color=colour, label=label)
    for count, accuracy, rest in means[~means.index.isin(whole.images)].itertuples():
        shift = {
            "xytext": (0, style.scaled(-6)),
            "textcoords": "offset points",
            "ha": "center",
            "va": "top",
        }
        ax.annotate(str(rest), (count, accuracy), **shift, fontsize="x-small", color=plots.DROPPED)
    ax.plot([], [], " ", label="numbers: images in the last batch")
    ax.set(xlabel="images trained on", ylabel="test accuracy (%)")
    ax.legend(frameon=False, fontsize="small", loc="lower right")
    return ax


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset")
    parser.add_argument(
        "condensed", help="a set whose formed images are trained on: a file, or zoo:NAME"
    )
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument(
        "--most", type=int, help="training runs in this call (default: all that are missing)"
    )
    parser.add_argument("--out", type=Path, default=Path("figures/bench"))
    options = parser.parse_args(arguments)
    condensed = workflow.load_set(options.condensed)
    # as the set was made
    real = replace(data.load(options.dataset), mean=condensed.mean, std=condensed.std)
    if real.classes != condensed.classes:
        raise ValueError(
            f"dataset must have the set's classes, {condensed.classes}, got {real.classes}"
        )
    table = measured(
        condensed, real, options.out / "last_batch.csv", options.epochs, options.seeds, options.most
    )
    print(tables.markdown(compared(table)))
    plots.use_style()
    plots.save(draw(table), options.out / "last_batch.png")


if __name__ == "__main__":
    main()
