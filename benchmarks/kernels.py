"""What KIP's kernels cost: seconds on one core for 1,000 pairs of images, forward and backward.

python -m benchmarks.kernels    # figures/bench/kernels.csv
"""

import time
from pathlib import Path
from statistics import median

import pandas as pd
import torch

from yoco.condense import kip_kernels
from yoco.utils import seeds, tensor_files

SIDES = {8: 16, 16: 8, 32: 4}  # side of an image: images on each side of the kernel
REPEATS = 3


def seconds(kernel, side: int, images: int, backward: bool) -> float:
    source, taken = seeds.generator(0), []
    x, y = (
        torch.randn(images, 3, side, side, generator=source, dtype=torch.float64) for _ in range(2)
    )
    for _ in range(REPEATS):
        started = time.perf_counter()
        values = kernel(x.requires_grad_(backward), y, 3)
        if backward:
            torch.autograd.grad(values.sum(), x)
        taken.append(time.perf_counter() - started)
    return median(taken) * 1000 / images**2


def main() -> None:
    torch.set_num_threads(1)
    rows = [
        {
            "kernel": name,
            "side": side,
            "forward_s": seconds(kernel, side, images, False),
            "with_backward_s": seconds(kernel, side, images, True),
        }
        for name, kernel in (("fc", kip_kernels.fc_kernel), ("conv", kip_kernels.conv_kernel))
        for side, images in SIDES.items()
    ]
    table = pd.DataFrame(rows).round(4)
    tensor_files.write_text(Path("figures/bench/kernels.csv"), table.to_csv(index=False))
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
