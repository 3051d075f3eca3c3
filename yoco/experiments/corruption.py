"""Controlled damage: wrong labels, and images that are blurred, noisy or partly covered.

It is done to real data or condensed sets, with a record of the damaged images.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Generator, Tensor

from yoco import formation
from yoco.data.image_data import ImageData
from yoco.data.normalise import to_floats
from yoco.sets.condensed_set import CondensedSet
from yoco.utils import checks, seeds

LABEL_KINDS = ("symmetric", "class_dependent")
IMAGE_KINDS = ("blur", "noise", "occlusion")
KINDS = LABEL_KINDS + IMAGE_KINDS
BLUR = 1 / 8  # standard deviation of the Gaussian, as a share of the side
NOISE = 0.3  # standard deviation of the Gaussian noise, of values in 0..1
COVER = 1 / 2  # side of the grey square, as a share of the image's side
GREY = 0.5
BLOCK = 4096  # images damaged at once


def damage_data(
    data: ImageData, kind: str, percent: int, seed: int = 0
) -> tuple[ImageData, Bool[Tensor, "images"]]:
    """Damage `percent` of every class's training images.

    The test images stay unchanged. Training images are copied into memory if images are damaged.

    Args:
        data: the real data.
        kind: "symmetric" (a label becomes any other with equal probability), "class_dependent"
            (class k becomes k + 1, the last class 0), "blur" (Gaussian, standard deviation an
            eighth of the side), "noise" (Gaussian, standard deviation 0.3 of values in 0..1, then
            clamped), "occlusion" (a grey square of half the side at a random place).
        percent: in 0..100, rounded to whole images.
        seed: seed of the draws.

    Returns:
        The data, and which images were damaged.

    Raises:
        TypeError, ValueError: if an argument is bad, or a class has no image left.
    """
    checks.instance("data", data, ImageData)
    share, source = _checked(kind, percent, seed)
    damaged = seeds.choice_by_class(data.train_labels, share, source)
    if kind in LABEL_KINDS:
        return replace(
            data, train_labels=_wrong(data.train_labels, damaged, kind, len(data.classes), source)
        ), damaged
    images = data.train_images.clone()
    for block in torch.nonzero(damaged).flatten().split(BLOCK):
        images[block] = (
            (_spoiled(to_floats(images[block]), kind, source) * 255).round().to(torch.uint8)
        )
    return replace(data, train_images=images), damaged


def damage_set(
    condensed: CondensedSet, kind: str, percent: int, seed: int = 0
) -> tuple[CondensedSet, Bool[Tensor, "images"]]:
    """Damage `percent` of every class's cells.

    Cells get wrong labels by changing places: equally many of each class, so that as many leave a
    class as come into it, and all others stay in place.

    kind, percent: as for `damage_data`. Returns the set, and which formed images were damaged.
    Raises TypeError or ValueError if an argument is bad, also if classes differ in size (as with
    soft labels) and the damage of labels would too.
    """
    if (
        not checks.instance("condensed", condensed, CondensedSet).bounded
        and kind not in LABEL_KINDS
    ):
        raise ValueError(
            f"kind={kind!r} damages images in 0..1, but this set is unbounded; allowed: "
            f"{', '.join(LABEL_KINDS)}"
        )
    share, source = _checked(kind, percent, seed)
    labels = condensed.formed_labels
    damaged = seeds.choice_by_class(labels, share, source)
    counts = torch.bincount(labels[damaged], minlength=len(condensed.classes)).tolist()
    if kind in LABEL_KINDS and len({*counts}) > 1:
        raise ValueError(
            f"kind={kind!r} damages equally many images of each class, but {percent} % of this set "
            f"are {counts}"
        )
    cells = formation.cells(condensed.images, condensed.factor).clone()  # a view at factor 1
    if kind in LABEL_KINDS:
        places = torch.nonzero(damaged).flatten()
        wrong = _wrong(labels, damaged, kind, len(condensed.classes), source)[places]
        # places are in order of their class
        cells[places] = cells[places[wrong.argsort(stable=True)]]
    else:
        cells[damaged] = _spoiled(cells[damaged], kind, source)
    images = formation.pack(cells, condensed.factor, condensed.size)
    info = {**condensed.info, "damage": {"kind": kind, "percent": int(percent), "seed": int(seed)}}
    return replace(condensed, images=images, info=info), damaged


def _checked(kind: str, percent: int, seed: int) -> tuple[Callable[[int], int], Generator]:
    """Return how many images of a class of some size are damaged, and the generator."""
    checks.one_of("kind", kind, KINDS)
    checks.whole("percent", percent, 0, 100)
    return lambda size: round(size * percent / 100), seeds.generator(seed, stream=4)


def _wrong(labels: Tensor, damaged: Tensor, kind: str, classes: int, source: Generator) -> Tensor:
    """Return the labels with wrong ones for the damaged images.

    If every class has equally many damaged images, it loses as many images as it gains.
    """
    wrong = labels.clone()
    if kind == "class_dependent":
        wrong[damaged] = (labels[damaged] + 1) % classes
        return wrong
    members = [torch.nonzero(damaged & (labels == label)).flatten() for label in range(classes)]
    members = [of_class[torch.randperm(len(of_class), generator=source)] for of_class in members]
    for layer in range(max(map(len, members))):  # one image of each class that has any left
        places = torch.stack([of_class[layer] for of_class in members if layer < len(of_class)])
        own = labels[places]
        if len(own) > 1:
            wrong[places] = own[_derangement(len(own), source)]
        else:
            wrong[places] = (own + 1 + torch.randint(classes - 1, (1,), generator=source)) % classes
    return wrong


def _derangement(count: int, source: Generator) -> Tensor:
    """Return a random order of 0..count-1, count at least 2, that leaves nothing in its place."""
    while True:  # at least a third of all orders are such
        order = torch.randperm(count, generator=source)
        if (order != torch.arange(count)).all():
            return order


def _spoiled(images: Tensor, kind: str, source: Generator) -> Tensor:
    """Return float images [n, C, S, S] in 0..1 with damage."""
    if not len(images):
        return images
    side = images.shape[-1]
    if kind == "blur":
        from torchvision.transforms.v2.functional import gaussian_blur

        reach = max(1, round(3 * BLUR * side))
        return gaussian_blur(images, [2 * reach + 1] * 2, [BLUR * side] * 2).clamp(0, 1)
    if kind == "noise":
        return (images + NOISE * torch.randn(images.shape, generator=source)).clamp(0, 1)
    covered = max(1, round(COVER * side))
    top, left = torch.randint(side - covered + 1, (2, len(images), 1), generator=source)
    at = torch.arange(side)
    rows, columns = ((at >= first) & (at < first + covered) for first in (top, left))
    return torch.where((rows[:, :, None] & columns[:, None, :])[:, None], GREY, images)
