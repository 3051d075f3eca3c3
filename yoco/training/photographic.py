"""The augmentation of training on ImageNet: random resized crop, flip, colour jitter, lighting.

Lighting is noise along the principal axes of ImageNet's colours.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from yoco.utils import checks

Images = Float[Tensor, "images 3 size size"]
Boxes = Int[Tensor, "images 4"]  # top, left, height, width
PerImage = Float[Tensor, "images 1 1 1"]
LEAST_AREA = 0.5  # least share of the image in a crop
MOST_RATIO = 4 / 3  # largest ratio of a crop's sides
TRIES = 10  # draws of a box until one fits inside; if none does, it is the whole image
JITTER = 0.4  # brightness, contrast and saturation are multiplied by at most 1 ± this
GREY = (0.299, 0.587, 0.114)  # weights of red, green and blue in luminance
LIGHT = 0.1  # standard deviation along each axis, times its eigenvalue
# of the colours of ImageNet's pixels in 0..1, from AlexNet
EIGENVALUES = (0.2175, 0.0188, 0.0045)
# their eigenvectors, in columns
AXES = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


@dataclass(frozen=True)
class Draw:
    """The parameters drawn for n images."""

    box: Boxes
    flip: Bool[Tensor, "images 1 1 1"]
    brightness: PerImage  # factor, as are contrast and saturation
    contrast: PerImage
    saturation: PerImage
    light: Float[Tensor, "images 3 1 1"]  # added to the channels in 0..1


@dataclass(frozen=True)
class Photographic:
    """Augment normalised colour images one by one, as IDC's code does when training on ImageNet-10.

    mean, std: the normalisation of the 3 channels. Colours are changed in 0..1 without clipping.
    Raises ValueError for another number of channels.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            if len(getattr(self, name)) != 3:
                raise ValueError(
                    f"augmentation='imagenet' takes images of 3 channels, got {name} of "
                    f"{len(getattr(self, name))}"
                )

    def draw(self, count: int, size: int, source: Generator) -> Draw:
        """Draw the parameters for `count` images of side `size`, both at least 1."""
        checks.whole("count", count, 1)
        checks.whole("size", size, 1)
        how: dict[str, Any] = {"generator": source, "device": source.device}
        box = boxes(torch.rand(2, count, TRIES, **how), torch.rand(2, count, **how), size)
        flip = torch.rand(count, 1, 1, 1, **how) < 0.5
        brightness, contrast, saturation = 1 + JITTER * (
            2 * torch.rand(3, count, 1, 1, 1, **how) - 1
        )
        alpha = LIGHT * torch.randn(count, 3, **how)
        light = (alpha * constant(EIGENVALUES, alpha)) @ constant(sum(AXES, ()), alpha).view(3, 3).T
        return Draw(box, flip, brightness, contrast, saturation, light.view(count, 3, 1, 1))

    def apply(self, images: Images, draw: Draw) -> Images:
        """Augment normalised images by `draw`.

        Raises TypeError or ValueError for other images, or a draw for another number of images.
        """
        images = checks.wide(checks.float_images("images", images))
        if images.shape[1] != 3 or len(draw.box) != len(images):
            raise ValueError(
                f"images must have shape [{len(draw.box)}, 3, S, S] for this draw, got "
                f"{list(images.shape)}"
            )
        moved = {
            name: values.to(images.device, non_blocking=True) for name, values in vars(draw).items()
        }
        images = resized_crop(images, moved.pop("box"))
        images = torch.where(moved.pop("flip"), images.flip(3), images)
        mean, std = (constant(values, images).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (coloured(images * std + mean, **moved) - mean) / std

    def __call__(self, images: Images, source: Generator) -> Images:
        """Draw and apply."""
        return self.apply(images, self.draw(images.shape[0], images.shape[-1], source))


def constant(values: Sequence[float], like: Float[Tensor, "..."]) -> Float[Tensor, "values"]:
    """Return `values` in the dtype and on the device of `like`, created there.

    A copy from the host could not be part of a CUDA graph.
    """
    return torch.stack([like.new_full((), value) for value in values])


def boxes(
    shape: Float[Tensor, "2 images tries"], place: Float[Tensor, "2 images"], size: int
) -> Boxes:
    """Return boxes with at least half of the image's area and side ratios up to 4/3.

    They are drawn as in torchvision's RandomResizedCrop.

    Args:
        shape: uniform in 0..1: area and ratio of each try.
        place: uniform in 0..1.
        size: side of the images.

    Returns:
        Top, left, height, width of the first try that fits into the image, or the
            whole image if none does.
    """
    area = size**2 * (LEAST_AREA + (1 - LEAST_AREA) * shape[0])
    ratio = ((2 * shape[1] - 1) * math.log(MOST_RATIO)).exp()  # wide as often as high
    # [2, n, TRIES]: heights, widths
    sides = torch.stack(((area / ratio).sqrt(), (area * ratio).sqrt())).round()
    fits = (sides <= size).all(0)
    first = fits.int().argmax(1).expand(2, -1).unsqueeze(-1)
    sides = torch.where(fits.any(1), sides.gather(2, first).squeeze(-1), size)
    start = (place * (size - sides + 1)).floor().minimum(size - sides)
    return torch.cat((start, sides)).T.long()


def resized_crop(
    images: Float[Tensor, "images channels size size"], box: Boxes
) -> Float[Tensor, "images channels size size"]:
    """Enlarge the part of each image in its box to the image's size, bilinearly."""
    size = images.shape[-1]
    span = torch.arange(size, device=images.device) + 0.5
    rows, columns = (
        _positions(span, start, side) for start, side in zip(box[:, :2].T, box[:, 2:].T)
    )
    grid = torch.stack(torch.broadcast_tensors(columns.unsqueeze(1), rows.unsqueeze(2)), -1)
    grid = grid * (2 / max(size - 1, 1)) - 1
    return F.grid_sample(images, grid.to(images.dtype), padding_mode="border", align_corners=True)


def _positions(span: Tensor, start: Tensor, side: Tensor) -> Tensor:
    """Return where the pixels of an enlarged part lie in the image, float [N, S].

    The part's edge is repeated; what lies beyond it does not come in.
    """
    start, side = start.view(-1, 1), side.view(-1, 1)
    return start + (span * side / len(span) - 0.5).clamp(min=0).minimum(side - 1)


def coloured(
    images: Images,
    brightness: PerImage,
    contrast: PerImage,
    saturation: PerImage,
    light: Float[Tensor, "images 3 1 1"],
) -> Images:
    """Change saturation, contrast and brightness of images in 0..1, and add `light`.

    Saturation is about the luminance, contrast about its mean. The published code jitters in a
    random order; without clipping the three commute, so no order is drawn.
    """
    grey = (images * constant(GREY, images).view(1, 3, 1, 1)).sum(1, keepdim=True)
    mean = grey.mean((2, 3), keepdim=True)
    images = grey + saturation * (images - grey)
    return brightness * (mean + contrast * (images - mean)) + light
