"""What one step takes on a GPU, with Triton's kernels and without (`yoco.utils.fused`).

    python -m benchmarks.gpu_steps figures/bench/gpu_steps.csv

Rows of other code that the file holds are kept. Images are noise in CIFAR-10's shapes.
"""

import argparse
import gc
import os
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from yoco import condense
from yoco.condense import ncfm
from yoco.selfcheck import machine, speed
from yoco.training import network as train
from yoco.training import stacked
from yoco.training.protocol import Protocol
from yoco.utils import device as devices
from yoco.utils import fused, graphs, seeds

REPEATS = 5
# as many real images and frequencies as in the prototype (../shared/data/ncfm)
MATCHING = {"pool_networks": 1, "pool_epochs": 1, "pool_images": 256}
MATCHING |= {"real_batch": 128, "frequencies": 2048}


def epochs(device: torch.device, networks: int, images: int, batch: int = 64) -> Callable:
    """Return an epoch of some networks at once, on `images` formed images."""
    condensed = speed.noise_set(images // 10)
    formed, labels = condensed.form()
    protocol = Protocol.of(batch_size=batch).resolved(device, 0, condensed.size)
    given = condensed.normalise(formed).to(device), labels.to(device), 10, protocol
    runs = [train.Run(*given, seed) for seed in range(networks)]
    return (stacked.Stacked(runs) if networks > 1 else runs[0]).epoch


def ncfm_steps(device: torch.device) -> Callable:
    """Return a step of NCFM at IPC 10."""
    data = speed.noise(per_class=1100)
    settings = condense.METHODS["ncfm"].settings_for("paper", data.size, 10, MATCHING)
    given = seeds.generator(0), device, devices.choose_precision("auto", device), False
    steps = ncfm.CharacteristicMatching(data, 10, 2, settings, *given, progress=False)
    steps.prepare(None)
    return partial(steps.step, 1)


# work, and the steps that it takes
WORK: dict[str, tuple[Callable[[torch.device], Callable], int]] = {
    "a network, 57 images": (partial(epochs, networks=1, images=400), 7),
    "a network, 256 images": (partial(epochs, networks=1, images=2560, batch=256), 10),
    "3 networks at once, 57 images each": (partial(epochs, networks=3, images=400), 7),
    "16 networks at once, 50 images each": (partial(epochs, networks=16, images=200), 4),
    "NCFM, an image step": (ncfm_steps, 1),
    "IDC, an inner loop": (partial(speed.inner_loop, compiled=False), 1),
}


def measure(device: torch.device, names: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield a row per kind of work, with and without the kernels: milliseconds and memory."""
    for name in names or WORK:
        build, steps = WORK[name]
        for kernels in (False, True):
            os.environ["YOCO_FUSED"] = str(int(kernels))
            fused.available.cache_clear()
            gc.collect()
            if devices.is_gpu(device):
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            work = build(device)
            for _ in range(graphs.WARM_UP + 1):
                work()
            took = min(speed.timed(work, device) for _ in range(REPEATS))
            peak = torch.cuda.max_memory_allocated() if devices.is_gpu(device) else 0
            layers = "kernels" if kernels else "PyTorch's layers"
            yield {"step": name, "layers": layers, "ms": 1000 * took / steps, "gpu_bytes": peak}
            del work


def commit() -> str:
    """Return the commit of the checkout, if it is one."""
    told = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return told.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = devices.choose(options.device)
    told = {"code": commit(), "gpu": machine.described(device).get("gpu", "")}
    rows = pd.DataFrame([told | row for row in measure(device)])
    known = pd.read_csv(options.out) if options.out.exists() else rows.iloc[:0]
    kept = known[known["code"] != told["code"]]
    pd.concat([kept, rows]).to_csv(options.out, index=False, float_format="%.3f")
    print(rows.to_string(index=False))


if __name__ == "__main__":
    main()
