"""Does DREAM need fewer image steps than IDC for the same accuracy?

Sets after equally many steps of each method are trained on and tested.

    # figures/cifar10/loops.csv and loops.png
    python -m benchmarks.loops folder:~/.cache/yoco-data/cifar10-jpeg

The two methods run side by side, each in a process with one thread. Finished work is kept in
--runs, and a second start resumes it.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import torch

from benchmarks.zoo import publish
from yoco import condense, data, evaluate, plots
from yoco.condense.base import condensed_from
from yoco.data import ImageData
from yoco.parallel import pool
from yoco.sets.condensed_set import CondensedSet
from yoco.training import resumable
from yoco.utils import device as devices
from yoco.utils import seeds, tensor_files

METHODS = ("idc", "dream")
# image steps after which a set is kept; a fresh network every 50
MARKS = (0, 25, 50, 100, 150, 200)


def sets_of(real: ImageData, method: str, folder: Path) -> dict[int, Path]:
    """Yield a set after each of `MARKS` steps of the laptop preset, from one run.

    The checkpoint stores the position.
    """
    cpu = torch.device("cpu")
    chosen = condense.METHODS[method].settings_for("laptop", real.size, 10, {})
    precision = devices.choose_precision("auto", cpu)
    stepper = condense.METHODS[method].stepper(
        real, 10, 2, chosen, seeds.generator(0), cpu, precision, devices.can_compile(cpu)
    )
    identity = {
        "method": method,
        "dataset": real.name,
        "preset": "laptop",
        "settings": chosen.record(),
        "seed": 0,
        "precision": precision,
    }
    kept = {steps: folder / f"{method}-{steps}.safetensors" for steps in MARKS}
    for steps, path in kept.items():
        if path.exists():
            continue
        history = resumable.run(
            stepper,
            steps,
            identity,
            checkpoint=folder / f"{method}.checkpoint.safetensors",
            progress=False,
        )
        condensed_from(stepper.images, real, 10, 2, method, {**identity, **history}).save(path)
        print(f"{method}: {steps} steps in {history['seconds']} s", flush=True)
    return kept


def measured(
    sets: dict[tuple[str, int], Path], real: ImageData, epochs: int, networks: int
) -> pd.DataFrame:
    loaded = {key: CondensedSet.load(path) for key, path in sets.items()}
    table = evaluate.evaluate_many(
        {key: made.form() for key, made in loaded.items()},
        real,
        epochs=epochs,
        seeds=range(networks),
    )
    names = pd.DataFrame(table.pop("subset").tolist(), columns=["method", "steps"])
    seconds = [loaded[key].info["seconds"] for key in names.itertuples(index=False, name=None)]
    return pd.concat(
        [names.assign(seconds=seconds, epochs=epochs), table.round({"accuracy": 2})], axis=1
    )


def draw(table: pd.DataFrame) -> plt.Figure:
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True, layout="constrained")
    for ax, x, label in (
        (axes[0], "steps", "image steps"),
        (axes[1], "seconds", ("seconds of condensing, one core")),
    ):
        sns.lineplot(
            table,
            x=x,
            y="accuracy",
            hue="method",
            style="method",
            markers=True,
            errorbar="sd",
            ax=ax,
        )
        ax.set(xlabel=label, ylabel="test accuracy (%)")
        ax.legend(title=None)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("runs/loops"))
    parser.add_argument("--out", type=Path, default=Path("figures/cifar10"))
    parser.add_argument("--publish", action="store_true", help="DREAM's last set into the zoo")
    options = parser.parse_args()
    real = data.load(options.dataset)
    calls = [(method, options.runs) for method in METHODS]
    kept = {
        METHODS[number]: paths
        for number, paths in pool.run(sets_of, calls, len(METHODS), shared=(real,))
    }
    table = measured(
        {(method, steps): kept[method][steps] for method in METHODS for steps in MARKS},
        real,
        options.epochs,
        options.seeds,
    )
    tensor_files.write_text(options.out / "loops.csv", table.to_csv(index=False))
    plots.use_style()
    plots.save(draw(table), options.out / "loops.png")
    print(table.groupby(["method", "steps"], sort=False)["accuracy"].agg(["mean", "std"]).round(2))
    if options.publish:
        ends = {0: "start", MARKS[-1]: "condensed"}
        rows = table[(table.method == "dream") & table.steps.isin(ends)]
        evaluation = f"ConvNet-D3 of width 128, {options.epochs} epochs, last epoch"
        condensed = CondensedSet.load(kept["dream"][MARKS[-1]])
        publish(
            "cifar10-dream-ipc10", condensed, rows.assign(subset=rows.steps.map(ends)), evaluation
        )


if __name__ == "__main__":
    main()
