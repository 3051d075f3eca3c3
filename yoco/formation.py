"""Multi-formation: condensed images hold factor x factor cells, each of which becomes one training
image (appendix, Fig. 1).
"""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from yoco.utils import checks

PADDING = 0.5  # mid-grey, for sizes that factor does not divide
MODES = ("nearest", "antialias")


def cell_size(size: int, factor: int) -> int:
    """Side of a cell in pixels: size / factor, rounded up.

    Raises TypeError if they are no whole numbers; ValueError if size is below 1, factor below 1 or
    above size, or the last cells would be padding alone (factor 4 at size 5: cells of 2 pixels, of
    which the fourth would begin at 6).
    """
    checks.whole("size", size, 1)
    side = -(-size // checks.whole("factor", factor, 1, size))
    if (factor - 1) * side >= size:
        fewer, more = -(-size // side), -(-size // (side - 1))
        raise ValueError(
            f"factor={factor} leaves the last cells of images of side {size} empty; allowed, the "
            f"nearest: {fewer} and {more}"
        )
    return side


def pack(images: Tensor, factor: int, size: int, mode: str = "nearest") -> Tensor:
    """Shrink images to cells and lay factor² of them out in each condensed image, row after row.

    images: float [N*factor², C, H, W] in 0..1. mode: "nearest" samples the nearest pixel, as the
    published code does (sharper cells, which train to 2 points more: design §5), "antialias" is
    bilinear with antialiasing. Returns [N, C, size, size]; if factor does not divide size, the last
    row and column of cells are cut to fit. Raises TypeError or ValueError at other images, as
    `cell_size`, at an unknown mode, and if the count is no multiple of factor².
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
    return wide.clamp(0, 1).to(images.dtype)  # white rounds above 1


def cells(images: Tensor, factor: int) -> Tensor:
    """Cut condensed images, float [N, C, S, S], into cells [N*factor², C, side, side]; cell (r, c)
    of image n is number n*factor² + r*factor + c.

    Where factor does not divide S the images are first padded below and right with 0.5. Raises
    TypeError or ValueError at images of another type or shape, and as `cell_size`.
    """
    checks.float_images("images", images)
    side = cell_size(images.shape[-1], factor)
    missing = factor * side - images.shape[-1]
    if missing:
        images = F.pad(images, (0, missing, 0, missing), value=PADDING)
    return rearrange(
        images, "n c (row h) (column w) -> (n row column) c h w", row=factor, column=factor
    )


def form(images: Tensor, factor: int) -> Tensor:
    """Condensed images [N, C, S, S] -> formed images [N*factor², C, S, S]: cells, each upsampled
    bilinearly. Differentiable.

    Formed image n*factor² + r*factor + c is cell (r, c) of condensed image n. Raises as `cells`.
    """
    return upsampled(cells(images, factor), images.shape[-1])


def upsampled(cells: Tensor, size: int) -> Tensor:
    """Cells [N, C, side, side] -> formed images [N, C, size, size], bilinearly; as they are where
    they have that size.
    """
    if cells.shape[-1] == size:
        return cells
    return F.interpolate(cells, (size, size), mode="bilinear", align_corners=False)
