"""Datasets that other libraries provide: scikit-learn's digits, and torchvision's by name."""

import importlib.util
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from yoco.data import arrays
from yoco.data.image_data import ImageData, resize
from yoco.data.normalise import STATISTICS
from yoco.utils import locks

# numbers of scikit-learn's digits: four stratified fifths to train on, then the test set
ORDER = Path(__file__).with_name("digits_order.npy")
DIGITS_TESTED = 360
TORCHVISION = {
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "mnist": "MNIST",
    "fashionmnist": "FashionMNIST",
    "svhn": "SVHN",
}


def digits(size: int) -> ImageData:
    """Return scikit-learn's 1,797 digits, resized; a fixed stratified fifth is the test set.

    They are 8×8 in 0..16 there.
    """
    pixels, labels = _digits()
    order = torch.from_numpy(np.load(ORDER).astype(np.int64))
    train, test = order[:-DIGITS_TESTED], order[-DIGITS_TESTED:]
    pixels = resize((pixels / 16 * 255).round().to(torch.uint8).view(-1, 1, 8, 8), size)
    targets = labels.long()
    return arrays.from_arrays(
        pixels[train], targets[train], pixels[test], targets[test], name="digits"
    )


def _digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Return scikit-learn's digits, float64 [1797, 64] in 0..16, and their labels.

    They are read from its file: importing scikit-learn takes seconds.
    """
    package = Path(cast(Any, importlib.util.find_spec("sklearn")).origin).parent
    table = np.loadtxt(package / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    images, labels = torch.from_numpy(table).split([64, 1], dim=1)
    return images, labels.flatten()


def torchvision(name: str, root: Path, size: int | None) -> ImageData:
    """Return one of `TORCHVISION`, downloaded to `root`; size: as in `load`.

    Raises FileNotFoundError if it is missing and cannot be downloaded; the message says which files
    to place where.
    """
    from torchvision import datasets

    source = getattr(datasets, TORCHVISION[name])
    splits = []
    for train in (True, False):
        chosen = {"split": "train" if train else "test"} if name == "svhn" else {"train": train}
        try:
            try:
                split = source(root, **chosen, download=False)
            except RuntimeError:  # missing or damaged; other processes may download it too
                with locks.hold(root / name, wait=True):
                    split = source(root, **chosen, download=True)
        except (OSError, RuntimeError) as error:  # network error or corrupted file
            reason = " ".join(str(error).split())[:200]
            raise FileNotFoundError(
                f"{name} is not in {root} and cannot be downloaded ({reason}): place "
                f"{_wanted(source, root)}"
            ) from error
        labels = split.labels if name == "svhn" else split.targets
        taken = arrays.split("train" if train else "test", split.data, labels, None)
        splits.append((resize(taken.images, size or taken.images.shape[-1]), taken.labels))
    classes = tuple(map(str, range(10))) if name in ("svhn", "mnist") else tuple(split.classes)
    mean, std = STATISTICS["cifar10" if name == "cifar100" else name]
    (images, labels), (test_images, test_labels) = splits
    return ImageData(name, images, labels, test_images, test_labels, classes, mean, std)


def _wanted(source: Any, root: Path) -> str:
    """Return where the files of a torchvision dataset come from, and where they belong."""
    if hasattr(source, "resources"):  # MNIST and its relatives
        names = ", ".join(name for name, _ in source.resources)
        return f"{names} from {source.mirrors[0]} in {root / source.__name__ / 'raw'}"
    if hasattr(source, "split_list"):  # SVHN
        return f"{' and '.join(source.split_list[of][0] for of in ('train', 'test'))} in {root}"
    return f"{source.url} in {root}"
