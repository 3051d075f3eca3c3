"""Details of the published code that are options here, measured.

They are the images that condensation starts from, ImageNet's augmentation, NCFM's learned
frequencies, and how often NCFM calibrates.

    python -m benchmarks.details starts folder:~/.cache/yoco-data/cifar10
    python -m benchmarks.details sampler folder:~/.cache/yoco-data/cifar10
    python -m benchmarks.details step folder:~/.cache/yoco-data/cifar10
    python -m benchmarks.details augmentation folder:~/.cache/yoco-data/imagenette-128
"""

import argparse
import time
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from yoco import condense, data, evaluate
from yoco.condense.base import condensed_from, members_of, packed, start_choice
from yoco.experiments import tables
from yoco.utils import device as devices
from yoco.utils import seeds, tensor_files

SEEDS = (0, 1)


def starts(real: data.ImageData) -> pd.DataFrame:
    """CIFAR-10, IPC 10, factor 2, 1000 epochs: start from each class's first images or random ones.

    The published code takes the first ones.
    """
    chosen = {
        "first": torch.cat([members[:40] for members in members_of(real)]),
        "random": start_choice(real, 10, 2, seeds.generator(0)),
    }
    subsets = {
        name: condensed_from(packed(real, indices, 2), real, 10, 2, "real", {}).form()
        for name, indices in chosen.items()
    }
    return evaluate.evaluate_many(subsets, real, epochs=1000, seeds=SEEDS[:1], jobs=1)


def augmentation(real: data.ImageData) -> pd.DataFrame:
    """A packed start with either augmentation: 128 pixels, IPC 1, factor 3, 150 epochs.

    The network is a narrow ConvNet-D5.
    """
    subset = {"start": condense.real_set(real, 1, 3, 0).form()}
    options = {"epochs": 150, "seeds": SEEDS, "model": "convnet-d5-w16", "jobs": 1}
    return pd.concat(
        [
            evaluate.evaluate_many(subset, real, augmentation=name, **options)
            for name in ("dsa", "imagenet")
        ]
    )


def sampler(real: data.ImageData) -> pd.DataFrame:
    """CIFAR-10, IPC 1, factor 2, 400 steps of NCFM: normal frequencies, or a mixture of 16.

    The networks are trained for 20 epochs, or taken from runs/details/networks. 1000 epochs.
    """
    options: dict[str, Any] = {"iterations": 400, "pool_epochs": 20, "compiled": True}
    subsets = {
        f"sampler={count}": condense.condense(
            real, "ncfm", 1, sampler=count, expert_folder="runs/details/networks", **options
        ).form()
        for count in (0, 16)
    }
    return evaluate.evaluate_many(subsets, real, epochs=1000, seeds=range(3), jobs=1)


def step(real: data.ImageData) -> pd.DataFrame:
    """Seconds of an image step of NCFM's `laptop` preset at IPC 10, on one thread and on two.

    It calibrates at every step or at every other one. The time is the mean over about forty steps
    after ten, compiled, with a pool that is hardly trained.
    """
    rows = [
        (threads, every, *_step(real, threads, every)) for threads, every in product((1, 2), (1, 2))
    ]
    return pd.DataFrame(rows, columns=["threads", "calibrate_every", "steps", "seconds"]).round(3)


def _step(real: data.ImageData, threads: int, every: int) -> tuple[int, float]:
    """Return how many steps were timed, and the seconds of one."""
    seen: list[tuple[int, float]] = []
    options: dict[str, Any] = {
        "watch": lambda made: seen.append((made.info["steps"], time.perf_counter())),
        "iterations": 50,
        "calibrate_every": every,
        "pool_networks": 2,
        "pool_epochs": 1,
        "pool_images": 256,
    }
    with devices.threads(threads):
        condense.condense(real, "ncfm", 10, compiled=True, progress=False, **options)
    (first, began), (last, ended) = next(s for s in seen if s[0] >= 10), seen[-1]
    return last - first, (ended - began) / (last - first)


def step_table(measured: pd.DataFrame) -> str:
    """Return the seconds of `step` in Markdown, a row per number of threads."""
    found = measured.pivot(index="threads", columns="calibrate_every", values="seconds")
    names = {1: "calibrated at every step, s", 2: "at every other step, s"}
    return tables.markdown(found.rename(columns=names))


MEASURED = {"starts": starts, "augmentation": augmentation, "sampler": sampler, "step": step}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=MEASURED)
    parser.add_argument("dataset")
    parser.add_argument("--out", type=Path, default=Path("figures/details"))
    options = parser.parse_args()
    table = MEASURED[options.what](data.load(options.dataset))
    tensor_files.write_text(
        options.out / f"{options.what}.csv", table.round({"accuracy": 2}).to_csv(index=False)
    )
    print(table)


if __name__ == "__main__":
    main()
