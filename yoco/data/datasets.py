"""A dataset by name: its images and labels as uint8 tensors (`ImageData`), in memory or mapped from
a cache of pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from yoco.data import arrays, decode, folders, pixel_cache
from yoco.data.normalise import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    STATISTICS,
    channel_statistics,
    statistics_of,
)
from yoco.utils import checks, importable, seeds

NAMES = (
    "digits",
    "cifar10",
    "cifar100",
    "imagenet10",
    "mnist",
    "fashionmnist",
    "svhn",
    "tinyimagenet",
)
PREFIXES = ("folder:", "hf:")  # of names that tell where the images are
FORMS = ("folder:PATH", "hf:NAME", "package.module:function")
IMAGENET10 = (  # class list and order of design §6
    "n02869837",
    "n01749939",
    "n02488291",
    "n02107142",
    "n13037406",
    "n02091831",
    "n04517823",
    "n04589890",
    "n03062245",
    "n01773797",
)
LEAST_SIZE, MOST_SIZE = 8, 4096  # pixels a side that images can be resized to
TEST_SHARE = 0.2  # of each class, if there is no test split


@dataclass(frozen=True, eq=False)
class ImageData:
    """Real images: uint8 [N, C, S, S]; labels int64 [N]; mean and std of the training images per
    channel, in 0..1.

    Raises TypeError or ValueError if shapes, types, labels, classes or statistics do not fit, a
    class has no training image, there is one class alone, or the test set is empty.
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
        for split, images, labels in (
            ("train", self.train_images, self.train_labels),
            ("test", self.test_images, self.test_labels),
        ):
            checks.images(f"{split}_images", images)
            if images.dtype != torch.uint8:
                raise TypeError(f"{split}_images must be uint8, got {images.dtype}")
            checks.labels(f"{split}_labels", labels, len(images), len(self.classes))
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise ValueError(
                f"train and test images differ in shape: {list(self.train_images.shape[1:])}, "
                f"{list(self.test_images.shape[1:])}"
            )
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
        """Raise a ValueError unless every class has at least `count` training images, which `what`
        asks for.
        """
        short = [f"{name} ({n})" for name, n in zip(self.classes, self.counts()) if n < count]
        if short:
            raise ValueError(
                f"{what} needs {count} images of every class; too few in: {', '.join(short[:5])}"
            )


def load(
    name: str,
    root: str | Path | None = None,
    *,
    size: int | None = None,
    limit_per_class: int | None = None,
    progress: bool = True,
    cache: str | Path | bool = True,
    test_share: float | None = TEST_SHARE,
    follow_links: bool = False,
) -> ImageData:
    """Load a dataset by name.

    Args:
        name: "digits" (scikit-learn's, embedded, resized to 16×16); "cifar10", "cifar100", "mnist",
            "fashionmnist" or "svhn" (torchvision's, downloaded to root); "imagenet10" (root holds
            ImageNet's train/ and val/; 224×224); "tinyimagenet" (root holds tiny-imagenet-200/);
            "folder:PATH" (train/ beside test/, val/ or valid/, with a folder per class, read as
            RGB); "hf:NAME" (a Hugging Face dataset, by name or folder; needs the package datasets);
            "package.module:function" (what that function of yours gives, called without arguments:
            an `ImageData`).
        root: None is ~/.cache/yoco.
        size: images are resized to it (the shorter side, then a central crop); None keeps their
            own.
        limit_per_class: that many images of a class at most, the first ones, in either split.
        progress: whether to show a bar while files are decoded.
        cache: where the pixels of a folder are kept, decoded once, and mapped from (see
            `pixel_cache.read`): a folder, True for $YOCO_CACHE or ~/.cache/yoco/pixels, False for
            memory.
        test_share: of a folder or Hugging Face dataset without a test split, the share of each
            class that is drawn as test images, always the same ones, and said so; None: such a
            dataset is an error.
        follow_links: whether symbolic links may leave the folder.

    Returns:
        The images. Files that are rotated, transparent, or of more than 8 bits are read as
        `decode.upright` describes. Hidden files are skipped; all others that are not read are
        counted in one warning.

    Raises:
        ValueError: if the name is unknown, images have several sizes without `size`, there is one
            class, or an image (named) cannot be read.
        FileNotFoundError: if a folder is missing or holds no images.
        ModuleNotFoundError: if "hf:" lacks its package.
        OSError: if the cache has no room.
    """
    checks.instance("name", name, str)
    if size is not None:
        checks.whole("size", size, LEAST_SIZE, MOST_SIZE)
    if limit_per_class is not None:
        checks.whole("limit_per_class", limit_per_class, 1)
    checks.flag("progress", progress)
    listing: dict[str, Any] = {
        "test_share": _checked_share(test_share),
        "follow_links": checks.flag("follow_links", follow_links),
    }
    cache = cache if isinstance(cache, bool) else checks.path("cache", cache)
    how = {"cache": cache, "progress": progress}
    root = (
        Path.home() / ".cache" / "yoco" if root is None or root == "" else checks.path("root", root)
    )
    return _by_name(name, root, size, limit_per_class, how, listing)


def _by_name(
    name: str,
    root: Path,
    size: int | None,
    limit_per_class: int | None,
    how: Mapping[str, Any],
    listing: Mapping[str, Any],
) -> ImageData:
    """`load` with checked arguments; how: options of `pixel_cache.read`; listing: of
    `folders.listed`.
    """
    test_share, follow_links = listing["test_share"], listing["follow_links"]
    if check_name(name).startswith("folder:"):
        return _folder(
            checks.path("name", name.removeprefix("folder:")), size, limit_per_class, how, **listing
        )
    if name.startswith("hf:"):
        return _limited(_hugging_face(name, size, test_share), limit_per_class)
    if ":" in name:
        return _limited(_own(name, size), limit_per_class)
    if name == "imagenet10":
        data = _folder(
            root, size or 224, limit_per_class, how, IMAGENET10, follow_links=follow_links
        )
        return replace(data, name=name, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    if name == "tinyimagenet":
        data = _listed(name, folders.tiny_imagenet(root), size, None, how)
        return _limited(replace(data, mean=IMAGENET_MEAN, std=IMAGENET_STD), limit_per_class)
    data = _digits(size or 16) if name == "digits" else _torchvision(name, root, size)
    return _limited(data, limit_per_class)


def from_arrays(
    train_images: Any,
    train_labels: Any = None,
    test_images: Any = None,
    test_labels: Any = None,
    classes: Sequence[str] | None = None,
    name: str = "mine",
    *,
    size: int | None = None,
    test_share: float | None = TEST_SHARE,
) -> ImageData:
    """Take images that are in memory, or in another library's dataset.

    Args:
        train_images, test_images: NumPy arrays or tensors, uint8 or float in 0..1 (kept as uint8),
            [N, H, W], [N, H, W, C] or [N, C, H, W]; lists of such images or of PIL's; or datasets
            of torchvision or Hugging Face. test_images=None: a share of each class of the training
            images, always the same ones, and said so.
        train_labels, test_labels: whole numbers in 0..K-1 [N]; None for a dataset, which has its
            own.
        classes: names; None: the dataset's, or "0", "1", …
        name: of the data, in the info of what is made from them.
        size: side that images are resized and cropped to; None: they are square and alike.
        test_share: the share of each class that is drawn if there are no test images; None: that is
            an error.

    Returns:
        The images, with mean and std computed from the training images.

    Raises:
        TypeError, ValueError: if images, labels and classes are anything else, or do not fit each
            other.
    """
    checks.instance("name", name, str)
    if size is not None:
        checks.whole("size", size, LEAST_SIZE, MOST_SIZE)
    if arrays.is_dataset(train_labels) and test_images is None and test_labels is None:
        train_labels, test_images = None, train_labels  # from_arrays(train_dataset, test_dataset)
    share = _checked_share(test_share)
    train = arrays.split("train", train_images, train_labels, size)
    test = (
        _drawn(train, share, name)
        if test_images is None
        else (train, arrays.split("test", test_images, test_labels, size))
    )
    (images, labels, told), (test_images, test_labels, _) = test
    if classes is None:
        classes = told or tuple(map(str, range(min(int(labels.max()) + 1, len(labels)))))
    return ImageData(
        name,
        images,
        labels,
        test_images,
        test_labels,
        checks.class_names("classes", classes),
        *channel_statistics(images),
    )


def _drawn(
    whole: arrays.Split, share: float | None, name: str
) -> tuple[arrays.Split, arrays.Split]:
    """Training and test images, of each class the rounded share, at least one and not all, drawn
    with seed 0.
    """
    if share is None:
        raise ValueError(f"{name} has no test images: give some, or test_share=")
    drawn = seeds.drawn_of_each(whole.labels, share, seeds.generator(0, stream=5))
    print(
        f"{name} has no test split: {share:.0%} of each class, {int(drawn.sum())} images, were "
        "drawn as test images (seed 0)"
    )
    first, second = (
        whole._replace(images=whole.images[part], labels=whole.labels[part])
        for part in (~drawn, drawn)
    )
    return first, second


def _checked_share(share: float | None) -> float | None:
    return None if share is None else checks.real("test_share", share, 0.01, 0.99)


def check_name(dataset: str) -> str:
    """`dataset` if `load` knows such a name.

    Raises ValueError that lists the names; a function must be importable; whether a folder is there
    is not looked at.
    """
    if dataset in FORMS or dataset in PREFIXES:
        raise ValueError(
            f"{dataset} stands for one of yours: folder:~/pictures, hf:mnist or "
            "mypackage.data:flowers, say"
        )
    # a set of the zoo has no real images
    if ":" in dataset and not dataset.startswith((*PREFIXES, "zoo:")):
        function(dataset)
        return dataset
    return (
        dataset
        if dataset.startswith(PREFIXES)
        else checks.one_of("dataset", dataset, (*NAMES, *FORMS))
    )


def function(dataset: str) -> Callable[[], ImageData]:
    """The function at "package.module:function".

    Raises ValueError if it cannot be imported, TypeError if it is none.
    """
    found = importable.find("dataset", dataset)
    if not callable(found):
        raise TypeError(
            f"dataset={dataset!r} must be a function that returns an ImageData, got "
            f"{checks.shown(found)}"
        )
    return found


def name_of(dataset: str) -> str:
    """The name that data loaded as `dataset` carries: of a folder only its last part, which holds
    on every machine.
    """
    if dataset.startswith("hf:"):
        return f"hf:{dataset.removeprefix('hf:').rstrip('/').split('/')[-1]}"
    if not dataset.startswith("folder:"):
        return dataset
    return f"folder:{Path(dataset.removeprefix('folder:')).expanduser().resolve().name}"


def resize(images: Tensor, size: int) -> Tensor:
    """uint8 [N, C, S, S] -> uint8 [N, C, size, size], bilinear with antialiasing."""
    if images.shape[-1] == size:
        return images
    scaled = F.interpolate(
        images.float(), (size, size), mode="bilinear", align_corners=False, antialias=True
    )
    return scaled.round().clamp(0, 255).to(torch.uint8)


def _digits(size: int) -> ImageData:
    """scikit-learn's 1,797 digits, 8×8 in 0..16; a fixed stratified fifth is the test set."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=0.2, random_state=0, stratify=labels
    )
    pixels = resize(
        torch.from_numpy(images / 16 * 255).round().to(torch.uint8).view(-1, 1, 8, 8), size
    )
    targets = torch.from_numpy(labels).long()
    classes = tuple(map(str, range(10)))
    mean, std = channel_statistics(pixels[train])
    return ImageData(
        "digits", pixels[train], targets[train], pixels[test], targets[test], classes, mean, std
    )


def _torchvision(name: str, root: Path, size: int | None) -> ImageData:
    from torchvision import datasets

    source = {
        "cifar10": datasets.CIFAR10,
        "cifar100": datasets.CIFAR100,
        "mnist": datasets.MNIST,
        "fashionmnist": datasets.FashionMNIST,
        "svhn": datasets.SVHN,
    }[name]
    splits = []
    for train in (True, False):
        chosen = {"split": "train" if train else "test"} if name == "svhn" else {"train": train}
        split = source(root, **chosen, download=True)
        labels = split.labels if name == "svhn" else split.targets
        taken = arrays.split("train" if train else "test", split.data, labels, None)
        splits.append((resize(taken.images, size or taken.images.shape[-1]), taken.labels))
    classes = tuple(map(str, range(10))) if name in ("svhn", "mnist") else tuple(split.classes)
    mean, std = STATISTICS["cifar10" if name == "cifar100" else name]
    (images, labels), (test_images, test_labels) = splits
    return ImageData(name, images, labels, test_images, test_labels, classes, mean, std)


def _hugging_face(name: str, size: int | None, test_share: float | None) -> ImageData:
    train, test = arrays.hugging_face(name.removeprefix("hf:"))
    return from_arrays(
        train, None, test, None, name=name_of(name), size=size, test_share=test_share
    )


def _own(name: str, size: int | None) -> ImageData:
    """What the user's function gives, under its path as name."""
    data = function(name)()
    if not isinstance(data, ImageData):
        raise TypeError(
            f"dataset={name!r} must return an ImageData (see yoco.data.from_arrays), got "
            f"{checks.shown(data)}"
        )
    resized: dict[str, Any] = {
        split: resize(getattr(data, split), size or data.size)
        for split in ("train_images", "test_images")
    }
    return replace(data, name=name, **resized)


def _limited(data: ImageData, limit: int | None) -> ImageData:
    if limit is None:
        return data
    train, test = (
        _first_of_each(labels, limit) for labels in (data.train_labels, data.test_labels)
    )
    return replace(
        data,
        train_images=data.train_images[train],
        train_labels=data.train_labels[train],
        test_images=data.test_images[test],
        test_labels=data.test_labels[test],
    )


def _first_of_each(labels: Tensor, limit: int) -> Tensor:
    return (
        torch.cat([torch.nonzero(labels == k).flatten()[:limit] for k in labels.unique()])
        .sort()
        .values
    )


def _folder(
    path: Path,
    size: int | None,
    limit: int | None,
    how: Mapping[str, Any],
    classes: Sequence[str] = (),
    **listing: Any,
) -> ImageData:
    """Read the two splits under `path`; classes: the sub-folders to take, in that order (none: all,
    sorted). how: options of `pixel_cache.read`; listing: of `folders.listed`.
    """
    return _listed(
        name_of(f"folder:{path}"), folders.listed(path, classes, limit, **listing), size, limit, how
    )


def _listed(
    name: str,
    splits: tuple[folders.Listed, folders.Listed, Sequence[str]],
    size: int | None,
    limit: int | None,
    how: Mapping[str, Any],
) -> ImageData:
    """Decode the files of both splits."""
    first, second, classes = splits
    train = _read(first, size, limit, how)
    test = _read(second, size or train.images.shape[-1], limit, how)
    labels = (torch.tensor(split.labels) for split in (first, second))
    mean, std = statistics_of(train.counts)
    return ImageData(
        name, train.images, next(labels), test.images, next(labels), tuple(classes), mean, std
    )


def _read(
    split: folders.Listed, size: int | None, limit: int | None, how: Mapping[str, Any]
) -> pixel_cache.Pixels:
    return pixel_cache.read(
        decode.Source(split.root, split.names, size, limit),
        title=f"reading {split.root.name}",
        **how,
    )
