"""Whether a better set has better parts: accuracy after pruning against that of the whole set.

    python -m benchmarks.parts

Draws figures/rules/parts.png from figures/rules/rules.csv (`benchmarks.rules`), and from
figures/ncfm/evaluations.csv for the sets as a whole. figures/rules/rest.csv has the accuracy of
random parts on the rest of their sets (`benchmarks.rules … --rest`).
"""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from yoco import plots
from yoco.experiments import tables
from yoco.plots import style

PARTS = Path("figures/rules/rules.csv")
WHOLE = Path("figures/ncfm/evaluations.csv")
REST_OF_SETS = Path("figures/rules/rest.csv")
# sets by their names in PARTS: the path in WHOLE, and what the table calls them
SETS = {
    "zoo:cifar10-ncfm-ipc10": ("flat/condensed.safetensors", "NCFM, 2,500 steps"),
    "ncfm-714.safetensors": ("flat/at-015min.safetensors", "NCFM, 714 steps"),
    "zoo:cifar10-nested-ipc10": ("nestedE/condensed.safetensors", "NCFM, nested"),
    "zoo:cifar10-idc-ipc10": ("zoo:cifar10-idc-ipc10", "IDC, 440 steps"),
    "zoo:cifar10-dream-ipc10": ("zoo:cifar10-dream-ipc10", "DREAM, 200 steps"),
    "idc-from-ncfm.safetensors": ("idc-from-ncfm.safetensors", "NCFM, then 213 steps of IDC"),
    "ncfm-0.safetensors": ("flat/start.safetensors", "start"),
}
RULES = ("AUM of 100 epochs", "LBPE", "random")
PREFIX = "prefix"  # measured on nested sets only
REST = "random, tested on the rest of the set"
EPOCHS, PART_EPOCHS, IPC = 1000, 300, 1  # of the networks of whole sets and of parts; the budget


def table(parts: pd.DataFrame, whole: pd.DataFrame, rest: pd.DataFrame) -> pd.DataFrame:
    """Return a row per set, by falling accuracy of the whole: set, whole, and each rule's mean.

    Sets of which the whole or a rule other than `PREFIX` is missing are left out.
    """
    rows = []
    parts = pd.concat([parts, rest.assign(rule=REST)])
    parts = parts[(parts.ipc == IPC) & (parts.epochs == PART_EPOCHS)]
    whole = whole[(whole.ipc == whole.ipc.max()) & (whole.epochs == EPOCHS)]
    for name, (path, title) in SETS.items():
        own = whole[whole.path == path].accuracy
        means = parts[parts["set"] == name].groupby("rule")["accuracy"].mean()
        if len(own) and {*RULES} <= {*means.index}:
            rows.append((title, own.mean(), *means.reindex([*RULES, PREFIX, REST])))
    found = pd.DataFrame(rows, columns=["set", "whole", *RULES, PREFIX, REST])
    return found.sort_values("whole", ascending=False, ignore_index=True)


def markdown(parts: pd.DataFrame, whole: pd.DataFrame, rest: pd.DataFrame) -> str:
    """Return `table` in Markdown, accuracies in %."""
    return tables.markdown(table(parts, whole, rest).set_index("set")).replace(" nan |", "  |")


def draw(found: pd.DataFrame) -> Axes:
    """Draw the accuracies of each set's parts in a row; the best whole set is on top."""
    ax = style.axes(8, 1.2 + 0.45 * len(found))
    rows = range(len(found))[::-1]
    looks = zip(
        (*RULES, PREFIX),
        (style.PALETTE[2], plots.KEPT, plots.DROPPED, style.PALETTE[1]),
        "osvD",
    )
    for rule, colour, marker in looks:
        ax.plot(found[rule], rows, marker, color=colour, label=rule)
    ax.set_yticks(rows, [f"{row.set} (whole: {row.whole:.1f})" for row in found.itertuples()])
    ax.set(xlabel=f"test accuracy at IPC {IPC} (%)", ylim=(-0.6, len(found) - 0.4))
    ax.locator_params("x", steps=(1, 5, 10))
    ax.legend(frameon=False, fontsize="small", loc="lower center", ncols=4, bbox_to_anchor=(0.5, 1))
    return ax


def main() -> None:
    found = table(*map(pd.read_csv, (PARTS, WHOLE, REST_OF_SETS)))
    plots.use_style()
    plots.save(draw(found), PARTS.with_name("parts.png"))
    print(found.round(2).to_string(index=False))


if __name__ == "__main__":
    main()
