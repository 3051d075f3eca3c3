"""The settings for 100 classes on real images at smoke size: condense, record, prune, train.

    # figures/hundred/results.csv and table.md
    python -m benchmarks.hundred folder:~/.cache/yoco-data/cifar10-jpeg

CIFAR-100 cannot be downloaded without a network, so each class of the dataset is divided into ten
by the colours of its images (k-means of their 4 × 4 thumbnails, fitted on the training images).
This gives 100 classes with as many images on average as CIFAR-100's; accuracies cannot be compared
with CIFAR-100's. Finished work is kept in --runs, and a second start resumes it.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor

from yoco import condense, data, dynamics
from yoco.data import ImageData, to_floats
from yoco.experiments import study, tables
from yoco.sets.condensed_set import CondensedSet
from yoco.utils import tensor_files

PARTS, IPC = 10, 10
# 60 steps, as the smoke preset of version 0.1
IDC = {"preset": "laptop", "outer_loops": 4, "inner_loops": 15, "network_images": 256, "width": 32}


def thumbnails(images: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(to_floats(images), 4).flatten(1).double()


def cut(real: ImageData, parts: int = PARTS) -> ImageData:
    """Return `real` with every class divided into `parts`."""
    train_labels, test_labels = real.train_labels.clone(), real.test_labels.clone()
    for label in range(len(real.classes)):
        members, tested = real.train_labels == label, real.test_labels == label
        clusters = KMeans(parts, random_state=0, n_init=1).fit(
            thumbnails(real.train_images[members]).numpy()
        )
        train_labels[members] = label * parts + torch.from_numpy(clusters.labels_).long()
        test_labels[tested] = (
            label * parts
            + torch.from_numpy(
                clusters.predict(thumbnails(real.test_images[tested]).numpy())
            ).long()
        )
    names = tuple(f"{name} {part}" for name in real.classes for part in range(parts))
    return replace(
        real,
        name=f"{real.name}, cut into {len(names)}",
        train_labels=train_labels,
        test_labels=test_labels,
        classes=names,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("--dynamics", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("runs/hundred"))
    parser.add_argument("--out", type=Path, default=Path("figures/hundred"))
    options = parser.parse_args()
    real = cut(data.load(options.dataset))
    counts = real.counts()
    print(
        f"{len(real.classes)} classes of {min(counts)} to {max(counts)} training images", flush=True
    )
    training = {"epochs": 50, "width": 32, "protocol": "paper"}
    path = options.runs / "condensed.safetensors"
    if not path.exists():
        condense.condense(
            real, "idc", IPC, checkpoint=options.runs / "checkpoint.safetensors", **IDC
        ).save(path)
    condensed = CondensedSet.load(path)
    recorded = dict(dynamics.record_many(condensed, seeds=range(options.dynamics), **training))
    results = study.run(
        condensed,
        real,
        [recorded[seed] for seed in range(options.dynamics)],
        results=options.runs / "results.csv",
        **training,
    )
    tensor_files.write_text(options.out / "results.csv", results.to_csv(index=False))
    tensor_files.write_text(
        options.out / "table.md", tables.markdown(tables.pivot(tables.summary(results)).T)
    )
    print((options.out / "table.md").read_text(), tables.verdict(tables.paired(results)), sep="\n")


if __name__ == "__main__":
    main()
