"""Images and labels in memory, or in another library's dataset, as uint8 tensors."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image
from torch import Tensor

from yoco.data import decode
from yoco.data.image_data import ImageData, drawn_for_test
from yoco.data.normalise import channel_statistics
from yoco.utils import checks

# test splits of a Hugging Face dataset; the first that exists is used
TEST = ("test", "validation", "valid", "val")
LEAST_SIZE, MOST_SIZE = 8, 4096  # side in pixels that images can be resized to
TEST_SHARE = 0.2  # of each class, if there is no test split


class Split(NamedTuple):
    """One split of a dataset.

    Attributes:
        images, labels: its images, and the number of each one's class.
        classes: their names, if the source has them.
    """

    images: UInt8[Tensor, "images channels size size"]
    labels: Int[Tensor, "images"]
    classes: tuple[str, ...] | None = None


def is_dataset(value: object) -> bool:
    """Return whether `value` is a dataset of (image, label) pairs or rows, not an array or list."""
    return (
        hasattr(value, "__getitem__")
        and hasattr(value, "__len__")
        and not isinstance(value, (Tensor, np.ndarray, list, tuple, str, dict))
    )


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
    """Make an `ImageData` from images in memory or from another library's dataset.

    Args:
        train_images, test_images: NumPy arrays or tensors, uint8 or float in 0..1 (stored as
            uint8), [N, H, W], [N, H, W, C] or [N, C, H, W]; lists of such images or of PIL images;
            or torchvision or Hugging Face datasets. test_images=None: a share of each class of
            the training images, always the same ones, with a message.
        train_labels, test_labels: whole numbers in 0..K-1 [N]; None for a dataset, which has its
            own.
        classes: names; None: the dataset's, or "0", "1", …
        name: name of the data, stored in the info of what is made from it.
        size: side to which images are resized and cropped; None: they must be square and of one
            size.
        test_share: share of each class that is drawn if there are no test images; None: missing
            test images are an error.

    Returns:
        The images, with mean and std computed from the training images.

    Raises:
        TypeError, ValueError: if images, labels and classes have another form or do not fit
            together.
    """
    checks.instance("name", name, str)
    if size is not None:
        checks.whole("size", size, LEAST_SIZE, MOST_SIZE)
    if is_dataset(train_labels) and test_images is None and test_labels is None:
        train_labels, test_images = None, train_labels  # from_arrays(train_dataset, test_dataset)
    if test_images is None and test_labels is not None:
        raise ValueError("test_images must be given if test_labels are, got None")
    share = checked_share(test_share)
    train = split("train", train_images, train_labels, size)
    test = (
        _drawn(train, share, name)
        if test_images is None
        else (train, split("test", test_images, test_labels, size))
    )
    (images, labels, told), (test_images, test_labels, others) = test
    if told and others and told != others:
        odd = sorted({*told} ^ {*others})[:5] or "another order"
        raise ValueError(f"training and test dataset must have the same classes, but differ: {odd}")
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


def _drawn(whole: Split, share: float | None, name: str) -> tuple[Split, Split]:
    """Return training and test images, see `drawn_for_test`."""
    if share is None:
        raise ValueError(f"{name} has no test images: pass some, or test_share=")
    drawn = drawn_for_test(name, whole.labels, share)
    first, second = (
        whole._replace(images=whole.images[part], labels=whole.labels[part])
        for part in (~drawn, drawn)
    )
    return first, second


def checked_share(share: float | None) -> float | None:
    """Return `share` if that share of each class can be drawn, or None; else raise ValueError."""
    return None if share is None else checks.real("test_share", share, 0.01, 0.99)


def split(name: str, images: object, labels: object, size: int | None = None) -> Split:
    """Take one split.

    Args:
        name: name of the split, for errors.
        images: NumPy or torch, uint8 or float in 0..1 (stored as uint8: off by at most 1/510), [N,
            H, W], [N, H, W, C] or [N, C, H, W] with C of 1 or 3; a list of such images or of PIL
            images; or a dataset of torchvision or Hugging Face.
        labels: whole numbers [N]; None: those of the dataset.
        size: side to which images are resized and cropped; None: they must be square and alike.

    Raises:
        TypeError, ValueError: if images or labels are anything else or do not fit each other.
    """
    classes = None
    if is_dataset(images):
        if labels is not None:
            raise TypeError(
                f"{name}_labels must be None for a dataset, which has its own, got "
                f"{type(labels).__name__}"
            )
        images, labels, classes = (
            _of_rows(name, images) if hasattr(images, "column_names") else _of_pairs(name, images)
        )
    pixels = _pixels(f"{name}_images", images, size)
    return Split(pixels, _labels(f"{name}_labels", labels, len(pixels)), classes)


def _of_pairs(name: str, dataset: Any) -> tuple[list[Any], list[Any], tuple[str, ...] | None]:
    """Read a torch dataset: items (image, label)."""
    items = [dataset[number] for number in range(len(dataset))]
    if not items or not all(isinstance(item, (tuple, list)) and len(item) == 2 for item in items):
        raise TypeError(
            f"{name}: a dataset must hold (image, label) pairs, at least one, got "
            f"{checks.shown(items[:1])}"
        )
    classes = getattr(dataset, "classes", None)
    return (
        [image for image, _ in items],
        [label for _, label in items],
        None if classes is None else tuple(map(str, classes)),
    )


def _of_rows(name: str, dataset: Any) -> tuple[list[Any], list[Any], tuple[str, ...] | None]:
    """Read a Hugging Face dataset: its column of images and its column of labels."""
    kinds = {column: type(feature).__name__ for column, feature in dataset.features.items()}
    image = next((column for column, kind in kinds.items() if kind == "Image"), None)
    label = next((column for column in ("label", "labels", "fine_label") if column in kinds), None)
    label = label or next((column for column, kind in kinds.items() if kind == "ClassLabel"), None)
    if image is None or label is None:
        raise ValueError(
            f"{name}: a dataset must have a column of images and one of labels, got {kinds}"
        )
    names = getattr(dataset.features[label], "names", None)
    rows = [dataset[number] for number in range(len(dataset))]
    return (
        [row[image] for row in rows],
        [row[label] for row in rows],
        None if names is None else tuple(names),
    )


def _pixels(name: str, images: Any, size: int | None) -> Tensor:
    if isinstance(images, (list, tuple)):
        images = _stacked(name, images, size)
    if not isinstance(images, (Tensor, np.ndarray)):
        raise TypeError(
            f"{name} must be a NumPy array, a tensor, a list of images or a dataset, got "
            f"{checks.shown(images)}"
        )
    values = torch.as_tensor(
        np.ascontiguousarray(images) if isinstance(images, np.ndarray) else images.detach().cpu()
    )
    if values.ndim == 3:
        values = values.unsqueeze(1)
    if values.ndim != 4 or 0 in values.shape or not {values.shape[1], values.shape[3]} & {1, 3}:
        raise ValueError(
            f"{name} must have shape [N, H, W], [N, H, W, C] or [N, C, H, W] with C of 1 or 3, "
            f"got {list(values.shape)}"
        )
    values = _bytes(name, values if values.shape[1] in (1, 3) else values.permute(0, 3, 1, 2))
    if size is not None and list(values.shape[2:]) != [size, size]:
        values = torch.stack([_array(decode.cropped(_picture(image), size)) for image in values])
    if values.shape[2] != values.shape[3]:
        raise ValueError(
            f"{name} must be square, got {values.shape[3]}x{values.shape[2]}; pass size= to resize "
            "and crop"
        )
    return values.clone(memory_format=torch.contiguous_format)  # the caller may change its own


def _bytes(name: str, values: Tensor) -> Tensor:
    if values.dtype == torch.uint8:
        return values
    if not values.is_floating_point():
        raise TypeError(f"{name} must be uint8, or floating point in 0..1, got {values.dtype}")
    low, high = checks.finite(name, values).min().item(), values.max().item()
    if low < 0 or high > 1:
        raise ValueError(
            f"{name} must lie in 0..1 if they are floats, got {low:.3g}..{high:.3g}; un-normalise "
            "them or divide them by the largest value"
        )
    return (values.float() * 255).round().to(torch.uint8)


def _stacked(name: str, images: Sequence[Any], size: int | None) -> Tensor:
    """Return a list of images, PIL's or arrays, as one tensor; grey only if all PIL images are."""
    if not images:
        raise ValueError(f"{name} must hold at least one image, got none")
    if all(isinstance(image, Image.Image) for image in images):
        plain = [decode.upright(image) for image in images]
        mode = "L" if all(image.mode in ("L", "1") for image in plain) else "RGB"
        images = [_array(decode.cropped(image.convert(mode), size)) for image in plain]
    parts = [torch.as_tensor(np.asarray(image)) for image in images]
    if shapes := {tuple(part.shape) for part in parts} - {tuple(parts[0].shape)}:
        raise ValueError(
            f"{name} must have one shape, got {list(parts[0].shape)} and {list(shapes.pop())}; "
            "pass PIL images and size= to resize them"
        )
    return torch.stack(parts)


def _picture(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).squeeze(-1).numpy())


def _array(image: Image.Image) -> Tensor:
    """Return a PIL image as uint8 [C, H, W]."""
    values = torch.from_numpy(np.array(image.convert("L") if image.mode == "1" else image))
    return values.unsqueeze(0) if values.ndim == 2 else values.permute(2, 0, 1)


def _labels(name: str, labels: Any, count: int) -> Tensor:
    try:
        values = torch.as_tensor(
            np.asarray(labels) if not isinstance(labels, Tensor) else labels
        ).cpu()
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be whole numbers [N], got {checks.shown(labels)}") from error
    if values.dtype == torch.bool or values.is_floating_point() or values.is_complex():
        raise TypeError(f"{name} must be whole numbers [N], got {values.dtype}")
    if values.numel() and values.min() < 0:
        raise ValueError(f"{name} must be at least 0, got {values.min()}")
    return checks.labels(name, values.long(), count).clone()


def hugging_face(name: str) -> tuple[Any, Any | None]:
    """Load a Hugging Face dataset: its training split, and its test split if it has one.

    Args:
        name: name on the hub, or a folder written by `save_to_disk`, or anything else that
            `load_dataset` accepts.

    Raises:
        ModuleNotFoundError: if the package datasets is not installed.
        ValueError: if there is no such dataset, or it has no training split.
    """
    try:
        import datasets
    except ImportError as error:
        raise ModuleNotFoundError(
            f"dataset hf:{name} needs the package datasets: pip install datasets"
        ) from error
    place = checks.path("dataset", name)
    saved = any((place / file).is_file() for file in ("dataset_dict.json", "state.json"))
    try:
        found = datasets.load_from_disk(str(place)) if saved else datasets.load_dataset(name)
    except Exception as error:  # the hub, a server or a script can raise nearly anything
        raise ValueError(f"dataset hf:{name} cannot be loaded: {error}") from error
    splits = dict(found) if hasattr(found, "keys") else {"train": found}
    if "train" not in splits:
        raise ValueError(f"dataset hf:{name} has no split train, only {', '.join(splits)}")
    return splits["train"], next((splits[word] for word in TEST if word in splits), None)
