"""Multi-formation: a condensed image holds factor × factor cells (appendix, Fig. 1).

Each cell becomes one training image, the formed image.
"""

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from yoco.utils import checks

PADDING = 0.5  # mid-grey, for sizes that are not a multiple of factor
MODES = ("nearest", "antialias")
# bytes that any cells may come to when enlarged; many cells may come to more, up to as many times
# their own size as images of 8×8 cells do
MOST_BYTES = 2**30
MOST_ENLARGED = 64


def cell_size(size: int, factor: int) -> int:
    """Return the side of a cell in pixels: size / factor, rounded up.

    Raises:
        TypeError: if size or factor is not a whole number.
        ValueError: if size is below 1, factor is below 1 or above size, or the last cells would
            hold only padding (size 5 at factor 4: cells of 2 pixels, so that the fourth would begin
            at pixel 6).
    """
    checks.whole("size", size, 1)
    side = -(-size // checks.whole("factor", factor, 1, size))
    if (factor - 1) * side >= size:
        fewer, more = -(-size // side), -(-size // (side - 1))
        raise ValueError(
            f"factor={factor} leaves the last cells of images of side {size} empty; the nearest "
            f"allowed factors are {fewer} and {more}"
        )
    return side


def pack(
    images: Float[Tensor, "cells channels height width"],
    factor: int,
    size: int,
    mode: str = "nearest",
) -> Float[Tensor, "images channels size size"]:
    """Shrink images to cells and lay out factor² of them in each condensed image, row by row.

    Args:
        images: float [N*factor², C, H, W] in 0..1.
        factor: cells per side of a condensed image.
        size: side of a condensed image in pixels. If factor does not divide it, the last row and
            column of cells are cropped.
        mode: "nearest" samples the nearest pixel, as the published code does (the cells are
            sharper, and training on them gives 2 points more: design §5); "antialias" is bilinear
            with antialiasing.

    Returns:
        Condensed images [N, C, size, size].

    Raises:
        TypeError, ValueError: if the images have another type or shape, their number is not a
            multiple of factor², or mode is unknown; also as `cell_size`.
    """
    side = cell_size(size, factor)
    checks.one_of("mode", mode, MODES)
    checks.floats("images", images, "N", "C", "H", "W")
    if len(images) % factor**2:
        raise ValueError(f"pack takes a multiple of factor²={factor**2} images, got {len(images)}")
    if images.shape[-2:] != (side, side):
        images = _shrunk(images, side, mode)
    laid = rearrange(
        images, "(n row column) c h w -> n c (row h) (column w)", row=factor, column=factor
    )
    return laid[..., :size, :size].contiguous()


def _shrunk(images: Tensor, side: int, mode: str) -> Tensor:
    if mode == "nearest":
        return F.interpolate(images, (side, side), mode="nearest")
    wide = F.interpolate(
        checks.wide(images), (side, side), mode="bilinear", align_corners=False, antialias=True
    )
    return wide.clamp(0, 1).to(images.dtype)  # rounding can lift white above 1


def cells(
    images: Float[Tensor, "images channels size size"], factor: int
) -> Float[Tensor, "cells channels side side"]:
    """Cut condensed images, float [N, C, S, S], into cells [N*factor², C, side, side].

    Cell (r, c) of image n is number n*factor² + r*factor + c. If factor does not divide S, the
    images are first padded with 0.5 at the bottom and the right. Raises TypeError or ValueError for
    another type or shape, and as `cell_size`.
    """
    checks.float_images("images", images)
    side = cell_size(images.shape[-1], factor)
    missing = factor * side - images.shape[-1]
    if missing:
        images = F.pad(images, (0, missing, 0, missing), value=PADDING)
    return rearrange(
        images, "n c (row h) (column w) -> (n row column) c h w", row=factor, column=factor
    )


def form(
    images: Float[Tensor, "images channels size size"], factor: int
) -> Float[Tensor, "cells channels size size"]:
    """Turn condensed images [N, C, S, S] into formed images [N*factor², C, S, S].

    Each cell is upsampled bilinearly; the operation is differentiable. Formed image n*factor² +
    r*factor + c is cell (r, c) of condensed image n. Raises as `cells` and `upsampled`.
    """
    return upsampled(cells(images, factor), images.shape[-1])


def upsampled(
    cells: Float[Tensor, "images channels side side"], size: int
) -> Float[Tensor, "images channels size size"]:
    """Upsample cells [N, C, side, side] bilinearly to formed images [N, C, size, size].

    Cells that have that size already are returned unchanged.

    Raises:
        ValueError: if tiny cells would take far more memory than their images do.
    """
    held, side = cells.numel() * cells.itemsize, cells.shape[-1]
    if side == size:
        return cells
    if (wanted := held // side**2 * size**2) > max(MOST_BYTES, MOST_ENLARGED * held):
        raise ValueError(
            f"cells of side {side} would be enlarged to side {size}, and {held:,} bytes to "
            f"{wanted:,}; at most {MOST_ENLARGED} times as many are allowed, or {MOST_BYTES:,}"
        )
    return F.interpolate(cells, (size, size), mode="bilinear", align_corners=False)
