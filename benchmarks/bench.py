"""`make bench`: yoco against the literal implementation, interleaved in one run.

Prints a table and writes runs/bench.json, one row per case and precision. Rows of other cases that
the file holds are kept, each with the day and the machine on which it was measured.
"""

import argparse
import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch

from benchmarks import cases, limit
from benchmarks.sides import Side
from yoco.selfcheck import machine
from yoco.utils import checks, tensor_files
from yoco.utils import device as devices
from yoco.utils.device import is_gpu
from yoco.utils.graphs import WARM_UP

REPEATS = {"inner_loop": 3, "table_block": 2}
LITERAL = "literal"
COLUMNS = [
    "name",
    "precision",
    "literal_s",
    "ours_s",
    "ratio",
    "share",
    "first_s",
    "literal_mb",
    "ours_mb",
    "threads",
]
# rows that agree in these replace each other
KEY = ("name", "precision", "device", "processor", "instructions", "bfloat16", "threads")


def precisions(device: torch.device) -> list[str]:
    """Return the default precision of the device, and float32 if that is another one."""
    return list(dict.fromkeys([devices.choose_precision("auto", device), "float32"]))


def measure(
    case: str, device: torch.device, repeats: int | None = None, **options: Any
) -> list[dict[str, Any]]:
    """Return a row per precision: the median of the repeats, the sides taking turns.

    A first run of each side does not count, nor do our runs before a GPU's graphs are replayed.
    `first_s` is our first run, which includes compilation, by the wall clock. `limit_s`: time of
    the convolutions alone, one after another; `share` is its ratio to ours. Both are missing for
    runs that are trained side by side. options: of the case.
    """
    wanted = {LITERAL: (LITERAL, "float32")} | {p: ("ours", p) for p in precisions(device)}
    with ExitStack() as stack:
        sides = {
            name: stack.enter_context(Side(case, side, device.type, precision, **options))
            for name, (side, precision) in wanted.items()
        }
        first = {name: side.run()["wall_s"] for name, side in sides.items()}
        for name in (n for n in wanted if n != LITERAL and is_gpu(device)):
            for _ in range(WARM_UP):  # the calls before graphs are replayed
                sides[name].run()
        runs = [
            {name: side.run() for name, side in sides.items()}
            for _ in range(repeats or REPEATS.get(case, 5))
        ]
    limited = is_gpu(device) or case not in cases.SIDE_BY_SIDE
    calls = limit.of_case(case, device, **options) if limited else {}
    rows = []
    for precision in precisions(device):
        row = _row(case, precision, first[precision], runs)
        if limited:
            row["limit_s"] = limit.seconds(calls, precision, device)
            row["share"] = row["limit_s"] / row["ours_s"]
        rows.append({**row, "device": device.type, **_where(device)})
    return rows


def _row(case: str, precision: str, first_s: float, runs: Sequence[dict]) -> dict[str, Any]:
    """Return what both sides took, ours in one precision."""
    sides = {"literal": LITERAL, "ours": precision}
    row: dict[str, Any] = {"name": case, "precision": precision}
    for side, name in sides.items():
        row[f"{side}_s"] = median(run[name]["seconds"] for run in runs)
        row[f"{side}_mb"] = runs[-1][name]["memory_mb"]
        if runs[-1][name]["gpu_mb"] is not None:
            row[f"{side}_gpu_mb"] = runs[-1][name]["gpu_mb"]
    row |= {"ratio": row["literal_s"] / row["ours_s"], "first_s": first_s, "repeats": len(runs)}
    every = {side: [run[name]["seconds"] for run in runs] for side, name in sides.items()}
    return {**row, "all_s": every}


def _where(device: torch.device) -> dict[str, Any]:
    """Return the day and the machine of a row."""
    told = machine.described(device)
    kept = ("processor", "gpu", "instructions", "bfloat16", "cores", "threads", "torch")
    named = {name: told[name] for name in kept if name in told}
    return {**named, "measured": date.today().isoformat()}


def merged(
    known: Sequence[dict[str, Any]], measured: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return all rows in the order of the cases, new ones in place of old ones."""
    by_key = {tuple(row.get(name) for name in KEY): row for row in (*known, *measured)}
    order = list(cases.CASES)
    return sorted(by_key.values(), key=lambda row: (order.index(row["name"]), row["precision"]))


def read(path: str | Path) -> list[dict[str, Any]]:
    """Return the rows of a file of this benchmark; none if there is no file."""
    return json.loads(Path(path).read_text())["cases"] if Path(path).exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", help=f"{', '.join(cases.CASES)}; all, if none is named")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--out", type=Path, default=Path("runs/bench.json"))
    options = parser.parse_args()
    for case in options.cases:
        checks.one_of("case", case, cases.CASES)
    with TemporaryDirectory() as cache:  # torch's own may hold the results of earlier compilation
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        run(options.cases or cases.CASES, options.device, options.out, options.repeats)


def run(wanted: Sequence[str], device: str, out: Path, repeats: int | None = None) -> None:
    """Measure cases one after another; each one's rows are written at once."""
    where = devices.choose(device)
    for name, value in _where(where).items():
        print(f"{name}: {value}")
    measured: list[dict[str, Any]] = []
    for case in wanted:
        measured += measure(case, where, repeats)
        shown = pd.DataFrame(measured).reindex(columns=COLUMNS).round(2)
        print(f"\n{shown.to_string(index=False)}", flush=True)
        rows = {"cases": merged(read(out), measured)}
        tensor_files.write_text(out, json.dumps(rows, indent=1) + "\n")
    print(f"written to {out}")


if __name__ == "__main__":
    main()
