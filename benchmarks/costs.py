"""What a step of IDC costs per class, image and side, on one thread of this CPU.

This is the measured half of docs/imagenet1k.md.

    # figures/bench/costs.csv and work.csv; what the table holds is kept; part of `make bench`
    python -m benchmarks.costs

Seconds are CPU seconds, so that other work on the machine adds little, and the least of the
repeats. Each setting has its own process, for its peak memory. Floating point operations are
counted by PyTorch, not timed.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy.optimize import nnls
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.sides import ROOT, peak_memory
from yoco import models
from yoco.condense.gradient_matching import GradientMatcher
from yoco.condense.idc import GradientMatching
from yoco.condense.presets import settings_for
from yoco.data import decode
from yoco.selfcheck.speed import noise
from yoco.utils import device as devices
from yoco.utils import seeds, tensor_files

REPEATS, SLOW = 2, 224  # at this side, one repeat
IMAGES = 1300  # in a class of ImageNet
PHOTO = (500, 375)  # typical pixels of one of its images


class Setting(NamedTuple):
    """A step to be measured. images: real images of the network step."""

    model: str
    side: int
    classes: int
    ipc: int
    factor: int
    real: int
    images: int


CIFAR = Setting("convnet", 32, 10, 10, 2, 64, 512)
# few images: what an image costs is what is asked
LARGE = Setting("resnet10ap", 224, 2, 1, 3, 4, 16)
SETTINGS = [
    CIFAR,
    CIFAR._replace(ipc=1),
    CIFAR._replace(ipc=50),
    CIFAR._replace(real=16),
    CIFAR._replace(classes=30, ipc=1),
    *(
        LARGE._replace(side=side, **change)
        for side in (64, 128, 224)
        for change in ({}, {"real": 8}, {"ipc": 2})
    ),
]


def per_class(setting: Setting) -> int:
    """Return the number of real images per class, which are noise."""
    return max(64, setting.ipc * setting.factor**2, -(-setting.images // setting.classes))


def stepper(setting: Setting, data: Any = None, precision: str = "auto") -> GradientMatching:
    """Return IDC, uncompiled, with the paper's settings except those that are measured."""
    data = data or noise(setting.classes, per_class(setting), size=setting.side)
    overrides = {
        "model": setting.model,
        "real_batch": setting.real,
        "network_images": setting.images,
        "pretrain_epochs": 0,
    }
    settings = settings_for("paper", setting.side, setting.ipc, overrides)
    cpu = torch.device("cpu")
    how = devices.choose_precision(precision, cpu)
    return GradientMatching(
        data, setting.ipc, setting.factor, settings, seeds.generator(0), cpu, how, compiled=False
    )


def least(work: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Return the CPU seconds of the fastest of several runs, after a warm-up run."""
    work()
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return min(seconds)


def measure(setting: Setting) -> dict[str, Any]:
    """Return the seconds of the parts of a step, the bytes of its state, and peak memory in MB."""
    torch.set_num_threads(1)
    steps, repeats = stepper(setting), 1 if setting.side >= SLOW else REPEATS
    _, gradient = steps.image_gradient()
    draws = lambda: [
        (steps.matching.draw(1, setting.side, steps.source), seeds.choice(IMAGES, 64, steps.source))
        for _ in range(100)
    ]
    with TemporaryDirectory() as folder:
        state = steps.state()
        save = lambda: tensor_files.save_tensors(
            Path(folder) / "state.safetensors", "checkpoint", state, {}
        )
        seconds = {
            "match": least(steps.image_gradient, repeats),
            "move": least(lambda: steps._move_images(gradient), repeats),
            "network": least(steps.update_network, repeats),
            "draws": least(draws, repeats) / 100,  # of a class
            "checkpoint": least(save, repeats),
        }
    formed = min(setting.ipc * setting.factor**2, steps.settings.synthetic_batch)
    weights = sum(parameter.nbytes for parameter in steps.model.parameters())
    sizes = {
        "state_bytes": sum(tensor.nbytes for tensor in state.values()),
        "weight_bytes": weights,
        "memory_mb": round(peak_memory()),
    }
    return {
        **setting._asdict(),
        "formed": formed,
        **{f"{part}_s": value for part, value in seconds.items()},
        **sizes,
        "precision": steps.precision,
    }


class Rates(NamedTuple):
    """Seconds that a model takes at a side.

    They are for one real image matched, one formed image matched, one image trained on, and for a
    class besides its images.
    """

    real: float
    formed: float
    trained: float
    a_class: float

    def match(self, classes: int, real: int, formed: int) -> float:
        return classes * (self.a_class + real * self.real + formed * self.formed)


def rates(table: pd.DataFrame, model: str, side: int) -> Rates:
    """Return the rates that fit the measurements best (least squares), none below 0."""
    rows = table[(table.model == model) & (table.side == side)]
    inputs = np.stack([np.ones(len(rows)), rows.real, rows.formed], axis=1)
    (a_class, real, formed), _ = nnls(inputs, (rows.match_s / rows.classes).to_numpy())
    return Rates(real, formed, float((rows.network_s / rows.images).min()), a_class)


class Operations(TorchDispatchMode):
    """Counts floating point operations by PyTorch's own formulas.

    PyTorch's `FlopCounterMode` does not work through torch.func.
    """

    total = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = function(*args, **(kwargs or {}))
        count = flop_registry.get(function._overloadpacket)
        self.total += 0 if count is None else count(*args, **(kwargs or {}), out_val=out)
        return out


def flops(model: str, side: int, classes: int) -> dict[str, float]:
    """Return the floating point operations of one image.

    Matched as a real image, matched as a formed image, and trained on.
    """
    network = models.build(model, 3, classes, side)
    matcher = GradientMatcher(network, "l1")
    images, labels = torch.rand(1, 3, side, side), torch.zeros(1, dtype=torch.long)
    weights, others = matcher.split(network)

    def counted(work: Callable[[], Any]) -> float:
        with Operations() as counter:
            work()
        return float(counter.total)

    target = matcher.gradients(weights, others, images, labels)
    leaf = images.clone().requires_grad_()
    real = counted(lambda: matcher.gradients(weights, others, images, labels))
    formed = counted(
        lambda: torch.autograd.grad(
            matcher._distance_to(target, weights, others, leaf, labels), leaf
        )
    )
    trained = counted(lambda: torch.nn.functional.cross_entropy(network(images), labels).backward())
    return {
        "model": model,
        "side": side,
        "classes": classes,
        "real_flop": real,
        "formed_flop": formed,
        "trained_flop": trained,
        "weight_bytes": sum(p.nbytes for p in network.parameters()),
    }


def decoding(side: int = 224, count: int = 20) -> float:
    """Return the CPU seconds to read a JPEG image of ImageNet's size and resize it to `side`."""
    noise = np.random.default_rng(0).integers(
        0, 256, (PHOTO[1] // 5, PHOTO[0] // 5, 3), dtype=np.uint8
    )
    with TemporaryDirectory() as folder:
        path = Path(folder) / "photo.jpg"
        Image.fromarray(noise).resize(PHOTO, Image.Resampling.BICUBIC).save(path, quality=90)
        return least(lambda: [decode.read_image(path, side) for _ in range(count)]) / count


def in_own_process(setting: Setting) -> dict[str, Any]:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
    }
    command = [sys.executable, "-m", "benchmarks.costs", "--one", json.dumps(setting)]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def work_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return counted operations per image beside its measured seconds, by network and side."""
    rows = []
    for model, side in table[["model", "side"]].drop_duplicates().itertuples(index=False):
        found = rates(table, model, side)
        seconds = {
            "real_s": found.real,
            "formed_s": found.formed,
            "trained_s": found.trained,
            "class_s": found.a_class,
        }
        rows.append({**flops(model, side, 10), **seconds})
    return pd.DataFrame([*rows, {**flops("resnet10ap", 224, 1000), "decode_s": decoding()}])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", help="measure this setting alone (JSON), and print it")
    parser.add_argument("--out", type=Path, default=Path("figures/bench"))
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(Setting(*json.loads(options.one)))))
        return
    path = options.out / "costs.csv"
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    held = {tuple(row[field] for field in Setting._fields) for row in rows}
    for setting in SETTINGS:
        if setting not in held:
            rows.append(in_own_process(setting))
            print(rows[-1], flush=True)
            tensor_files.write_text(
                path, pd.DataFrame(rows).to_csv(index=False, float_format="%.4g")
            )
    table = work_table(pd.read_csv(path))
    tensor_files.write_text(
        options.out / "work.csv", table.to_csv(index=False, float_format="%.4g")
    )
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
