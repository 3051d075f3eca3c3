"""Whether a better set has better parts: accuracy after pruning against that of the whole set.

    python -m benchmarks.parts

Draws figures/rules/parts.png from figures/rules/rules.csv (`benchmarks.rules`) and
figures/ncfm/accuracy_by_time.csv (`benchmarks.condensing_time`), whose sets it names.
"""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from yoco import plots
from yoco.experiments import tables
from yoco.plots import style

PARTS = Path("figures/rules/rules.csv")
WHOLE = Path("figures/ncfm/accuracy_by_time.csv")
# method and steps of the sets of PARTS, as WHOLE has them; the last is the start of NCFM's
SETS = {
    "zoo:cifar10-ncfm-ipc10": ("ncfm", 2500),
    "ncfm-1591.safetensors": ("ncfm", 1591),
    "ncfm-714.safetensors": ("ncfm", 714),
    "ncfm-235.safetensors": ("ncfm", 235),
    "zoo:cifar10-idc-ipc10": ("idc", 440),
    "zoo:cifar10-dream-ipc10": ("dream", 200),
    "ncfm-0.safetensors": ("ncfm", 0),
}
RULES = ("AUM of 100 epochs", "LBPE", "random")
EPOCHS, IPC = 1000, 1  # of the whole sets' networks; the parts' budget


def table(parts: pd.DataFrame, whole: pd.DataFrame) -> pd.DataFrame:
    """Return a row per set, by falling accuracy of the whole: set, whole, and each rule's mean.

    Sets of which either is missing are left out.
    """
    rows = []
    for name, (method, steps) in SETS.items():
        own = whole[(whole.method == method) & (whole.steps == steps) & (whole.epochs == EPOCHS)]
        kept = parts[(parts["set"] == name) & (parts.ipc == IPC)]
        means = kept.groupby("rule")["accuracy"].mean()
        if len(own) and {*RULES} <= {*means.index}:
            title = f"{tables.title_of(method)}, {steps:,} steps" if steps else "start"
            rows.append((title, own.accuracy.mean(), *means[[*RULES]]))
    found = pd.DataFrame(rows, columns=["set", "whole", *RULES])
    return found.sort_values("whole", ascending=False, ignore_index=True)


def markdown(parts: pd.DataFrame, whole: pd.DataFrame) -> str:
    """Return `table` in Markdown, accuracies in %."""
    return tables.markdown(table(parts, whole).set_index("set"))


def draw(found: pd.DataFrame) -> Axes:
    """Draw the parts' accuracies against the whole's, a line per rule."""
    ax = style.axes(8, 4.2)
    for rule, colour in zip(RULES, (style.PALETTE[2], plots.KEPT, plots.DROPPED)):
        ax.plot(found["whole"], found[rule], "o-", color=colour, label=rule)
    for row in found.itertuples():
        ax.annotate(
            row.set,
            (row.whole, found.loc[row.Index, list(RULES)].max()),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
            fontsize="small",
        )
    ax.margins(0.12)
    ax.set(
        xlabel=f"whole set, {EPOCHS} epochs: test accuracy (%)", ylabel="IPC 1: test accuracy (%)"
    )
    ax.legend(frameon=False, fontsize="small", loc="center")
    return ax


def main() -> None:
    found = table(pd.read_csv(PARTS), pd.read_csv(WHOLE))
    plots.use_style()
    plots.save(draw(found), PARTS.with_name("parts.png"))
    print(found.round(2).to_string(index=False))


if __name__ == "__main__":
    main()
