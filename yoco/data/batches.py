"""Real images by index, normalised: bytes in memory, floats only for what is indexed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from yoco.data.image_data import ImageData
from yoco.data.normalise import normalise, to_floats
from yoco.utils import device as devices


@dataclass(frozen=True, eq=False)
class RealImages:
    """Images that are normalised when indexed; `network.epoch` accepts them like a float tensor.

    Attributes:
        pixels: bytes of all images, on `device` or not; what is indexed is on it either way, with
            the same bits.
        mean, std: per channel; as tensors on `device` they need no copy.
        device: device of the result.
        chosen: which of the images these are, in this order; None: all.
    """

    pixels: UInt8[Tensor, "all channels size size"]
    mean: Sequence[float] | Float[Tensor, "channels"]
    std: Sequence[float] | Float[Tensor, "channels"]
    device: torch.device
    chosen: Int[Tensor, "images"] | None = None

    @classmethod
    def training(cls, data: ImageData, device: torch.device) -> "RealImages":
        """Return the training images of `data`.

        They are moved to `device` if they take at most half of its free memory.
        """
        mean, std = (torch.tensor(values, device=device) for values in (data.mean, data.std))
        return cls(devices.resident(data.train_images, device), mean, std, device)

    def __len__(self) -> int:
        return len(self.pixels) if self.chosen is None else len(self.chosen)

    def __getitem__(
        self, index: Int[Tensor, "indices"]
    ) -> Float[Tensor, "indices channels size size"]:
        """Return the images with these indices, normalised."""
        return normalise(to_floats(self.bytes(index)), self.mean, self.std)

    def bytes(self, index: Int[Tensor, "indices"]) -> UInt8[Tensor, "indices channels size size"]:
        """Return the images with these indices as they are stored."""
        return self.pixels[self._own(index)].to(self.device)

    def of(self, index: Int[Tensor, "indices"]) -> "RealImages":
        """Return only the images with these indices, in this order."""
        return replace(self, chosen=self._own(index))

    def _own(self, index: Tensor) -> Tensor:
        index = index.to(self.pixels.device)
        return index if self.chosen is None else self.chosen[index]
