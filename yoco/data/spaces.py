"""The spaces that networks train in, and the test images in them.

The usual one is that of normalised pixels in 0..1; images of unbounded sets are in others.
"""

import functools
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from yoco.data import pixel_cache
from yoco.data.image_data import ImageData
from yoco.data.normalise import normalise, to_floats
from yoco.utils import checks

RECIPES = ("pixels", "standardised")
REGULARISATION = 0.1  # of both recipes
BLOCK = 2000  # images whitened at a time


class Space(NamedTuple):
    """The space that networks train in on a set's images, so that real images can be brought there.

    Args:
        mean, std: normalisation per channel of real images in 0..1.
        whitening: a name in `RECIPES` if they are whitened instead, else None.
        bounded: whether the set's images are pixels in 0..1 too, to be normalised likewise; if not,
            they are in the space already.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    whitening: str | None = None
    bounded: bool = False


class Whitening(NamedTuple):
    """A ZCA transform of flattened images (x - shift) / scale: x -> (x - mean) @ matrix.

    Args:
        mean: of the flattened images.
        matrix: symmetric.
        shift, scale: per channel, applied to images in 0..1 first.
    """

    mean: Float[Tensor, "values"]
    matrix: Float[Tensor, "values values"]
    shift: tuple[float, ...]
    scale: tuple[float, ...]

    def __call__(
        self,
        images: UInt8[Tensor, "images channels size size"]
        | Float[Tensor, "images channels size size"],
    ) -> Float[Tensor, "images channels size size"]:
        """Whiten images, bytes or floats in 0..1."""
        parts = [(self._flat(part) - self.mean) @ self.matrix for part in images.split(BLOCK)]
        return torch.cat(parts).view(images.shape)

    def _flat(self, images: Tensor) -> Tensor:
        return normalise(to_floats(images), self.shift, self.scale).flatten(1)


@functools.lru_cache(maxsize=2)
def whitening_of(data: ImageData, recipe: str) -> Whitening:
    """Return the ZCA transform of the training images of `data`, computed once.

    CIFAR's takes half a minute on one core.

    Args:
        data: real images.
        recipe: "pixels" whitens images in 0..1 and adds 0.1 to each eigenvalue of their covariance,
            as MTT's code does; "standardised" whitens (images - mean) / std and adds 0.1 of the
            mean eigenvalue, as KIP's does.

    Raises:
        ValueError: if the recipe is unknown.
    """
    plain = checks.one_of("recipe", recipe, RECIPES) == "pixels"
    channels = data.channels
    shift, scale = ((0.0,) * channels, (1.0,) * channels) if plain else (data.mean, data.std)
    raw = Whitening(torch.zeros(1), torch.eye(1), shift, scale)
    width, count = data.train_images[0].numel(), len(data.train_images)
    total, square = (
        torch.zeros(width, dtype=torch.float64),
        torch.zeros(width, width, dtype=torch.float64),
    )
    for part in data.train_images.split(BLOCK):
        # centred near 0, so that sums of squares in float32 are exact enough
        flat = raw._flat(part) - 0.5 * plain
        total += flat.double().sum(0)
        square += (flat.T @ flat).double()
    mean = total / count
    values, vectors = torch.linalg.eigh((square / count - mean.outer(mean)).float())
    added = REGULARISATION * (1.0 if plain else values.mean().item())
    matrix = (vectors * (values.clamp(min=0) + added).rsqrt()) @ vectors.T
    return Whitening((mean + 0.5 * plain).float(), matrix, shift, scale)


class TestSet(NamedTuple):
    """What a training needs from the real data, as arrays.

    An array over a memory-mapped file is sent to workers by the file's name.
    """

    images: (
        UInt8[np.ndarray, "images channels size size"]
        | Float[np.ndarray, "images channels size size"]
    )
    labels: Int[np.ndarray, "images"]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bounded: bool = True  # whether training images are pixels too, to be normalised likewise

    @classmethod
    def of(cls, data: ImageData, space: Space | None = None) -> "TestSet":
        """Return the test images of `data`, in the space of the training images."""
        images, by = pixel_cache.as_array(data.test_images), space or data
        pixels = space is None or space.bounded
        if space is not None and space.whitening is not None:
            images = whitening_of(data, space.whitening)(data.test_images).numpy()
            by = Space((0.0,) * data.channels, (1.0,) * data.channels)
        return cls(images, data.test_labels.numpy(), len(data.classes), by.mean, by.std, pixels)
