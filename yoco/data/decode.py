"""Decodes image files with threads; each holds only one block in memory at a time."""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
import torch
from jaxtyping import Int, UInt8
from PIL import Image, ImageOps
from torch import Tensor
from tqdm.auto import tqdm

from yoco.utils import digests
from yoco.utils.lazy import loky

RULE = 3  # version of how files become pixels: resizing, cropping, colours
MOST_PIXELS = 2**27  # of an image as it is resized, before its middle is cut out


class Source(NamedTuple):
    """Image files of one split.

    Attributes:
        root: their folder.
        names: paths under `root`, in order.
        size: side to which they are resized and cropped; None: their own, which must be square and
            the same for all.
        limit: how many of each class were taken at most.
    """

    root: Path
    names: Sequence[str]
    size: int | None
    limit: int | None = None

    @property
    def place(self) -> str:
        """A name for this folder, size and limit, whatever files are in it."""
        where = hashlib.sha256(
            json.dumps([os.path.abspath(self.root), self.size, self.limit]).encode()
        ).hexdigest()
        return f"{self.root.parent.name[:40]}-{self.root.name[:40]}-{where[:8]}"

    def key(self) -> str:
        """Return 32 hexadecimal digits that identify the pixels.

        They depend on each file's name, size, modification and status-change times, and on the
        decoder. A file can be replaced by one with the same modification time, but not with the
        same status-change time.
        """
        rule = hashlib.sha256(json.dumps([RULE, PIL.__version__, self.size]).encode())
        for name in self.names:
            stat = os.stat(self.root / name)
            rule.update(
                json.dumps([name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]).encode()
            )
        return rule.hexdigest()[:32]


def histogram(images: UInt8[Tensor, "images channels height width"]) -> Int[Tensor, "channels 256"]:
    """Return how often each value occurs in each channel."""
    counts = torch.zeros(images.shape[1], 256, dtype=torch.long)
    for part in images.split(digests.rows_of(images[0].numel())):
        # Pillow counts a byte in a nanosecond, torch in twenty
        for channel, count in zip(part.cpu().numpy().swapaxes(0, 1), counts):
            count += torch.tensor(
                Image.fromarray(channel.reshape(-1, images.shape[-1])).histogram()
            )
    return counts


def shape_of(source: Source) -> tuple[int, int, int, int]:
    """Return [N, 3, S, S], by the first image.

    Raises ValueError if it cannot be read, or is not square and no size is given.
    """
    if source.size is not None:
        return len(source.names), 3, source.size, source.size
    height, width = read_image(first := source.root / source.names[0], None).shape[1:]
    if height != width:
        raise ValueError(f"{first} is {width}x{height}, not square; pass size= to resize and crop")
    return len(source.names), 3, height, width


class Decoded(NamedTuple):
    """Counts of each value per channel, and the digest of the pixels."""

    counts: Int[Tensor, "3 256"]
    digest: str


def decode(
    source: Source, out: UInt8[np.ndarray, "images 3 size size"], title: str, progress: bool
) -> Decoded:
    """Decode all images over threads (decoding releases Python's lock).

    Args:
        source: the image files.
        out: memory or a mapped file; receives the pixels.
        title: title of the progress bar.
        progress: whether to show it.

    Returns:
        The counts and the digest of the pixels, which is that of `digests.of_tensor`.

    Raises:
        ValueError: if an image (named) cannot be read or has another shape.
    """
    counts = torch.zeros(3, 256, dtype=torch.long)
    blocks: list[str] = []
    step = digests.rows_of(out[0].size)
    block = lambda first: _block(source, out, slice(first, first + step))
    with (
        tqdm(total=len(out), desc=title, unit="image", disable=not progress) as bar,
        ThreadPoolExecutor(loky.cpu_count()) as threads,
    ):
        for part, digest in threads.map(block, range(0, len(out), step)):
            counts += part
            blocks.append(digest)
            bar.update(int(part[0].sum()) // out[0, 0].size)
    return Decoded(counts, digests.of_blocks(blocks))


def _block(source: Source, out: np.ndarray, part: slice) -> Decoded:
    """Decode the images of `part` into `out`, and return their counts and digest."""
    for name, place in zip(source.names[part], out[part]):
        image = read_image(source.root / name, source.size)
        if image.shape != place.shape:
            side = f"{place.shape[1]}x{place.shape[2]}"
            raise ValueError(
                f"{source.root / name} is {image.shape[2]}x{image.shape[1]}, but {source.names[0]} "
                f"is {side}; pass size= to resize them all"
            )
        place[:] = image
    pixels = torch.from_numpy(out[part])
    return Decoded(histogram(pixels), digests.of_block(pixels))


def read_image(path: Path, size: int | None) -> UInt8[np.ndarray, "3 height width"]:
    """Return one image, after `upright` and `cropped`.

    Of a file with several frames, the first is taken.
    """
    try:
        with Image.open(path) as file:
            image = cropped(upright(file).convert("RGB"), size)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read image {path}: {error}") from error
    return np.asarray(image).transpose(2, 0, 1)


def upright(image: Image.Image) -> Image.Image:
    """Return an image of 8 bits, rotated as its EXIF entry says; transparency becomes white.

    16-bit values run from 0 to 65535. Others (32-bit, float) are scaled by the smallest of 1
    (float), 255 and 65535 that none exceeds, or, if some are negative or larger than that, from
    their lowest to their highest value. Raises ValueError if there is a NaN or an infinite value.
    """
    kind = image.format  # lost by transposing
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        return _of_eight_bits(image, kind)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        # Pillow converts grey with premultiplied alpha to nothing else
        shown = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown).convert("RGB")
    return image


def _of_eight_bits(image: Image.Image, kind: str | None) -> Image.Image:
    values = np.asarray(image, np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it holds NaN or infinite values")
    low, high = values.min(), values.max()
    # Pillow reads 16-bit PGM files, and its older versions PNG files, as 32 bits
    if image.mode.startswith("I;16") or kind in ("PNG", "PPM"):
        ranges = [65535]
    else:
        ranges = [1, 255, 65535] if image.mode == "F" else [255, 65535]
    top = next((top for top in ranges if high <= top), None) if low >= 0 else None
    scaled = values / top if top else (values - low) / max(high - low, np.finfo(float).tiny)
    return Image.fromarray((scaled * 255).round().astype(np.uint8))


def cropped(image: Image.Image, size: int | None) -> Image.Image:
    """Return the image with its shorter side resized to `size` and the middle cut out.

    None returns it unchanged. Raises ValueError if the resized image would exceed `MOST_PIXELS`,
    as that of a very long one does.
    """
    if size is None or image.size == (size, size):
        return image
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    if width * height > MOST_PIXELS:
        raise ValueError(
            f"it is {image.width}x{image.height} and would be resized to {width}x{height}, more "
            f"than {MOST_PIXELS:,} pixels"
        )
    left, top = (width - size) // 2, (height - size) // 2
    return image.resize((width, height), Image.Resampling.BILINEAR).crop(
        (left, top, left + size, top + size)
    )
