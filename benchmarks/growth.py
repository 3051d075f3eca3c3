"""Time and memory of one inner loop of IDC against the number of classes and IPC.

# figures/bench/growth.csv and growth.png; points that the table holds are kept
python -m benchmarks.growth
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from benchmarks.sides import Side
from yoco.utils import device as devices
from yoco.utils import tensor_files

CLASSES, IPC = (2, 5, 10, 30, 100), (1, 5, 10, 20, 50)  # a dataset has at least two classes
LABELS = {
    "classes": "classes",
    "ipc": "images per class (IPC)",
    "seconds": ("time of one inner loop (s)"),
    "memory_mb": ("peak memory (MB)"),
}


def measure(side: str, device: str, classes: int, ipc: int) -> dict[str, float]:
    """Measure the second of two runs, since the first one compiles.

    Each measurement has its own process, whose peak memory is reported.
    """
    per_class = max(300, -(-2000 // classes))  # enough for the network step's 2,000 images
    with Side("inner_loop", side, device, classes=classes, ipc=ipc, per_class=per_class) as process:
        process.run()
        return process.run()


def draw(table: pd.DataFrame) -> plt.Figure:
    figure, axes = plt.subplots(2, 2, figsize=(7, 5), sharey="row", layout="constrained")
    for column, across in enumerate(("classes", "ipc")):
        for row, measured in enumerate(("seconds", "memory_mb")):
            ax = axes[row][column]
            sns.lineplot(
                table[table.across == across],
                x=across,
                y=measured,
                hue="side",
                style="side",
                markers=True,
                ax=ax,
                legend=row + column == 0,
            )
            ax.set(xlabel=LABELS[across], ylabel=LABELS[measured])
    for row in axes:
        row[0].set_ylim(0, None)  # both columns, once both are drawn
    axes[0][0].get_legend().set_title(None)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("figures/bench"))
    options = parser.parse_args()
    where, path = devices.choose(options.device), options.out / "growth.csv"
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    measured_before = {
        (row["across"], row["classes"], row["ipc"], row["side"], row["device"]) for row in rows
    }
    points = [("classes", classes, 10) for classes in CLASSES] + [("ipc", 10, ipc) for ipc in IPC]
    for across, classes, ipc in points:
        for side, precision in (
            ("literal", "float32"),
            ("ours", devices.choose_precision("auto", where)),
        ):
            if (across, classes, ipc, side, where.type) in measured_before:
                continue
            measured = measure(side, options.device, classes, ipc)
            setting = {
                "across": across,
                "classes": classes,
                "ipc": ipc,
                "side": side,
                "device": where.type,
                "precision": precision,
            }
            rows.append({**setting, **measured})
            print(rows[-1], flush=True)
            table = pd.DataFrame(rows).sort_values(["across", "classes", "ipc", "side"])
            tensor_files.write_text(path, table.round(3).to_csv(index=False))
    draw(pd.DataFrame(rows).sort_values("side")).savefig(options.out / "growth.png", dpi=150)


if __name__ == "__main__":
    main()
