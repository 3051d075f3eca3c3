"""One set for every budget, or a set for each: accuracy against bytes, CIFAR-10, NCFM.

    python -m benchmarks.budgets

Draws figures/ncfm/budgets.png from figures/ncfm/evaluations.csv (sets of NCFM, and prefixes of the
nested one) and figures/ncfm/flat.even.csv (`yoco study`: parts of the flat set that YOCO and YOCO+
choose). All networks were trained for 1000 epochs.
"""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from yoco import plots
from yoco.plots import style

MADE, CHOSEN = Path("figures/ncfm/evaluations.csv"), Path("figures/ncfm/flat.even.csv")
EPOCHS = 1000
BUDGETS = (1, 2, 5, 10)  # IPC; that of the flat and of the nested set is the last
PIXELS = 10 * 3 * 32 * 32  # bytes per IPC, as uint8
# files of MADE, by way; a set with one budget is tested whole
ALONE = {
    1: "alone1/condensed.safetensors",
    2: "alone2/condensed.safetensors",
    5: "alone5/condensed.safetensors",
    10: "flat/condensed.safetensors",
}
NESTED = "nestedE/condensed.safetensors"
# methods of CHOSEN, which prune the flat set
PRUNED = {"YOCO+, from the flat set": "yoco+", "YOCO, from the flat set": "yoco"}
ALONE_WAY, NESTED_WAY = "condensed for this budget", "prefix of the nested set"
# every way with its colour
WAYS = dict(
    zip(
        (ALONE_WAY, NESTED_WAY, *PRUNED),
        (style.PALETTE[2], plots.KEPT, style.PALETTE[1], plots.DROPPED),
    )
)


def table(made: pd.DataFrame, chosen: pd.DataFrame) -> pd.DataFrame:
    """Return a row per training run: way, ipc, bytes (of uint8 pixels) and accuracy."""
    made = made[made["epochs"] == EPOCHS]
    alone = made[made["path"] == made["ipc"].map(ALONE)].assign(way=ALONE_WAY)
    nested = made[made["path"] == NESTED].assign(way=NESTED_WAY)
    ways = {method: way for way, method in PRUNED.items()}
    picked = chosen[chosen["epochs"] == EPOCHS].rename(columns={"ipc_to": "ipc"})
    picked = picked.assign(way=picked["method"].map(ways)).dropna(subset="way")
    found = pd.concat([alone, nested, picked])[["way", "ipc", "accuracy"]]
    return found.assign(bytes=found["ipc"] * PIXELS).reset_index(drop=True)


def draw(found: pd.DataFrame) -> Axes:
    """Draw mean accuracy against bytes, one line per way."""
    ax = style.axes(7.2, 4.2)
    for way, rows in found.groupby("way", sort=False):
        accuracy = rows.groupby("bytes")["accuracy"].agg(["mean", "std"])
        ax.errorbar(
            accuracy.index,
            accuracy["mean"],
            accuracy["std"].fillna(0),
            marker="o",
            capsize=2,
            label=way,
            color=WAYS[way],
        )
    ax.set(xscale="log", xlabel="bytes (one per value)", ylabel="test accuracy (%)")
    ax.set_xticks([ipc * PIXELS for ipc in BUDGETS])
    ax.xaxis.set_major_formatter(lambda size, _: f"{size:,.0f}\nIPC {size / PIXELS:.0f}")
    ax.minorticks_off()
    ax.legend(frameon=False, fontsize="small")
    return ax


def main() -> None:
    found = table(pd.read_csv(MADE), pd.read_csv(CHOSEN))
    plots.use_style()
    plots.save(draw(found), MADE.with_name("budgets.png"))
    print(found.groupby(["way", "ipc"])["accuracy"].agg(["mean", "std", "count"]).round(2))


if __name__ == "__main__":
    main()
