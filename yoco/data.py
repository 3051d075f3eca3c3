"""A dataset by name: its images and labels as uint8 tensors (`ImageData`), in memory or mapped from a cache of pixels."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from yoco import checks, decode, pixels

NAMES = ("digits", "cifar10", "cifar100", "imagenet10")
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)  # the published code's, for both CIFARs
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET10 = (  # class list and order of design §6
    "n02869837", "n01749939", "n02488291", "n02107142", "n13037406", "n02091831", "n04517823", "n04589890", "n03062245", "n01773797",
)
LEAST_SIZE, MOST_SIZE = 8, 4096  # pixels a side that images can be resized to
TRAIN, TEST = ("train",), ("test", "val")  # folder names of the two splits


@dataclass(frozen=True, eq=False)
class ImageData:
    """Real images: uint8 [N, C, S, S]; labels int64 [N]; mean and std of the training images per channel, in 0..1.

    Raises TypeError or ValueError where shapes, types, labels, classes or statistics do not fit, a class has no training
    image, there is one class alone, or the test set is empty.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        checks.class_names("classes", self.classes)
        for split, images, labels in (("train", self.train_images, self.train_labels), ("test", self.test_images, self.test_labels)):
            checks.images(f"{split}_images", images)
            if images.dtype != torch.uint8:
                raise TypeError(f"{split}_images must be uint8, got {images.dtype}")
            checks.labels(f"{split}_labels", labels, len(images), len(self.classes))
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise ValueError(f"train and test images differ in shape: {list(self.train_images.shape[1:])}, {list(self.test_images.shape[1:])}")
        checks.statistics(self.mean, self.std, self.channels)
        empty = [name for name, count in zip(self.classes, self.counts()) if not count]
        if empty:
            raise ValueError(f"{self.name}: no training image in class {', '.join(empty)}")

    @property
    def channels(self) -> int:
        return self.train_images.shape[1]

    @property
    def size(self) -> int:
        """Side of an image in pixels."""
        return self.train_images.shape[2]

    def counts(self) -> list[int]:
        """Training images in each class."""
        return torch.bincount(self.train_labels, minlength=len(self.classes)).tolist()

    def require_per_class(self, what: str, count: int) -> None:
        """Raise a ValueError unless every class has at least `count` training images, which `what` asks for."""
        short = [f"{name} ({n})" for name, n in zip(self.classes, self.counts()) if n < count]
        if short:
            raise ValueError(f"{what} needs {count} images of every class; too few in: {', '.join(short[:5])}")


def load(
    name: str,
    root: str | Path | None = None,
    *,
    size: int | None = None,
    limit_per_class: int | None = None,
    progress: bool = True,
    cache: str | Path | bool = True,
) -> ImageData:
    """Load a dataset by name.

    name: "digits" (scikit-learn's, embedded, resized to 16×16), "cifar10" or "cifar100" (torchvision's, downloaded to
    root), "imagenet10" (root holds ImageNet's train/ and val/; 224×224), or "folder:PATH" (any ImageFolder layout:
    train/ beside test/ or val/, read as RGB). root: None is ~/.cache/yoco. size: images are resized to it (the shorter
    side, then a central crop); None keeps their own. limit_per_class: that many images of a class at most, the first
    ones, in either split. cache: where the pixels of a folder (imagenet10's too) are kept, decoded once, and mapped from
    (see `pixels.read`): a folder, True for $YOCO_CACHE or ~/.cache/yoco/pixels, False for memory.

    Raises ValueError at an unknown name, images of several sizes without `size`, one class, or an unreadable image
    (named); FileNotFoundError where a folder is missing or holds no images; OSError where the cache has no room.
    """
    checks.instance("name", name, str)
    if size is not None:
        checks.whole("size", size, LEAST_SIZE, MOST_SIZE)
    if limit_per_class is not None:
        checks.whole("limit_per_class", limit_per_class, 1)
    checks.flag("progress", progress)
    cache = cache if isinstance(cache, bool) else checks.path("cache", cache)
    how = {"cache": cache, "progress": progress}
    root = Path.home() / ".cache" / "yoco" if root is None or root == "" else checks.path("root", root)
    if check_name(name).startswith("folder:"):
        return _folder(checks.path("name", name.removeprefix("folder:")), size, limit_per_class, how)
    if name == "imagenet10":
        data = _folder(root, size or 224, limit_per_class, how, IMAGENET10)
        return replace(data, name=name, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    data = _digits(size or 16) if name == "digits" else _cifar(name, root, size)
    return _limited(data, limit_per_class)


def check_name(dataset: str) -> str:
    """`dataset` if `load` knows such a name. Raises ValueError that lists the names; whether a folder is there is not looked at."""
    if dataset == "folder:PATH":
        raise ValueError("folder:PATH stands for a path of yours: folder:~/pictures, say")
    return dataset if dataset.startswith("folder:") else checks.one_of("dataset", dataset, (*NAMES, "folder:PATH"))


def name_of(dataset: str) -> str:
    """The name that data loaded as `dataset` carries: of a folder only its last part, which holds on every machine."""
    if not dataset.startswith("folder:"):
        return dataset
    return f"folder:{Path(dataset.removeprefix('folder:')).expanduser().resolve().name}"


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 images [N, C, H, W], in 0..1 (a constant channel counts as std 1)."""
    return _statistics(decode.histogram(images))


def _statistics(counts: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The same from how often each value is in each channel, int64 [C, 256]."""
    values = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for count in counts:
        share = count / int(count.sum())
        mean = (share * values).sum()
        means.append(mean.item())
        stds.append((share * (values - mean) ** 2).sum().sqrt().item() or 1.0)
    return tuple(means), tuple(stds)


def to_floats(images: Tensor) -> Tensor:
    """uint8 images, or floats of any precision, to float32 in 0..1."""
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def resize(images: Tensor, size: int) -> Tensor:
    """uint8 [N, C, S, S] -> uint8 [N, C, size, size], bilinear with antialiasing."""
    if images.shape[-1] == size:
        return images
    scaled = F.interpolate(images.float(), (size, size), mode="bilinear", align_corners=False, antialias=True)
    return scaled.round().clamp(0, 255).to(torch.uint8)


def _digits(size: int) -> ImageData:
    """scikit-learn's 1,797 digits, 8×8 in 0..16; a fixed stratified fifth is the test set."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    train, test = train_test_split(np.arange(len(labels)), test_size=0.2, random_state=0, stratify=labels)
    pixels = resize(torch.from_numpy(images / 16 * 255).round().to(torch.uint8).view(-1, 1, 8, 8), size)
    targets = torch.from_numpy(labels).long()
    classes = tuple(map(str, range(10)))
    mean, std = channel_statistics(pixels[train])
    return ImageData("digits", pixels[train], targets[train], pixels[test], targets[test], classes, mean, std)


def _cifar(name: str, root: Path, size: int | None) -> ImageData:
    from torchvision import datasets

    source = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    splits = []
    for train in (True, False):
        split = source(root, train=train, download=True)
        pixels = torch.from_numpy(split.data).permute(0, 3, 1, 2).contiguous()
        splits += [resize(pixels, size or pixels.shape[-1]), torch.tensor(split.targets)]
    return ImageData(name, *splits, tuple(split.classes), CIFAR_MEAN, CIFAR_STD)


def _limited(data: ImageData, limit: int | None) -> ImageData:
    if limit is None:
        return data
    train, test = (_first_of_each(labels, limit) for labels in (data.train_labels, data.test_labels))
    return replace(
        data,
        train_images=data.train_images[train],
        train_labels=data.train_labels[train],
        test_images=data.test_images[test],
        test_labels=data.test_labels[test],
    )


def _first_of_each(labels: Tensor, limit: int) -> Tensor:
    return torch.cat([torch.nonzero(labels == k).flatten()[:limit] for k in labels.unique()]).sort().values


def _folder(path: Path, size: int | None, limit: int | None, how: Mapping[str, Any], classes: Sequence[str] = ()) -> ImageData:
    """Read train/ and test/ (or val/) under `path`; `classes`: the sub-folders to take, in that order (none: all, sorted).
    how: options of `pixels.read`."""
    train, train_labels, names = _read_split(_split(path, TRAIN), classes, size, limit, how)
    test, test_labels, _ = _read_split(_split(path, TEST), names, size or train.images.shape[-1], limit, how)
    mean, std = _statistics(train.counts)
    return ImageData(name_of(f"folder:{path}"), train.images, train_labels, test.images, test_labels, tuple(names), mean, std)


def _split(path: Path, names: Sequence[str]) -> Path:
    if not path.is_dir():
        raise FileNotFoundError(f"no folder at {path}")
    for name in names:
        if (path / name).is_dir():
            return path / name
    raise FileNotFoundError(f"{path} has no folder {' or '.join(names)}; wanted: train/ and test/ (or val/), a folder a class in each")


def _read_split(
    folder: Path, classes: Sequence[str], size: int | None, limit: int | None, how: Mapping[str, Any]
) -> tuple[pixels.Pixels, Tensor, list[str]]:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    found = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    missing = sorted(set(classes) - set(found))
    if missing:
        raise FileNotFoundError(f"{folder} has no folder for class {', '.join(missing[:5])}")
    classes = list(classes or found)
    if len(classes) < 2:
        raise ValueError(f"{folder}: at least 2 class folders are needed, got {len(classes)}")
    names, labels = [], []
    for label, name in enumerate(classes):
        images = _files(folder, name, IMG_EXTENSIONS)[:limit]
        if not images:
            raise FileNotFoundError(f"no images in {folder / name}; read are {' '.join(IMG_EXTENSIONS)}")
        names += images
        labels += [label] * len(images)
    source = decode.Source(folder, names, size, limit)
    return pixels.read(source, title=f"reading {folder.name}", **how), torch.tensor(labels), classes


def _files(folder: Path, name: str, endings: Sequence[str]) -> list[str]:
    """Files with these endings anywhere under folder/name, relative to `folder`, as text: a million Paths would be a gigabyte."""
    walked = ((os.path.relpath(place, folder), inside) for place, _, inside in os.walk(folder / name))
    found = (os.path.join(place, file) for place, inside in walked for file in inside if os.path.splitext(file)[1].lower() in endings)
    return sorted(found, key=lambda path: path.split(os.sep))
