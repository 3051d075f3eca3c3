"""Condensed sets as their authors publish them.

What a set is follows from the images, the labels and the name of its file.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from yoco.data.image_data import ImageData
from yoco.data.normalise import STATISTICS
from yoco.sets import exported, layouts, published_space
from yoco.sets.published_space import ROUNDING
from yoco.utils import checks

# recognised in file names
METHODS = (
    "idc",
    "dream",
    "dc",
    "dsa",
    "dm",
    "cafe",
    "mtt",
    "tesla",
    "ftd",
    "datm",
    "kip",
    "frepo",
    "rfad",
)
EXPORT = "an export of yoco"
MOST = 1000.0  # largest absolute value accepted; in published files it is 33
WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True, eq=False)
class Given:
    """What the user says about a published file: arguments of `CondensedSet.from_published`.

    Raises TypeError or ValueError for those that are wrong whatever the file holds.
    """

    method: str
    mean: Sequence[float] | None
    std: Sequence[float] | None
    classes: Sequence[str] | None
    dataset: str | None
    experiment: int
    whitened: bool | ImageData | None

    def __post_init__(self) -> None:
        checks.one_of("method", self.method, ("auto", *METHODS))
        checks.whole("experiment", self.experiment, 0)
        if self.classes is not None:
            checks.class_names("classes", self.classes)
        if (self.mean is None) != (self.std is None):
            raise ValueError(f"mean and std go together, got mean={self.mean} and std={self.std}")
        if self.dataset is not None and not isinstance(self.dataset, str):
            raise TypeError(f"dataset must be a name, got {self.dataset!r}")
        if not (self.whitened is None or isinstance(self.whitened, (bool, ImageData))):
            raise TypeError(
                "whitened must be True, False, None (unknown) or the real data, got "
                f"{checks.shown(self.whitened)}"
            )

    def check_unneeded(self) -> None:
        """Raise ValueError if anything is said, since an export of yoco says it itself."""
        left_out = {"method": "auto", "experiment": 0}
        for name, value in vars(self).items():
            if value is not None and (name not in left_out or value != left_out[name]):
                raise ValueError(f"{name} cannot be given for an export of yoco, which has its own")

    @property
    def real(self) -> ImageData | None:
        """The real data of the set."""
        return self.whitened if isinstance(self.whitened, ImageData) else None

    @property
    def statistics(self) -> tuple[Sequence[float], Sequence[float]] | None:
        """Mean and std; the real data's if none are given."""
        if self.mean is not None and self.std is not None:
            return self.mean, self.std
        return (self.real.mean, self.real.std) if self.real else None

    def dataset_of(self, words: Sequence[str]) -> str | None:
        """Return the given dataset's name, else the real data's, else one from the file's name."""
        named = next((word for word in words if word in STATISTICS), None)
        return self.dataset or (self.real.name if self.real else None) or named

    def method_of(self, words: Sequence[str], layout: str) -> str:
        """Return the given method, else one from the file's name, else the layout's."""
        named = next((word for word in words if word in METHODS), layout)
        return named if self.method == "auto" else self.method


def read(path: Path, given: Given) -> tuple[dict[str, Any], str]:
    """Read a published file.

    Args:
        path: the file, or a folder that holds one set.
        given: what is known about it.

    Returns:
        The fields of the set, and a description of how the file was read.

    Raises:
        FileNotFoundError, TypeError, ValueError: as `CondensedSet.from_published`.
    """
    path = layouts.images_of(path)
    held = layouts.read(path, given.experiment)
    images = _images(held.images)
    if held.header is not None:
        given.check_unneeded()
        labels = _tensor(held.labels, "labels")
        fields = exported.fields(held.header)
        return {"images": images, "labels": labels, **fields}, EXPORT
    if (largest := images.abs().max().item()) > MOST:
        raise ValueError(
            f"images must be pixels in 0..1, or normalised; got values up to {largest:.3g}"
        )
    return _taken(path, held, images, given)


def _taken(
    path: Path, held: layouts.Held, images: Tensor, given: Given
) -> tuple[dict[str, Any], str]:
    """As `read`, for a file that yoco did not write."""
    labels, kind = _labels(held.labels, held.labels_at)
    real = given.real
    names = _names(
        labels, len(images), real.classes if real and given.classes is None else given.classes
    )
    # before sorting, which would lose images without a label
    checks.targets("labels", labels, len(images), len(names))
    words = re.split(r"[_.\-\s]+", path.stem.lower())
    dataset = given.dataset_of(words)
    method = given.method_of(words, "datm" if kind and held.method == "mtt" else held.method)
    space = published_space.find(
        images,
        given.statistics,
        dataset,
        None if given.whitened is None else given.whitened is not False,
        method=method,
        classes=len(names),
        words=words,
    )
    if real and images.shape[1:] != real.train_images.shape[1:]:
        raise ValueError(
            f"whitened must be data with images of shape {list(images.shape[1:])} as in the file, "
            f"got {list(real.train_images.shape[1:])}"
        )
    info = {
        "source": path.name,
        "published_by": method,
        "layout": held.layout,
        "statistics": space.whose,
        "outside": space.outside,
        **({"labels": kind} if kind else {}),
        **({"dataset": dataset} if dataset else {}),
    }
    order = (labels.argmax(1) if labels.ndim == 2 else labels).argsort(stable=True)
    fields = {
        "images": space.images[order].contiguous(),
        "labels": labels[order],
        "factor": None,
        "classes": names,
        "mean": space.mean,
        "std": space.std,
        "bounded": space.bounded,
        "whitening": space.whitening,
        "method": method,
        "info": info,
    }
    many = f"{len(images)} images of {len(names)} classes{kind and f' with {kind}'}"
    return fields, f"{held.layout}, taken for {method}'s: {many}; {space.told}"


def _tensor(held: object, name: str) -> Tensor:
    """Return `held` if it is a tensor with values in memory and a dtype that torch computes in."""
    plain = checks.tensor(name, held, "of numbers").detach()
    if plain.is_floating_point() and plain.dtype not in checks.FLOATS:
        raise TypeError(f"{name} must have a dtype that torch computes in, got {plain.dtype}")
    return plain


def _images(held: object) -> Tensor:
    """Return float images [N, C, S, S], from channels first or last."""
    images = _tensor(held, "images")
    if not images.is_floating_point():
        raise TypeError(f"images must be a plain float tensor, got {images.dtype}")
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(
            f"images must have four dimensions, with no empty dimension, got {list(images.shape)}"
        )
    last = images.shape[1] not in (1, 3) and images.shape[3] in (1, 3)
    return checks.finite("images", (images.permute(0, 3, 1, 2) if last else images).float())


def _labels(held: object, where: str) -> tuple[Tensor, str]:
    """Return labels int64 [N], or soft targets float [N, K], and what the latter were made from."""
    held = _tensor(held, f"labels ({where})")
    if held.ndim == 1 and held.dtype in WHOLE:
        return held.long(), ""
    if not held.is_floating_point() or held.ndim != 2 or held.shape[1] < 2:
        raise TypeError(
            f"labels ({where}) must be whole numbers [N] or float [N, K], got {held.dtype} "
            f"{list(held.shape)}"
        )
    values = checks.finite(f"labels ({where})", held.float())
    if (values == values[:, :1]).all(1).any():
        raise ValueError(
            f"labels ({where}) must single out a class in every row, but some rows are constant"
        )
    off = values.sum(1, keepdim=True) - 1
    if values.min() >= 0 and off.abs().max() <= 1e-3:
        targets, kind = values / values.sum(1, keepdim=True), "soft labels"
    # centred one-hot labels of kernel methods, possibly learned from there
    elif values.abs().max() <= 1.5:
        targets, kind = (
            F.normalize((values - off / values.shape[1]).clamp(min=0), p=1, dim=1),
            ("soft labels (centred)"),
        )
    else:
        targets, kind = values.softmax(1), "soft labels (logits)"
    return (targets.argmax(1), "") if (targets.amax(1) > 1 - ROUNDING).all() else (targets, kind)


def _names(labels: Tensor, count: int, classes: Sequence[str] | None) -> tuple[str, ...]:
    if classes is not None:
        return tuple(classes)
    # at most one class per image, so that an absurd label does not make an absurd list of names
    known = (
        labels.shape[1]
        if labels.ndim == 2
        else min(int(labels.max()) + 1, count)
        if len(labels)
        else 0
    )
    return tuple(map(str, range(known)))
