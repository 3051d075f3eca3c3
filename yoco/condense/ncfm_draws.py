"""What one step of NCFM draws: networks, augmentation, real images and frequencies."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from yoco import augment
from yoco.condense.class_groups import Members
from yoco.condense.expert_pool import Pool
from yoco.condense.ncfm_frequencies import Normal
from yoco.utils import seeds

# one draw per class, shared by its real and synthetic images
AUGMENTATION = augment.Augmentation(augment.MATCHING)
Weights = Float[Tensor, "parameters"]


@dataclass(frozen=True)
class Draws:
    """The draws of one step, on the device of the images."""

    between: Weights  # of the network that images are matched under
    trained: Weights  # of the network that calibrates
    augmentation: augment.Draw  # one draw per class
    real: Int[Tensor, "classes images"]  # indices
    frequencies: Float[Tensor, "frequencies features"]  # differentiable if they are learned


class HostDraws:
    """Draw on the CPU and move the result to `device`.

    Args:
        pool: the trained networks.
        members: indices of each class's training images, int64 [n] each.
        size: side of the images in pixels.
        real_batch: real images per class; classes with fewer repeat some.
        frequencies: number of frequencies.
        sampler: draws the frequencies.
        device: device of the images.
    """

    def __init__(
        self,
        pool: Pool,
        members: Sequence[Tensor],
        size: int,
        real_batch: int,
        frequencies: int,
        sampler: Normal,
        device: torch.device,
    ) -> None:
        self.pool, self.members, self.size, self.device = pool, members, size, device
        self.real_batch, self.frequencies, self.sampler = real_batch, frequencies, sampler

    def next(self, source: Generator) -> Draws:
        """Draw for one step from `source`."""
        between, trained = self.weights(source)
        augmentation = AUGMENTATION.draw(len(self.members), self.size, source)
        real = self.real(source)
        frequencies = self.sampler.draw(self.frequencies, source)
        return Draws(
            between,
            trained,
            augmentation.to(self.device),
            real.to(self.device),
            frequencies.to(self.device),
        )

    def weights(self, source: Generator) -> tuple[Weights, Weights]:
        """Draw weights between a network's initial and trained ones, and trained ones."""
        number, other = (
            int(torch.randint(self.pool.count, (1,), generator=source)) for _ in range(2)
        )
        first, last = self.pool.experts.pair(number, 0, 1)
        between = torch.lerp(first, last, torch.rand(1, generator=source))
        return between.to(self.device), self.pool.experts.pair(other, 0, 1)[1].to(self.device)

    def real(self, source: Generator) -> Int[Tensor, "classes images"]:
        """Draw indices of `real_batch` real images of each class."""
        return torch.stack([self._of_class(members, source) for members in self.members])

    def _of_class(self, members: Tensor, source: Generator) -> Tensor:
        if len(members) < self.real_batch:
            return members[torch.randint(len(members), (self.real_batch,), generator=source)]
        return members[seeds.choice(len(members), self.real_batch, source)]


class DeviceDraws(HostDraws):
    """Draw on the device itself, without waiting for the host.

    `next` can thus be part of a CUDA graph.
    """

    @functools.cached_property
    def pairs(self) -> Float[Tensor, "networks 2 parameters"]:
        """Initial and trained weights of every network."""
        return torch.stack(
            [torch.stack(self.pool.experts.pair(n, 0, 1)) for n in range(self.pool.count)]
        ).to(self.device)

    @functools.cached_property
    def of_classes(self) -> Members:
        """The training images of every class, on the device."""
        return Members(self.members, self.device)

    def weights(self, source: Generator) -> tuple[Weights, Weights]:
        number = torch.randint(self.pool.count, (2,), generator=source, device=source.device)
        (first, last), (_, trained) = self.pairs[number].unbind()
        share = torch.rand(1, generator=source, device=source.device)
        # a part of `pairs` may not begin at a multiple of 16 bytes, which kernels are made for
        return torch.lerp(first, last, share), trained.clone()

    def real(self, source: Generator) -> Int[Tensor, "classes images"]:
        own, shape = self.of_classes, (len(self.members), self.real_batch)
        # with repetitions
        places = (torch.rand(shape, generator=source, device=source.device) * own.sizes).long()
        repeated = own.padded.gather(1, places)
        if own.padded.shape[1] < self.real_batch:
            return repeated
        return torch.where(own.sizes < self.real_batch, repeated, own.draw(self.real_batch, source))
