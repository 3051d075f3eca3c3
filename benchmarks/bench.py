"""`make bench`: yoco against the literal implementation, interleaved in one run.

Prints a table and writes runs/bench.json.
"""

import argparse
import json
import os
import platform
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch

from benchmarks import cases
from benchmarks.limit import convolution_rate
from benchmarks.sides import Side
from yoco.utils import checks, tensor_files
from yoco.utils import device as devices

REPEATS = {"inner_loop": 3, "table_block": 2}
SIDES = ("literal", "ours")
COLUMNS = [
    "name",
    "literal_s",
    "ours_s",
    "ratio",
    "first_s",
    "literal_mb",
    "ours_mb",
    "device",
    "precision",
    "threads",
]


def measure(case: str, device: str, repeats: int | None = None) -> dict[str, Any]:
    """Return medians over repeats, alternating between the two sides, after a warm-up run of each.

    `first_s`: our warm-up run, including compilation.
    """
    where = devices.choose(device)
    with Side(case, "literal", device) as literal, Side(case, "ours", device) as ours:
        literal.run()
        first_s = ours.run()["seconds"]
        runs = [
            {"literal": literal.run(), "ours": ours.run()}
            for _ in range(repeats or REPEATS.get(case, 5))
        ]
    seconds = {side: median(run[side]["seconds"] for run in runs) for side in SIDES}
    memory = {f"{side}_mb": runs[-1][side]["memory_mb"] for side in SIDES}
    on_gpu = {
        f"{side}_gpu_mb": runs[-1][side]["gpu_mb"]
        for side in SIDES
        if runs[-1][side]["gpu_mb"] is not None
    }
    return {
        "name": case,
        "literal_s": seconds["literal"],
        "ours_s": seconds["ours"],
        "ratio": seconds["literal"] / seconds["ours"],
        "first_s": first_s,
        **memory,
        **on_gpu,
        **({"images_per_s": cases.IMAGES[case] / seconds["ours"]} if case in cases.IMAGES else {}),
        "device": where.type,
        "precision": devices.choose_precision("auto", where),
        "threads": torch.get_num_threads(),
        "repeats": len(runs),
        "all_s": {side: [run[side]["seconds"] for run in runs] for side in SIDES},
    }


def machine(device: torch.device) -> dict[str, str]:
    named = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [
        line.split(":")[1].strip() for line in named.splitlines() if line.startswith("model name")
    ]
    gpu = {"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        **gpu,
    }


def limit(measured: list[dict[str, Any]], device: torch.device) -> dict[str, float]:
    """Return the rate of the convolutions alone, and the share of it that training reaches.

    Training is on 400 images.
    """
    rate = convolution_rate(devices.choose_precision("auto", device))
    reached = [case["images_per_s"] / rate for case in measured if case["name"] == "train_400"]
    return {
        "convolutions_images_per_s": rate,
        **({"train_400_share": reached[0]} if reached else {}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", help=f"{', '.join(cases.CASES)}; all, if none is named")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--out", default="runs/bench.json")
    options = parser.parse_args()
    for case in options.cases:
        checks.one_of("case", case, cases.CASES)
    with TemporaryDirectory() as cache:  # torch's own may hold the results of earlier compilation
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        run(options)


def run(options: argparse.Namespace) -> None:
    device, measured = devices.choose(options.device), []
    for case in options.cases or cases.CASES:
        measured.append(measure(case, options.device, options.repeats))
        print(
            pd.DataFrame(measured)[COLUMNS].round(2).to_string(index=False), end="\n\n", flush=True
        )
        result = {"machine": machine(device), "cases": measured}
        # results are kept even if a later case fails
        tensor_files.write_text(options.out, json.dumps(result, indent=1) + "\n")
    if device.type == "cpu":
        result["limit"] = limit(measured, device)
        print({name: round(value, 2) for name, value in result["limit"].items()})
        tensor_files.write_text(options.out, json.dumps(result, indent=1) + "\n")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
