"""Make the digits sets of the zoo: one per condensation method, and a nested one.

Each has its accuracy and dynamics. For the maintainers of yoco.

    # yoco/zoo_files/digits-<name>-ipc10.*; a name: a method, or "nested"
    python -m benchmarks.zoo [NAME …]
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from yoco import CondensedSet, condense, data, dynamics, evaluate, zoo
from yoco.condense.presets import SCALES
from yoco.dynamics import Dynamics

EPOCHS, SEEDS = 100, 5
RUNS = 2  # dynamics that ship with each set, for the seeds 0, 1, …
SCALE = SCALES["smoke"]
# the smoke presets, or longer if their steps are too few to gain anything
# a name in the zoo: the method that makes the set
SETS = {**{method: method for method in condense.METHODS}, "nested": "ncfm"}
# limit of a shipped file; CIFAR-100 at IPC 10 takes 3.1 MB with one byte per value
MOST_BYTES = 3_200_000
LONGER = {"dsa": {"outer_loops": 40}, "kip": {"iterations": 500}}


def publish(
    name: str,
    condensed: CondensedSet,
    accuracies: pd.DataFrame,
    evaluation: str,
    dynamics: Sequence[Dynamics] = (),
    folder: Path | None = None,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write a set into the package's zoo (or `folder`) with its measured accuracy.

    Args:
        name: name of the set, starting with the dataset.
        condensed: the set.
        accuracies: from `evaluate_many`, with the subsets "start" and "condensed".
        evaluation: how these were trained and tested.
        dynamics: recordings on this set to ship with it.
        folder: None for the package's own.
        dtype: of the images in the file, see `CondensedSet.save`.

    Returns:
        The set's path.

    Raises:
        ValueError: if dynamics are of another set, or a file would be too large.
    """
    if not all(recorded.of(condensed) for recorded in dynamics):
        raise ValueError("dynamics must be of the set to publish, but are of another one")
    grouped = accuracies.groupby("subset")["accuracy"]
    info = {
        "accuracy": round(grouped.mean()["condensed"], 2),
        "start_accuracy": round(grouped.mean()["start"], 2),
        "trainings": int(grouped.count()["condensed"]),
        "evaluation": evaluation,
    }
    if info["trainings"] > 1:
        info["accuracy_std"] = round(grouped.std()["condensed"], 2)
    folder = folder or zoo.FOLDER
    told = replace(condensed, info={**condensed.info, **info})
    paths = [told.save(folder / (name + zoo.SET), dtype)]
    paths += [
        recorded.save(folder / zoo.dynamics_file(name, recorded.info["seed"]), torch.float16)
        for recorded in dynamics
    ]
    for path in paths:
        if path.stat().st_size >= MOST_BYTES:
            path.unlink()
            raise ValueError(
                f"{path.name} would be {MOST_BYTES / 1e6:.1f} MB or larger, too large to ship"
            )
    return paths[0]


def main() -> None:
    real = data.load("digits")
    for name in sys.argv[1:] or SETS:
        method, settings = SETS[name], {"preset": "smoke", **LONGER.get(name, {})}
        condensed = condense.condense(
            real, method, device="cpu", nested=True if name == "nested" else None, **settings
        )
        subsets = {
            "start": condense.start_set(real, method, device="cpu", **settings).form(),
            "condensed": condensed.form(),
        }
        accuracies = evaluate.evaluate_many(
            subsets, real, epochs=EPOCHS, seeds=range(SEEDS), width=SCALE.width, device="cpu"
        )
        recording = {
            "epochs": SCALE.recorded,
            "width": SCALE.width,
            "batch_size": SCALE.batch_size,
            "device": "cpu",
        }
        runs = [dynamics.record(condensed, seed=seed, **recording) for seed in range(RUNS)]
        publish(
            f"digits-{name}-ipc10",
            condensed,
            accuracies,
            (f"ConvNet-D3 of width {SCALE.width}, {EPOCHS} epochs, last epoch"),
            runs,
        )
    columns = [
        "name",
        "method",
        "factor",
        "steps",
        "hours",
        "start_accuracy",
        "accuracy",
        "accuracy_std",
    ]
    print(zoo.table()[columns].to_string(index=False))


if __name__ == "__main__":
    main()
