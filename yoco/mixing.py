"""CutMix: a box of a partner image in every image of a batch."""

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor

from yoco.utils import checks


def cutmix(
    images: Float[Tensor, "images channels size size"],
    labels: Int[Tensor, "images"] | Float[Tensor, "images classes"],
    classes: int,
    source: Generator,
    probability: float = 0.5,
) -> tuple[Float[Tensor, "images channels size size"], Float[Tensor, "images classes"]]:
    """With `probability`, paste one box of a partner image into every image of the batch.

    The box is the same for all images; its area is drawn from Beta(1, 1).

    Args:
        images: float [N, C, S, S].
        labels: int64 [N], or soft targets [N, classes]. That labels lie in 0..classes-1 is not
            checked, since reading them would wait for the device.
        classes, source, probability: number of classes, generator of the draws, chance in 0..1.

    Returns:
        Images, and soft labels [N, classes] that sum to 1.

    Raises:
        TypeError, ValueError: for other images or labels, or a probability outside 0..1.
    """
    checks.float_images("images", images)
    soft = isinstance(labels, Tensor) and labels.ndim == 2
    if not soft:
        checks.labels("labels", labels, len(images))
    elif list(checks.floats("labels", labels, "N", "K").shape) != [len(images), classes]:
        raise ValueError(
            f"labels must have shape [{len(images)}, {classes}], one row per image, got "
            f"{list(labels.shape)}"
        )
    checks.real("probability", probability, 0, 1)
    targets = labels if soft else F.one_hot(labels, classes).float()
    if source.device.type != "cpu":
        return cutmix_unread(images, targets, source, probability)
    if torch.rand(1, generator=source) >= probability:
        return images, targets
    size = images.shape[-1]
    keep = torch.rand(1, generator=source)  # Beta(1, 1) is uniform
    half = (size * (1 - keep).sqrt() / 2).int().item()
    row, column = torch.randint(size, (2,), generator=source).tolist()
    top, bottom = max(row - half, 0), min(row + half, size)
    left, right = max(column - half, 0), min(column + half, size)
    partner = torch.randperm(images.shape[0], generator=source).to(images.device)
    images = images.clone()
    images[:, :, top:bottom, left:right] = images[partner, :, top:bottom, left:right]
    share = (bottom - top) * (right - left) / size**2
    return images, targets * (1 - share) + targets[partner] * share


def cutmix_unread(
    images: Float[Tensor, "images channels size size"],
    targets: Float[Tensor, "images classes"],
    source: Generator,
    probability: float,
) -> tuple[Float[Tensor, "images channels size size"], Float[Tensor, "images classes"]]:
    """As `cutmix` for soft labels [N, classes], but with a mask instead of reading draws.

    Reading a draw on the host would wait for the device.
    """
    return _mixed(probability, images, targets, *_numbers(len(images), images.shape[-1], source))


def cutmix_together(
    images: Float[Tensor, "batches images channels size size"],
    targets: Float[Tensor, "batches images classes"],
    sources: Sequence[Generator],
    probability: float,
) -> tuple[
    Float[Tensor, "batches images channels size size"], Float[Tensor, "batches images classes"]
]:
    """As `cutmix_unread` for several batches, each with a generator of its own."""
    count, size = images.shape[1], images.shape[-1]
    numbers = [_numbers(count, size, source) for source in sources]
    mixed = torch.vmap(functools.partial(_mixed, probability))
    return mixed(images, targets, *map(torch.stack, zip(*numbers)))


def _numbers(count: int, size: int, source: Generator) -> tuple[Tensor, ...]:
    """Draw numbers for whether to mix, the area of the box, its centre, and the partners."""
    how: dict[str, Any] = {"generator": source, "device": source.device}
    return (
        torch.rand(1, **how),
        torch.rand(1, **how),
        torch.randint(size, (2, 1), **how),
        torch.rand(count, **how),
    )


def _mixed(
    probability: float,
    images: Tensor,
    targets: Tensor,
    whether: Tensor,
    kept: Tensor,
    centre: Tensor,
    keys: Tensor,
) -> tuple[Tensor, Tensor]:
    size = images.shape[-1]
    half = (size * (1 - kept).sqrt() / 2).int()
    span = torch.arange(size, device=images.device)
    inside = (span >= centre - half) & (span < centre + half)  # rows and columns, [2, S]
    box = (whether < probability) & inside[0, :, None] & inside[1, None, :]
    partner = keys.argsort()
    return torch.where(box, images[partner], images), torch.lerp(
        targets, targets[partner], box.float().mean()
    )
