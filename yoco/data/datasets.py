"""Datasets by name: which names exist, and the images behind one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from yoco.data import arrays, builtin, decode, folders, pixel_cache
from yoco.data.arrays import LEAST_SIZE, MOST_SIZE, TEST_SHARE, checked_share, from_arrays
from yoco.data.image_data import ImageData, resize
from yoco.data.normalise import IMAGENET_MEAN, IMAGENET_STD, statistics_of
from yoco.utils import checks, importable

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
PREFIXES = ("folder:", "hf:")  # of names that say where the images are
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


class Reading(NamedTuple):
    """How images are read: the arguments of `load` with these names, checked."""

    size: int | None
    limit_per_class: int | None
    progress: bool
    cache: Path | bool
    test_share: float | None
    follow_links: bool


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
            "folder:PATH" (train/ beside test/, val/ or valid/, with one folder per class, read as
            RGB); "hf:NAME" (a Hugging Face dataset, by name or folder; needs the package datasets);
            "package.module:function" (your own function, called without arguments, that returns
            an `ImageData`).
        root: folder of the dataset, or of its download; None: ~/.cache/yoco.
        size: side to which images are resized (the shorter side, then a centre crop); None keeps
            their size.
        limit_per_class: maximum number of images per class in each split; the first ones are kept.
        progress: whether to show a bar while files are decoded.
        cache: where the decoded pixels of a folder are stored and mapped from (see
            `pixel_cache.read`): a folder, True for $YOCO_CACHE or ~/.cache/yoco/pixels, False for
            memory.
        test_share: if a folder or Hugging Face dataset has no test split, the share of each class
            that is drawn as test images, always the same ones, with a message; None: such a dataset
            is an error.
        follow_links: whether symbolic links may lead out of the folder.

    Returns:
        The images. Rotated, transparent, and 16- or 32-bit files are read as `decode.upright`
            describes.
            Hidden files are skipped; all other files that are not read are counted in one warning.

    Raises:
        ValueError: if the name is unknown, images have several sizes without `size`, there is only
            one class, or an image (named) cannot be read.
        FileNotFoundError: if a folder is missing or holds no images.
        ModuleNotFoundError: if the package for "hf:" is missing.
        OSError: if there is no space for the cache.
    """
    checks.instance("name", name, str)
    if size is not None:
        checks.whole("size", size, LEAST_SIZE, MOST_SIZE)
    if limit_per_class is not None:
        checks.whole("limit_per_class", limit_per_class, 1)
    how = Reading(
        size,
        limit_per_class,
        checks.flag("progress", progress),
        cache if isinstance(cache, bool) else checks.path("cache", cache),
        checked_share(test_share),
        checks.flag("follow_links", follow_links),
    )
    root = Path.home() / ".cache" / "yoco" if root in (None, "") else checks.path("root", root)
    return _by_name(check_name(name), root, how)


def _by_name(name: str, root: Path, how: Reading) -> ImageData:
    if name.startswith("folder:"):
        return _folder(checks.path("name", name.removeprefix("folder:")), how)
    if name == "imagenet10":
        how = how._replace(size=how.size or 224, test_share=None)
        data = _folder(root, how, IMAGENET10)
        return replace(data, name=name, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    return _whole(name, root, how).first_of_each(how.limit_per_class)


def _whole(name: str, root: Path, how: Reading) -> ImageData:
    """Load a dataset that is read completely, even with a limit per class."""
    if name.startswith("hf:"):
        train, test = arrays.hugging_face(name.removeprefix("hf:"))
        share = how.test_share
        return from_arrays(
            train, None, test, None, name=name_of(name), size=how.size, test_share=share
        )
    if ":" in name:
        return _own(name, how.size)
    if name == "tinyimagenet":
        data = _listed(name, folders.tiny_imagenet(root), how._replace(limit_per_class=None))
        return replace(data, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    if name == "digits":
        return builtin.digits(how.size or 16)
    return builtin.torchvision(name, root, how.size)


def _own(name: str, size: int | None) -> ImageData:
    """Return what the user's function returns, with its path as name."""
    data = function(name)()
    if not isinstance(data, ImageData):
        raise TypeError(
            f"dataset={name!r} must return an ImageData (see yoco.data.from_arrays), got "
            f"{checks.shown(data)}"
        )
    train, test = (
        resize(split, size or data.size) for split in (data.train_images, data.test_images)
    )
    return replace(data, name=name, train_images=train, test_images=test)


def _folder(path: Path, how: Reading, classes: Sequence[str] = ()) -> ImageData:
    """Read the two splits under `path`.

    classes: the sub-folders to take, in that order (none: all, sorted).
    """
    splits = folders.listed(
        path,
        classes,
        how.limit_per_class,
        test_share=how.test_share,
        follow_links=how.follow_links,
    )
    return _listed(name_of(f"folder:{path}"), splits, how)


def _listed(
    name: str, splits: tuple[folders.Listed, folders.Listed, Sequence[str]], how: Reading
) -> ImageData:
    """Decode the files of both splits."""
    first, second, classes = splits
    train = _read(first, how)
    # a test split of one other size is resized and cropped to that of the training images
    test = _read(second, how._replace(size=how.size or train.images.shape[-1]))
    return ImageData(
        name,
        train.images,
        torch.tensor(first.labels),
        test.images,
        torch.tensor(second.labels),
        tuple(classes),
        *statistics_of(train.counts),
    )


def _read(split: folders.Listed, how: Reading) -> pixel_cache.Pixels:
    return pixel_cache.read(
        decode.Source(split.root, split.names, how.size, how.limit_per_class),
        title=f"reading {split.root.name}",
        cache=how.cache,
        progress=how.progress,
    )


def check_name(dataset: str) -> str:
    """Return `dataset` if `load` knows such a name, else raise a ValueError that lists the names.

    A function must be importable; whether a folder exists is not checked.
    """
    if dataset in FORMS or dataset in PREFIXES:
        raise ValueError(
            f"{dataset} is a placeholder for your own data, for example folder:~/pictures, "
            "hf:mnist or mypackage.data:flowers"
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
    """Return the function at "package.module:function".

    Raises ValueError if it cannot be imported, TypeError if it is not callable.
    """
    found = importable.find("dataset", dataset)
    if not callable(found):
        raise TypeError(
            f"dataset={dataset!r} must be a function that returns an ImageData, got "
            f"{checks.shown(found)}"
        )
    return found


def name_of(dataset: str) -> str:
    """Return the name that data loaded as `dataset` has.

    For a folder it is only the last part of the path, which is the same on every machine.
    """
    if dataset.startswith("hf:"):
        return f"hf:{dataset.removeprefix('hf:').rstrip('/').split('/')[-1]}"
    if not dataset.startswith("folder:"):
        return dataset
    return f"folder:{checks.path('dataset', dataset.removeprefix('folder:')).resolve().name}"
