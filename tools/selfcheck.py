"""Writes what `yoco selfcheck` expects, on the CPU: `yoco/selfcheck/expected.safetensors`.

    python -m tools.selfcheck

To be run after a change of what a seed gives. A test fails until then.
"""

import os
import statistics
from pathlib import Path

import torch

from yoco.selfcheck import checks, expected
from yoco.utils import tensor_files

CPU = torch.device("cpu")
SEEDS = range(4)  # of which an accuracy as used is the mean


def measured() -> dict[str, checks.Measured]:
    """Return what every check gives here, in float32."""
    found = {}
    for name, check in checks.CHECKS.items():
        with checks.only_rounding(check.exact):
            found[name] = check.measure(CPU)
    accuracies = [
        checks.evaluated(CPU, epochs=checks.LONG, seed=s)["accuracy"].item() for s in SEEDS
    ]
    print(f"accuracies as used: {[round(accuracy, 1) for accuracy in accuracies]}")
    mean = torch.tensor(statistics.mean(accuracies))
    for name in ("evaluate, as used", "evaluate two, as used"):
        found[name] = {"accuracy": mean.clone()}
    return found


def main() -> None:
    os.environ["YOCO_PRECISION"] = "float32"
    tensors = {
        f"{check}/{part}": tensor
        for check, parts in measured().items()
        for part, tensor in parts.items()
    }
    info = {"torch": torch.__version__, "device": CPU.type, "precision": "float32"}
    path = tensor_files.save_tensors(Path(str(expected.FILE)), expected.KIND, tensors, info)
    print(f"written to {path}")


if __name__ == "__main__":
    main()
