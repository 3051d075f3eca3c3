"""Differentiable augmentation of normalised images (appendix B.1.1), and CutMix.

Parameters are drawn per batch or per image; what moves in from outside the image is zero.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from yoco.mixing import cutmix as cutmix
from yoco.mixing import cutmix_together as cutmix_together
from yoco.mixing import cutmix_unread as cutmix_unread
from yoco.utils import checks

GEOMETRIC = ("crop", "scale", "rotate")  # one of them is drawn per batch
OPERATIONS = ("color", *GEOMETRIC, "flip", "cutout")  # DSA and MTT: one of these six per batch
CROP_SHARE = 0.125  # of the side, each way
SCALE_RATIO = 1.2
ROTATE_DEGREES = 15.0
CUTOUT_SHARE = 0.5  # of the side
OUTSIDE = -(10**6)  # centre of a cutout that lies outside every image

# updating images: one draw shared by the real and the synthetic half
MATCHING = ("color", "crop", "cutout")
NETWORK = ("color", "crop")  # updating the matching network: one draw per image
# evaluation and dynamics: one draw per image
EVALUATION = ("color", "crop", "flip", "scale", "rotate")


@dataclass(frozen=True)
class Draw:
    """The parameters drawn for n images; with n = 1, for a whole batch."""

    brightness: Float[Tensor, "images 1 1 1"]  # added
    saturation: Float[Tensor, "images 1 1 1"]  # factor
    contrast: Float[Tensor, "images 1 1 1"]  # factor
    operations: tuple[str, ...]  # those to apply
    shift: Int[Tensor, "images 2"]  # rows, columns
    theta: Float[Tensor, "images 2 3"]  # for affine_grid
    flip: Bool[Tensor, "images 1 1 1"]
    cutout: Int[Tensor, "images 2"]  # centre row, column

    def to(self, device: torch.device) -> "Draw":
        return self._each(lambda values: values.to(device, non_blocking=True))

    def of(self, index: Int[Tensor, "chosen"]) -> "Draw":
        """Return the draws with these numbers, int64 [m], which may repeat."""
        return self._each(lambda values: values[index])

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Draw":
        changed: dict[str, Any] = {
            name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **changed)


@dataclass(frozen=True)
class Augmentation:
    """A strategy: colour, flip and cutout are always applied if named, other operations by a draw.

    One of the named crop, scale and rotate is drawn per batch.

    Attributes:
        operations: names from `OPERATIONS`.
        shared: draw once for the whole batch (siamese) instead of once per image.
        single: draw one of all named operations per batch, as DSA does.

    Raises:
        TypeError, ValueError: if an operation is unknown or a value has another type.
    """

    operations: tuple[str, ...]
    shared: bool = False
    single: bool = False

    def __post_init__(self) -> None:
        for operation in checks.instance("operations", self.operations, tuple):
            checks.one_of("operation", operation, OPERATIONS)
        checks.flag("shared", self.shared)
        checks.flag("single", self.single)

    def draw(self, count: int, size: int, source: Generator) -> Draw:
        """Draw the parameters for `count` images of side `size`, on the generator's device.

        With `shared`, one set of parameters serves all of the images. Draws from a GPU's generator
        name all operations, with neutral parameters for those that were not drawn, because reading
        which one was drawn would wait for the device. Raises TypeError or ValueError if count or
        size is below 1.
        """
        checks.whole("count", count, 1)
        checks.whole("size", size, 1)
        exclusive = self.exclusive
        drawn = torch.randint(max(1, len(exclusive)), (1,), generator=source, device=source.device)
        if source.device.type == "cpu":
            operations = tuple(
                o for o in self.operations if o not in exclusive or o == exclusive[int(drawn)]
            )
            numbers = self._numbers(count, size, source)
            return _of_numbers(operations, functools.partial(_affine, operations), numbers)
        return self.unread(drawn, count, size, source)

    def draw_batches(self, count: int, size: int, source: Generator) -> Draw:
        """Draw for `count` batches at once, on the generator's device: each as if by `draw`.

        Number i of the result is for the whole of batch i (see `Draw.of`), whatever `shared` says.
        All operations are named, as in the draws from a GPU's generator.
        """
        choices = max(1, len(self.exclusive))
        drawn = torch.randint(choices, (count,), generator=source, device=source.device)
        return replace(self, shared=False).unread(drawn, count, size, source)

    def unread(self, drawn: Int[Tensor, "draws"], count: int, size: int, source: Generator) -> Draw:
        """As `draw`, with the choice among `exclusive` given as a tensor, which is not read.

        drawn: index of the operation that was drawn, int64 [1], or one for each draw, [count].
        """
        return self._unread(drawn, self._numbers(count, size, source))

    def draw_together(self, count: int, size: int, sources: Sequence[Generator]) -> Draw:
        """Draw for one batch per generator of a GPU, `count` images each: each as if by `draw`.

        The draws of the batches follow each other. Raises ValueError if draws are shared.
        """
        if self.shared:
            raise ValueError("draws of one batch that are shared cannot be made together")
        choices = max(1, len(self.exclusive))
        drawn, numbers = [], []
        for source in sources:
            drawn.append(torch.randint(choices, (1,), generator=source, device=source.device))
            numbers.append(self._numbers(count, size, source))
        together = [torch.cat(same) for same in zip(*numbers)]
        return self._unread(torch.cat(drawn).repeat_interleave(count), together)

    def _unread(self, drawn: Tensor, numbers: Sequence[Tensor]) -> Draw:
        exclusive = self.exclusive
        stays = (
            {operation: drawn == place for place, operation in enumerate(exclusive)}
            if len(exclusive) > 1
            else {}
        )
        affine = functools.partial(_affine_if, stays, self.operations)
        return _only(stays, _of_numbers(self.operations, affine, numbers))

    @property
    def exclusive(self) -> Sequence[str]:
        """The operations of which one is drawn per batch."""
        return self.operations if self.single else [g for g in GEOMETRIC if g in self.operations]

    def _numbers(self, count: int, size: int, source: Generator) -> tuple[Tensor, ...]:
        """Draw the random numbers of a `Draw`: for each image, or one for all if shared."""
        n = 1 if self.shared else count
        how: dict[str, Any] = {"generator": source, "device": source.device}
        reach = int(size * CROP_SHARE + 0.5)
        side = int(size * CUTOUT_SHARE + 0.5)
        return (
            *torch.rand(3, n, 1, 1, 1, **how),
            torch.randint(-reach, reach + 1, (n, 2), **how),
            torch.rand(n, 2, **how),
            torch.rand(n, 1, 1, 1, **how),
            torch.randint(0, size + 1 - side % 2, (n, 2), **how),
        )

    def apply(
        self, images: Float[Tensor, "images channels size size"], draw: Draw
    ) -> Float[Tensor, "images channels size size"]:
        """Augment normalised images, float [N, C, S, S], by `draw`. Differentiable in the images.

        Half-precision images come back as float32. Raises TypeError or ValueError for other images,
        or a draw for another number of images.
        """
        images = checks.wide(checks.float_images("images", images))
        if len(draw.shift) not in (1, len(images)):
            raise ValueError(
                f"draw must be for 1 image or for all {len(images)}, got one for {len(draw.shift)}"
            )
        draw = draw.to(images.device)
        if "color" in draw.operations:
            images = colour(images, draw)
        if "crop" in draw.operations:
            images = crop(images, draw.shift)
        if "scale" in draw.operations or "rotate" in draw.operations:
            theta = draw.theta.expand(images.shape[0], 2, 3)
            grid = F.affine_grid(theta, list(images.shape), align_corners=False).to(images.dtype)
            images = F.grid_sample(images, grid, align_corners=False)
        if "flip" in draw.operations:
            images = torch.where(draw.flip, images.flip(3), images)
        if "cutout" in draw.operations:
            images = images * cutout_mask(draw.cutout, images.shape[-1]).unsqueeze(1)
        return images

    def __call__(
        self, images: Float[Tensor, "images channels size size"], source: Generator
    ) -> Float[Tensor, "images channels size size"]:
        """Draw and apply."""
        return self.apply(images, self.draw(images.shape[0], images.shape[-1], source))


def _of_numbers(
    operations: tuple[str, ...], affine: Callable[[Tensor], Tensor], numbers: Sequence[Tensor]
) -> Draw:
    brightness, saturation, contrast, shift, place, flip, cutout = numbers
    return Draw(
        brightness=brightness - 0.5,
        saturation=saturation * 2,
        contrast=contrast + 0.5,
        operations=operations,
        shift=shift,
        theta=affine(place),
        flip=flip < 0.5,
        cutout=cutout,
    )


def _only(stays: Mapping[str, Tensor], draw: Draw) -> Draw:
    """Return `draw`, neutral for each operation whose bool [1] or [n] in `stays` is false."""
    kept = functools.partial(_kept, stays)
    return replace(
        draw,
        brightness=kept("color", draw.brightness, 0.0),
        saturation=kept("color", draw.saturation, 1.0),
        contrast=kept("color", draw.contrast, 1.0),
        shift=kept("crop", draw.shift, 0),
        flip=kept("flip", draw.flip, False),
        cutout=kept("cutout", draw.cutout, OUTSIDE),
    )


def _kept(
    stays: Mapping[str, Tensor], operation: str, values: Tensor, neutral: Tensor | float
) -> Tensor:
    if operation not in stays:
        return values
    return torch.where(stays[operation].view(-1, *[1] * (values.ndim - 1)), values, neutral)


def _affine_if(stays: Mapping[str, Tensor], operations: Sequence[str], u: Tensor) -> Tensor:
    """As `_affine`, for the one of scale and rotate that stays, or neither."""
    theta = _affine((), u)
    for operation in ("scale", "rotate"):
        if operation in operations:
            theta = _kept(stays, operation, _affine((operation,), u), theta)
    return theta


def _affine(operations: tuple[str, ...], u: Tensor) -> Tensor:
    """Map u in 0..1 [n, 2] to matrices [n, 2, 3] that scale each axis by 1/1.2..1.2, or rotate.

    The angle is at most 15 degrees either way.
    """
    theta = u.new_zeros(u.shape[0], 2, 3)
    if "rotate" in operations:
        angle = (u[:, 0] * 2 - 1) * math.radians(ROTATE_DEGREES)
        theta[:, 0, 0] = theta[:, 1, 1] = angle.cos()
        theta[:, 1, 0] = angle.sin()
        theta[:, 0, 1] = -angle.sin()
        return theta
    scale = (
        u * (SCALE_RATIO - 1 / SCALE_RATIO) + 1 / SCALE_RATIO
        if "scale" in operations
        else torch.ones_like(u)
    )
    theta[:, 0, 0], theta[:, 1, 1] = scale.unbind(1)
    return theta


def colour(
    images: Float[Tensor, "images channels size size"], draw: Draw
) -> Float[Tensor, "images channels size size"]:
    """Change brightness, then saturation, then contrast.

    Saturation is about the channel mean of each pixel, contrast about the mean of the image.
    """
    images = images + draw.brightness
    grey = images.mean(1, keepdim=True)
    images = (images - grey) * draw.saturation + grey
    mean = images.mean((1, 2, 3), keepdim=True)
    return (images - mean) * draw.contrast + mean


def crop(
    images: Float[Tensor, "images channels size size"], shift: Int[Tensor, "draws 2"]
) -> Float[Tensor, "images channels size size"]:
    """Shift images [N, C, S, S] by whole pixels (int64 [N or 1, 2]: rows, columns); pad with 0."""
    count, channels, size, _ = images.shape
    span = torch.arange(size, device=images.device)
    rows = (span + shift[:, :1] + 1).clamp(0, size + 1)  # [n, S] into the padded image
    columns = (span + shift[:, 1:] + 1).clamp(0, size + 1)
    padded = F.pad(images, (1, 1, 1, 1))
    if shift.shape[0] == 1:
        return padded[:, :, rows[0]][:, :, :, columns[0]]
    padded = padded.gather(2, rows.view(count, 1, size, 1).expand(-1, channels, -1, size + 2))
    return padded.gather(3, columns.view(count, 1, 1, size).expand(-1, channels, size, -1))


def cutout_mask(centre: Int[Tensor, "images 2"], size: int) -> Float[Tensor, "images size size"]:
    """Return a mask [n, S, S]: 0 in a square of half the side at `centre` (int64 [n, 2]), else 1.

    The square is clipped at the border.
    """
    side = int(size * CUTOUT_SHARE + 0.5)
    span = torch.arange(size, device=centre.device)
    start = centre - side // 2
    inside = (span >= start[:, :, None]) & (span < start[:, :, None] + side)  # [n, 2, S]
    return (~(inside[:, 0, :, None] & inside[:, 1, None, :])).float()
