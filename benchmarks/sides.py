"""Two processes, one per side, that work in turn.

Neither affects the other's memory, caches or allocator settings.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import cases
from yoco.selfcheck import speed

ROOT = Path(__file__).parents[1]


class Side:
    """A process that holds one side of a case. `run` makes it do the work once, and waits.

    precision: what `precision="auto"` stands for in it.
    """

    def __init__(
        self, case: str, side: str, device: str = "auto", precision: str = "auto", **options: Any
    ) -> None:
        arguments = json.dumps({"case": case, "side": side, "device": device, **options})
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.sides", arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths, "YOCO_PRECISION": precision},
        )

    def run(self) -> dict[str, float]:
        """Return the seconds of one run (see `cases.clock`), and the peak memory so far in MB.

        Memory includes worker processes and, on a GPU, the GPU's.
        """
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"a side of the benchmark ended with status {self.process.wait()}")

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.stdin.close()
        self.process.wait()


def peak_memory() -> float | None:
    """Return the peak resident memory in MB of this process and its children.

    None if /proc does not provide it.
    """
    statuses = {}
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            text = path.read_text()
        except OSError:  # it has ended
            continue
        statuses[int(path.parent.name)] = text
    family = {os.getpid()}
    for _ in statuses:  # children of children
        grown = family | {
            pid
            for pid, text in statuses.items()
            if int(re.search(r"PPid:\s*(\d+)", text)[1]) in family
        }
        if grown == family:
            break
        family = grown
    peaks = [re.search(r"VmHWM:\s*(\d+)", statuses[pid]) for pid in family if pid in statuses]
    return sum(int(found[1]) for found in peaks if found) / 1024 if statuses else None


def timed(work: cases.Work, device: torch.device) -> dict[str, float | None]:
    began = time.perf_counter()
    seconds = speed.timed(work, device, cases.clock(device))
    wall_s = time.perf_counter() - began
    on_gpu = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else None
    return {"seconds": seconds, "wall_s": wall_s, "memory_mb": peak_memory(), "gpu_mb": on_gpu}


def main() -> None:
    arguments = json.loads(sys.argv[1])
    device = cases.choose(arguments["device"])
    work = cases.build(**arguments)
    for _ in sys.stdin:
        print(json.dumps(timed(work, device)), flush=True)


if __name__ == "__main__":
    main()
