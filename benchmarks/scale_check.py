"""The cost of a step with 100 classes, measured, beside the prediction from 10 classes.

    # figures/bench/scale_check.csv, from costs.csv
    python -m benchmarks.scale_check folder:~/.cache/yoco-data/cifar10-jpeg

CIFAR-10's images, each class divided into ten by index: the question is time and memory, not what
is learned. ConvNet, 32 × 32, factor 2, 64 real images per class, 512 in the network step, one
thread, CPU seconds; each IPC has its own process.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from benchmarks.costs import CIFAR, Setting, per_class, rates, stepper
from benchmarks.imagenet1k import markdown
from benchmarks.sides import peak_memory
from yoco import data
from yoco.data import ImageData
from yoco.utils import tensor_files

PARTS, STEPS = 10, 2


def cut(real: ImageData, parts: int = PARTS) -> ImageData:
    """Return `real` with each class divided, its images dealt out in turn."""

    def dealt(labels: torch.Tensor) -> torch.Tensor:
        new = torch.empty_like(labels)
        for label in range(len(real.classes)):
            members = torch.nonzero(labels == label).flatten()
            new[members] = label * parts + torch.arange(len(members)) % parts
        return new

    names = tuple(f"{name} {part}" for name in real.classes for part in range(parts))
    return replace(
        real,
        train_labels=dealt(real.train_labels),
        test_labels=dealt(real.test_labels),
        classes=names,
    )


def measured(setting: Setting, dataset: str) -> dict[str, float]:
    """Return the CPU seconds of a step, least and mean, and this process's peak memory in MB."""
    torch.set_num_threads(1)
    steps = stepper(setting, cut(data.load(dataset, progress=False)))
    seconds = []
    for number in range(1, STEPS + 1):  # step 0 would take a fresh network
        started = time.process_time()
        steps.step(number)
        seconds.append(time.process_time() - started)
    return {
        "measured_s": min(seconds),
        "mean_s": sum(seconds) / STEPS,
        "measured_mb": round(peak_memory()),
    }


def predicted(table: pd.DataFrame, setting: Setting, images: int) -> dict[str, float]:
    """Return the same, predicted from the costs of 10 classes.

    images: bytes of the whole training set; memory grows by them, and by the additional condensed
    images (five times: see `scale.simulate`).
    """
    ten = table[
        (table.model == setting.model) & (table.side == setting.side) & (table.classes == 10)
    ]
    found = rates(ten, setting.model, setting.side)
    formed = min(setting.ipc * setting.factor**2, 128)
    seconds = found.match(setting.classes, setting.real, formed) + setting.images * found.trained
    alike = ten[(ten.ipc == setting.ipc) & (ten.real == setting.real)].iloc[0]
    pixels = 3 * setting.side**2
    more = (
        5 * 4 * (setting.classes - 10) * setting.ipc * pixels
        + (images - alike.classes * per_class(alike)) * pixels
    )
    return {"predicted_s": seconds, "predicted_mb": round(alike.memory_mb + more / 2**20)}


def table(rows: pd.DataFrame) -> str:
    """Return the page's table of scale_check.csv."""
    columns = (
        "IPC",
        "predicted, s",
        "measured, s",
        "error",
        "predicted, MB",
        "measured, MB",
        ("error of the memory"),
    )
    said = [
        (
            str(row.ipc),
            f"{row.predicted_s:.1f}",
            f"{row.measured_s:.1f}",
            (f"{100 * row.error_s:+.0f} %"),
            f"{row.predicted_mb:,}",
            f"{row.measured_mb:,}",
            f"{100 * row.error_mb:+.0f} %",
        )
        for row in rows.itertuples()
    ]
    return markdown(columns, said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("--one", help="measure this setting alone (JSON), and print it")
    parser.add_argument(
        "--out", type=Path, default=Path("figures/bench"), help="where costs.csv is as well"
    )
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(Setting(*json.loads(options.one)), options.dataset)))
        return
    costs, rows = pd.read_csv(options.out / "costs.csv"), []
    images = len(data.load(options.dataset).train_images)
    for ipc in (1, 10):
        setting = CIFAR._replace(classes=10 * PARTS, ipc=ipc)
        command = [
            sys.executable,
            "-m",
            "benchmarks.scale_check",
            options.dataset,
            "--one",
            json.dumps(setting),
        ]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        row = {
            "classes": setting.classes,
            "ipc": ipc,
            **json.loads(done.stdout.splitlines()[-1]),
            **predicted(costs, setting, images),
        }
        rows.append(
            {
                **row,
                "error_s": row["predicted_s"] / row["measured_s"] - 1,
                "error_mb": row["predicted_mb"] / row["measured_mb"] - 1,
            }
        )
        print(rows[-1], flush=True)
        tensor_files.write_text(
            options.out / "scale_check.csv",
            pd.DataFrame(rows).to_csv(index=False, float_format="%.4g"),
        )


if __name__ == "__main__":
    main()
