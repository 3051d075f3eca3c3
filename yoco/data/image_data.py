"""`ImageData`: the real images of a dataset, in memory or mapped from a cache of pixels."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from yoco.utils import checks, digests, seeds


@dataclass(frozen=True, eq=False)
class ImageData:
    """Real images with their labels.

    mean and std are those of the training images per channel, in 0..1. Raises TypeError or
    ValueError if shapes, dtypes, labels, classes or statistics do not fit, a class has no training
    image, there is only one class, or the test set is empty.
    """

    name: str
    train_images: UInt8[Tensor, "images channels size size"]
    train_labels: Int[Tensor, "images"]
    test_images: UInt8[Tensor, "others channels size size"]
    test_labels: Int[Tensor, "others"]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", checks.class_names("classes", self.classes))
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
                "train and test images must have the same shape, got "
                f"{list(self.train_images.shape[1:])} and {list(self.test_images.shape[1:])}"
            )
        for name, values in checks.statistics(self.mean, self.std, self.channels).items():
            object.__setattr__(self, name, values)
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
        """Return the number of training images in each class."""
        return torch.bincount(self.train_labels, minlength=len(self.classes)).tolist()

    def require_per_class(self, what: str, count: int) -> None:
        """Raise ValueError unless every class has at least `count` training images.

        what: the setting that requires them, for the error.
        """
        short = [f"{name} ({n})" for name, n in zip(self.classes, self.counts()) if n < count]
        if short:
            raise ValueError(
                f"{what} needs {count} images of every class; too few in: {', '.join(short[:5])}"
            )

    @property
    def made_from(self) -> dict[str, str]:
        """Digests of what is condensed, by part (see `digests.check`)."""
        return {
            "training images": digests.of_tensor(self.train_images),
            "training labels": digests.of_tensor(self.train_labels),
            **self._told,
        }

    @property
    def tested_on(self) -> dict[str, str]:
        """Digests of what an accuracy depends on, by part."""
        return {
            "test images": digests.of_tensor(self.test_images),
            "test labels": digests.of_tensor(self.test_labels),
            **self._told,
        }

    @property
    def _told(self) -> dict[str, str]:
        return {
            "class names": digests.of_text(self.classes),
            "mean and std": digests.of_text((self.mean, self.std)),
        }

    def first_of_each(self, limit: int | None) -> "ImageData":
        """Return the data with at most the first `limit` images of each class in either split.

        None keeps all.
        """
        if limit is None:
            return self
        train, test = (first(labels, limit) for labels in (self.train_labels, self.test_labels))
        return replace(
            self,
            train_images=self.train_images[train],
            train_labels=self.train_labels[train],
            test_images=self.test_images[test],
            test_labels=self.test_labels[test],
        )


def first(labels: Int[Tensor, "images"], limit: int) -> Int[Tensor, "chosen"]:
    """Return the indices of the first `limit` images of each class, ascending."""
    of_each = [torch.nonzero(labels == label).flatten()[:limit] for label in labels.unique()]
    return torch.cat(of_each).sort().values


def drawn_for_test(
    name: str, labels: Int[Tensor, "images"], share: float
) -> Bool[Tensor, "images"]:
    """Return which images of data without a test split become it, and say how many.

    They are the rounded share of each class, drawn with seed 0: at least one image, and never all.
    Raises ValueError if a class has only one image.
    """
    if alone := torch.nonzero(labels.bincount() == 1).flatten().tolist():
        raise ValueError(
            f"there is no test split, and class {alone[0]} has only one image, which cannot be "
            "spared for it"
        )
    count = lambda size: min(max(round(size * share), 1), size - 1)
    drawn = seeds.choice_by_class(labels, count, seeds.generator(0, stream=5))
    print(
        f"{checks.printable(name)} has no test split: {share:.0%} of each class, "
        f"{int(drawn.sum())} images, were drawn as test images (seed 0)"
    )
    return drawn


def resize(
    images: UInt8[Tensor, "images channels old old"], size: int
) -> UInt8[Tensor, "images channels {size} {size}"]:
    """Resize images bilinearly with antialiasing."""
    if images.shape[-1] == size:
        return images
    scaled = F.interpolate(
        images.float(), (size, size), mode="bilinear", align_corners=False, antialias=True
    )
    return scaled.round().clamp(0, 255).to(torch.uint8)
