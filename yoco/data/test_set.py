"""The test images of a dataset, in the space of the images that networks were trained on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from yoco.data import pixel_cache, spaces
from yoco.data.image_data import ImageData
from yoco.data.spaces import Space


class TestSet(NamedTuple):
    """What a training needs from the real data, as arrays.

    An array over a memory-mapped file is sent to workers by the file's name.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bounded: bool = True  # whether training images are pixels too, to be normalised likewise

    @classmethod
    def of(cls, data: ImageData, space: Space | None = None) -> TestSet:
        """Return the test images of `data`, in the space of the training images."""
        images, by = pixel_cache.as_array(data.test_images), space or data
        if space is not None and space.whitening is not None:
            images = spaces.whitening_of(data, space.whitening)(data.test_images).numpy()
            by = spaces.Space((0.0,) * data.channels, (1.0,) * data.channels)
        return cls(
            images, data.test_labels.numpy(), len(data.classes), by.mean, by.std, space is None
        )
