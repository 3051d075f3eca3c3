"""Does speed change the result? The same work by the literal implementation and by yoco.

Trainings and condensations over several seeds.

    # figures/bench/agreement.csv
    python -m benchmarks.agreement folder:~/.cache/yoco-data/cifar10-jpeg
"""

import argparse
from pathlib import Path

import pandas as pd
import torch

from benchmarks import literal
from yoco import condense, data, evaluate, prune, zoo
from yoco.condense.base import condensed_from
from yoco.data import ImageData, to_floats
from yoco.data.normalise import normalise
from yoco.sets.condensed_set import CondensedSet
from yoco.utils import seeds, tensor_files

SET = "cifar10-idc-ipc10"
STEPS = 15  # image steps of condensation


def trained(
    real: ImageData, images: torch.Tensor, labels: torch.Tensor, epochs: int, seed: int
) -> dict[str, float]:
    """Return the accuracy (%) of a network trained on a subset in each way."""
    test = normalise(to_floats(real.test_images), real.mean, real.std)
    inputs = normalise(images, real.mean, real.std)
    model = literal.fit(
        inputs,
        labels,
        len(real.classes),
        epochs,
        seeds.generator(seed),
        torch.device("cpu"),
        seed=seed,
    )
    ours = {
        f"ours, {precision}{', compiled' if compiled else ''}": evaluate.evaluate(
            images,
            labels,
            real,
            epochs=epochs,
            seed=seed,
            device="cpu",
            precision=precision,
            compiled=compiled,
        )
        for precision, compiled in (("float32", False), ("bfloat16", True))
    }
    return {"literal": literal.accuracy(model, test, real.test_labels), **ours}


def condensed(real: ImageData, seed: int) -> dict[str, CondensedSet]:
    """Return sets after `STEPS` image steps from one start, made in each way.

    The steps have the size of `laptop`.
    """
    settings = condense.settings_for("laptop", real.size, 10, {})
    start = condense.real_set(real, 10, 2, seed)
    torch.manual_seed(seed)
    loops = literal.InnerLoops(
        real,
        start.images,
        2,
        lr=settings.image_lr,
        device=torch.device("cpu"),
        source=seeds.generator(seed),
    )
    for _ in range(STEPS):
        loops.step(settings.real_batch, settings.network_images)
    fast = {
        "outer_loops": 1,
        "inner_loops": STEPS,
        "seed": seed,
        "device": "cpu",
        "precision": "bfloat16",
        "compiled": True,
        "progress": False,
    }
    return {
        "start": start,
        "literal": condensed_from(loops.images, real, 10, 2, "literal", {}),
        "ours, bfloat16, compiled": condense.condense(real, "idc", 10, 2, **fast),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("figures/bench/agreement.csv"))
    options = parser.parse_args()
    real, rows = data.load(options.dataset), []
    whole, dynamics = zoo.load(SET), zoo.load_dynamics(SET)

    def keep(what: str, seed: int, accuracies: dict[str, float]) -> None:
        rows.extend(
            {"what": what, "seed": seed, "way": way, "accuracy": accuracy}
            for way, accuracy in accuracies.items()
        )
        print(what, seed, accuracies, flush=True)
        tensor_files.write_text(options.out, pd.DataFrame(rows).round(2).to_csv(index=False))

    for seed in range(options.seeds):
        kept = prune.prune(whole, dynamics, "yoco", 1).subset(whole)
        keep(
            f"trained on 40 images, {options.epochs} epochs",
            seed,
            trained(real, *kept, options.epochs, seed),
        )
    for seed in range(min(options.seeds, 3)):
        sets = condensed(real, seed)
        accuracies = {
            way: evaluate.evaluate(*made.form(), real, epochs=options.epochs // 2, seed=seed)
            for way, made in sets.items()
        }
        keep(
            f"condensed by {STEPS} steps, then trained for {options.epochs // 2} epochs",
            seed,
            accuracies,
        )


if __name__ == "__main__":
    main()
