"""Small images packed into one picture per split, so that they can travel to a GPU machine.

    python -m benchmarks.mosaic folder:PATH OUT --quality 88

Training images become a JPEG picture: CIFAR-10's take 40 MB at quality 95 (rms error 2.6 of 255),
27 MB at 88 (4.4) and 20 MB at 80 (5.9). Without chroma subsampling, JPEG's blocks of 8 pixels do
not mix neighbouring images. Test images keep every pixel (WebP, 17 MB), so accuracies are those on
the original ones. `load(OUT)` reads both back.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from yoco import data
from yoco.data import ImageData, channel_statistics

ROW = 250  # images in a row
LABELS = "labels.npz"
PICTURES = {"train": "train.jpg", "test": "test.webp"}
WIDEST = 64  # side of an image: a WebP picture has at most 16,383 pixels in a row


def pack(real: ImageData, out: Path, quality: int = 95) -> None:
    """Write a picture of each split and the labels.

    quality: JPEG's, of the training images. Raises ValueError unless the side of an image is at
    most 64 and divides by 8.
    """
    if real.size % 8 or real.size > WIDEST:
        raise ValueError(
            f"images must have a side of at most {WIDEST} that divides by 8, got {real.size}"
        )
    out.mkdir(parents=True, exist_ok=True)
    how: dict[str, dict[str, Any]] = {
        "train": {"quality": quality, "subsampling": 0, "optimize": True},
        "test": {"lossless": True},
    }
    labels = {}
    for split, name in PICTURES.items():
        images = getattr(real, f"{split}_images")
        labels[split] = getattr(real, f"{split}_labels").numpy().astype(np.uint8)
        picture = Image.fromarray(_grid(images).numpy())
        picture.save(out / name, **how[split])
    np.savez_compressed(out / LABELS, classes=np.array(real.classes), **labels)


def _grid(images: Tensor) -> Tensor:
    """Return uint8 images [N, C, S, S] as one picture [H, W, 3] of rows of `ROW` images."""
    rows = -(-len(images) // ROW)
    padded = images.new_zeros(rows * ROW, 3, *images.shape[2:])
    padded[: len(images)] = images  # grey images fill the three channels
    side = images.shape[-1]
    cells = padded.view(rows, ROW, 3, side, side)
    return cells.permute(0, 3, 1, 4, 2).reshape(rows * side, ROW * side, 3)


def load(folder: str | Path) -> ImageData:
    """Return the packed images; classes that were packed without names are numbered."""
    folder = Path(folder)
    with np.load(folder / LABELS) as held:
        labels = {split: torch.from_numpy(held[split].astype(np.int64)) for split in PICTURES}
        names = held["classes"].tolist() if "classes" in held else None
    images = {split: _images(folder / name, len(labels[split])) for split, name in PICTURES.items()}
    classes = names or map(str, range(int(labels["train"].max()) + 1))
    mean, std = channel_statistics(images["train"])
    splits = [part for split in PICTURES for part in (images[split], labels[split])]
    return ImageData(f"{folder.resolve().name}", *splits, tuple(classes), mean, std)


def _images(path: Path, count: int) -> Tensor:
    """Return the first `count` images of a picture, uint8 [N, 3, S, S]."""
    Image.MAX_IMAGE_PIXELS = None
    picture = torch.from_numpy(np.array(Image.open(path).convert("RGB")))
    side = picture.shape[1] // ROW
    cells = picture.view(-1, side, ROW, side, 3).permute(0, 2, 4, 1, 3)
    return cells.reshape(-1, 3, side, side)[:count].contiguous()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("out", type=Path)
    parser.add_argument("--quality", type=int, default=95)
    options = parser.parse_args()
    pack(data.load(options.dataset), options.out, options.quality)


if __name__ == "__main__":
    main()
