"""Condensed sets as their authors publish them: what a file's images, labels and name tell of the
set.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from yoco.data import normalise
from yoco.data.datasets import ImageData
from yoco.data.normalise import STATISTICS
from yoco.sets import exported, layouts
from yoco.utils import checks

# known by name
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
# whose code whitens standardised images; the others' whitens pixels
KERNEL = ("kip", "frepo", "rfad")
# of neighbouring pixels: 0.72 and above in the sets that were not whitened, 0.51 and below in
# whitened ones
CORRELATION = 0.65
OVERSHOOT = 0.25  # a larger share of values outside 0..1 is no overshoot of pixels
MOST = 1000.0  # of a value, either way: 33 in the files that are out there
ROUNDING = 1e-6
WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def read(
    path: Path,
    method: str,
    *,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    classes: Sequence[str] | None,
    dataset: str | None,
    experiment: int,
    whitened: bool | ImageData | None,
) -> tuple[dict[str, Any], str]:
    """Read a published file; see `CondensedSet.from_published`.

    Returns the fields of the set, and in words what it was taken for.
    """
    path = layouts.images_of(path)
    held = layouts.read(path, experiment)
    images = _images(held.images)
    if held.header is not None:
        return {
            "images": images,
            "labels": _tensor(held.labels, "labels"),
            **exported.fields(held.header),
        }, ("an export of yoco")
    if (largest := images.abs().max().item()) > MOST:
        raise ValueError(
            f"images must be pixels in 0..1, or normalised; got values up to {largest:.3g}"
        )
    labels, kind = _labels(held.labels, held.labels_at)
    real = whitened if isinstance(whitened, ImageData) else None
    names = _names(labels, len(images), real.classes if real and classes is None else classes)
    # before sorting, which would lose images without a label
    checks.targets("labels", labels, len(images), len(names))
    words = re.split(r"[_.\-\s]+", path.stem.lower())
    if method == "auto":
        method = next(
            (word for word in words if word in METHODS),
            "datm" if kind and held.method == "mtt" else held.method,
        )
    dataset = dataset or (real.name if real else None)
    if real and mean is None:
        mean, std = real.mean, real.std
    white = _looks_whitened(images, words) if whitened is None else whitened is not False
    pixels = not white and _outside(images) <= OVERSHOOT
    mean, std, whose = _statistics(mean, std, dataset or _named(words), images, len(names), pixels)
    plain = (
        images
        if pixels
        else images * images.new_tensor(std).view(1, -1, 1, 1)
        + images.new_tensor(mean).view(1, -1, 1, 1)
    )
    if not white:
        _check_normalised(images, plain)
    outside = _outside(plain)
    bounded = not white and not outside
    recipe = ("standardised" if method in KERNEL else "pixels") if white else None
    if real and images.shape[1:] != real.train_images.shape[1:]:
        raise ValueError(
            f"whitened must be data of images like these, {list(images.shape[1:])}, got "
            f"{list(real.train_images.shape[1:])}"
        )
    kept = (
        plain.clamp(0, 1)
        if bounded
        else normalise.normalise(images, mean, std)
        if pixels
        else images
    )
    space = (
        "ZCA-whitened"
        if white
        else f"pixels in 0..1, {outside:.0%} outside"
        if pixels
        else (f"normalised by {whose} mean and std")
    )
    values = f"values {images.min():.3g}..{images.max():.3g}, {space}" + (
        "" if bounded else ("; trained on as they are")
    )
    says = (
        f"{held.layout}, taken for {method}'s: {len(images)} images of {len(names)} "
        f"classes{kind and f' with {kind}'}; {values}"
    )
    info = {
        "source": path.name,
        "published_by": method,
        "layout": held.layout,
        "statistics": whose,
        "outside": round(outside, 4),
    }
    info |= {"labels": kind} if kind else {}
    info |= {"dataset": dataset or _named(words)} if dataset or _named(words) else {}
    order = (labels.argmax(1) if labels.ndim == 2 else labels).argsort(stable=True)
    fields = {
        "classes": names,
        "mean": mean,
        "std": std,
        "method": method,
        "info": info,
        "bounded": bounded,
        "whitening": recipe,
    }
    return {
        "images": kept[order].contiguous(),
        "labels": labels[order],
        "factor": None,
        **fields,
    }, says


def check_arguments(
    method: object, mean: object, std: object, dataset: object, experiment: object, whitened: object
) -> None:
    """Raise TypeError or ValueError at arguments of `CondensedSet.from_published` that no file
    could make good.
    """
    checks.one_of("method", method, ("auto", *METHODS))
    checks.whole("experiment", experiment, 0)
    if (mean is None) != (std is None):
        raise ValueError(f"mean and std go together, got mean={mean} and std={std}")
    if dataset is not None and not isinstance(dataset, str):
        raise TypeError(f"dataset must be a name, got {dataset!r}")
    if not (whitened is None or isinstance(whitened, (bool, ImageData))):
        raise TypeError(
            "whitened must be True, False, None (unknown) or the real data, got "
            f"{checks.shown(whitened)}"
        )


def _tensor(held: object, name: str) -> Tensor:
    """`held` if it is a tensor with its values in memory, which a sparse or a "meta" one has
    not.
    """
    if not (
        isinstance(held, Tensor) and held.layout is torch.strided and held.device.type == "cpu"
    ):
        raise TypeError(
            f"{name} must be a plain tensor, got {getattr(held, 'dtype', type(held).__name__)}"
        )
    return held.detach()


def _images(held: object) -> Tensor:
    """Float images [N, C, S, S], from channels first or last."""
    images = _tensor(held, "images")
    if not images.is_floating_point():
        raise TypeError(f"images must be a plain float tensor, got {images.dtype}")
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(
            f"images must have four dimensions, none of them 0, got {list(images.shape)}"
        )
    last = images.shape[1] not in (1, 3) and images.shape[3] in (1, 3)
    return checks.finite("images", (images.permute(0, 3, 1, 2) if last else images).float())


def _labels(held: object, where: str) -> tuple[Tensor, str]:
    """Labels int64 [N], or soft targets float [N, K], and what those were made from."""
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
            f"labels ({where}) must single out a class in every row, some rows are constant"
        )
    off = values.sum(1, keepdim=True) - 1
    if values.min() >= 0 and off.abs().max() <= 1e-3:
        targets, kind = values / values.sum(1, keepdim=True), "soft labels"
    # centred one-hot labels, as of kernel methods, learned from there or not
    elif values.abs().max() <= 1.5:
        targets, kind = (
            F.normalize((values - off / values.shape[1]).clamp(min=0), p=1, dim=1),
            ("soft labels (centred)"),
        )
    else:
        targets, kind = values.softmax(1), "soft labels (logits)"
    return (targets.argmax(1), "") if (targets.amax(1) > 1 - ROUNDING).all() else (targets, kind)


def _names(labels: Tensor, count: int, classes: Sequence[str] | None) -> tuple[str, ...]:
    if isinstance(classes, str):
        raise TypeError(f"classes must be a sequence of names, got {classes!r}")
    if classes is not None:
        return tuple(classes)
    # more classes than images cannot each have one, so that an absurd label makes no absurd list of
    # names
    known = (
        labels.shape[1]
        if labels.ndim == 2
        else min(int(labels.max()) + 1, count)
        if len(labels)
        else 0
    )
    return tuple(map(str, range(known)))


def _looks_whitened(images: Tensor, words: Sequence[str]) -> bool:
    """Whether the file's name says so, or images that are no pixels have neighbouring pixels that
    differ.
    """
    if "zca" in words or images.shape[-1] < 2 or _outside(images) <= OVERSHOOT:
        return "zca" in words
    pairs = torch.stack([images[..., :-1].flatten(), images[..., 1:].flatten()])
    return bool(torch.corrcoef(pairs)[0, 1] < CORRELATION)


def _outside(images: Tensor) -> float:
    """The share of values outside 0..1."""
    return ((images < -ROUNDING) | (images > 1 + ROUNDING)).float().mean().item()


def _check_normalised(images: Tensor, plain: Tensor) -> None:
    """Raise ValueError unless images, of which `plain` are un-normalised, could have been
    pixels.
    """
    if not 0 <= plain.mean() <= 1:
        low, high, mean, std = (
            value.item() for value in (images.min(), images.max(), images.mean(), images.std())
        )
        raise ValueError(
            "images must be pixels in 0..1, or normalised by the mean and std of the data; got "
            f"{low:.3g}..{high:.3g}, mean {mean:.3g}, "
            f"std {std:.3g}, un-normalised a mean of {plain.mean():.3g}. Give mean= and std= such "
            "that pixels in 0..1 are images · std + mean"
        )


def _named(words: Sequence[str]) -> str | None:
    """The dataset that the words of a file's name tell, by the names of `STATISTICS`."""
    return next((word for word in words if word in STATISTICS), None)


def _statistics(
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    dataset: str | None,
    images: Tensor,
    classes: int,
    pixels: bool,
) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    """mean, std, and whose they are, if they were not given by the dataset's name or by the images'
    shape.
    """
    channels, size = images.shape[1:3]
    if mean is not None:
        given = checks.statistics(mean, std, channels)
        return given["mean"], given["std"], "given"
    name = dataset or ""
    if dataset is None and channels == 3 and classes in (10, 100):
        name = "imagenet" if size >= 64 else "cifar100" if classes == 100 else "cifar10"
    known = known_dataset(name, channels)
    if known is None:
        what = f"{channels} channels, {classes} classes and dataset={dataset!r}"
        low, high = images.min().item(), images.max().item()
        raise ValueError(
            "mean and std must be given, or a dataset that has usual ones "
            f"({', '.join(STATISTICS)}): a set of {what} has none; "
            f"its values lie in {low:.3g}..{high:.3g}, and pixels in 0..1 are values · std + mean"
        )
    if known == "cifar100" and pixels:  # of IDC and DREAM
        known = "cifar10"
    return *STATISTICS[known], f"{known}'s"


def known_dataset(name: str, channels: int) -> str | None:
    """The name in `STATISTICS` that a dataset's name begins with, if that dataset has so many
    channels.
    """
    plain = re.sub(r"[_\-]", "", re.sub("^(folder|hf):", "", name.lower()))
    known = max((known for known in STATISTICS if plain.startswith(known)), key=len, default=None)
    return known if known and len(STATISTICS[known][0]) == channels else None
