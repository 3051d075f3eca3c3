"""The space that published images are in: pixels in 0..1, normalised pixels, or whitened ones."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from yoco.data.normalise import STATISTICS, normalise, unnormalise
from yoco.utils import checks

# methods whose code whitens standardised images; that of others whitens pixels
KERNEL = ("kip", "frepo", "rfad")
# of neighbouring pixels: at least 0.72 in published sets without whitening, at most 0.51 in
# whitened ones
CORRELATION = 0.65
OVERSHOOT = 0.25  # with a larger share of values outside 0..1, the images are not pixels
ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class Found:
    """The space of a file's images, and the images as a set holds them.

    Attributes:
        images: clipped to 0..1 if they are pixels in it up to rounding; otherwise in the space that
            networks train on.
        mean, std: the statistics.
        whose: "given", or whose statistics they are, for example "cifar10's".
        bounded, whitening: as in `CondensedSet`.
        outside: the share of values outside 0..1, before any clipping.
        told: all of this in words.
    """

    images: Float[Tensor, "images channels height width"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    whose: str
    bounded: bool
    whitening: str | None
    outside: float
    told: str


def find(
    images: Float[Tensor, "images channels height width"],
    statistics: tuple[Sequence[float], Sequence[float]] | None,
    dataset: str | None,
    whitened: bool | None,
    *,
    method: str,
    classes: int,
    words: Sequence[str],
) -> Found:
    """Find out which space images are in.

    Args:
        images: the images of the file.
        statistics: mean and std, if known.
        dataset: its name, if known.
        whitened: whether they are; None: to be found out.
        method: the authors'.
        classes: number of classes.
        words: words of the file's name.

    Raises:
        ValueError: if there are no statistics for them, or they are neither in 0..1 nor normalised.
    """
    white = _looks_whitened(images, words) if whitened is None else whitened
    pixels = not white and _outside(images) <= OVERSHOOT
    mean, std, whose = _statistics(statistics, dataset, images, classes, pixels)
    plain = images if pixels else unnormalise(images, mean, std)
    if not white:
        _check_normalised(images, plain)
    outside = _outside(plain)
    bounded = not white and not outside
    kept = plain.clamp(0, 1) if bounded else normalise(images, mean, std) if pixels else images
    recipe = ("standardised" if method in KERNEL else "pixels") if white else None
    if white:
        space = "ZCA-whitened"
    elif pixels:
        space = f"pixels in 0..1, {outside:.0%} outside"
    else:
        space = f"normalised by {whose} mean and std"
    told = f"values {images.min():.3g}..{images.max():.3g}, {space}"
    told += "" if bounded else "; trained on as they are"
    return Found(kept, mean, std, whose, bounded, recipe, round(outside, 4), told)


def _looks_whitened(images: Tensor, words: Sequence[str]) -> bool:
    """Return whether the images look whitened.

    The file's name says so, or they are not pixels and neighbouring values hardly correlate.
    """
    if "zca" in words or images.shape[-1] < 2 or _outside(images) <= OVERSHOOT:
        return "zca" in words
    pairs = torch.stack([images[..., :-1].flatten(), images[..., 1:].flatten()])
    return bool(torch.corrcoef(pairs)[0, 1] < CORRELATION)


def _outside(images: Tensor) -> float:
    """Return the share of values outside 0..1."""
    return ((images < -ROUNDING) | (images > 1 + ROUNDING)).float().mean().item()


def _check_normalised(images: Tensor, plain: Tensor) -> None:
    """Raise ValueError unless images, un-normalised `plain`, could have been pixels."""
    if not 0 <= plain.mean() <= 1:
        low, high, mean, std = (
            value.item() for value in (images.min(), images.max(), images.mean(), images.std())
        )
        raise ValueError(
            "images must be pixels in 0..1, or normalised by the mean and std of the data; got "
            f"{low:.3g}..{high:.3g}, mean {mean:.3g}, "
            f"std {std:.3g}, and a mean of {plain.mean():.3g} when un-normalised. Give mean= and "
            "std= such that images · std + mean are pixels in 0..1"
        )


def _statistics(
    known: tuple[Sequence[float], Sequence[float]] | None,
    dataset: str | None,
    images: Tensor,
    classes: int,
    pixels: bool,
) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    """Return mean, std and whose they are: given, by the dataset's name or by the images' shape."""
    channels, size = images.shape[1:3]
    if known is not None:
        given = checks.statistics(*known, channels)
        return given["mean"], given["std"], "given"
    name = dataset or ""
    if dataset is None and channels == 3 and classes in (10, 100):
        name = "imagenet" if size >= 64 else "cifar100" if classes == 100 else "cifar10"
    like = known_dataset(name, channels)
    if like is None:
        what = f"{channels} channels, {classes} classes and dataset={dataset!r}"
        low, high = images.min().item(), images.max().item()
        raise ValueError(
            "mean and std must be given, or a dataset with known ones "
            f"({', '.join(STATISTICS)}): a set of {what} has none; "
            f"its values lie in {low:.3g}..{high:.3g}, and pixels in 0..1 are values · std + mean"
        )
    if like == "cifar100" and pixels:  # IDC and DREAM use CIFAR-10's
        like = "cifar10"
    return *STATISTICS[like], f"{like}'s"


def known_dataset(name: str, channels: int) -> str | None:
    """Return the name in `STATISTICS` that a dataset's name begins with.

    None if there is none or that dataset has another number of channels.
    """
    plain = re.sub(r"[_\-]", "", re.sub("^(folder|hf):", "", name.lower()))
    known = max((known for known in STATISTICS if plain.startswith(known)), key=len, default=None)
    return known if known and len(STATISTICS[known][0]) == channels else None
