"""What all condensation methods share: how one is declared, the packed real images that it starts from, the set that it makes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from yoco import formation
from yoco.data.datasets import ImageData
from yoco.data.normalise import to_floats
from yoco.sets.condensed_set import CondensedSet
from yoco.utils import seeds

PACKED = 100  # condensed images that are packed at a time
PACKING = "nearest"  # how every method shrinks the real images that it starts from


def start_choice(data: ImageData, ipc: int, factor: int, source: Generator) -> Tensor:
    """The training images that condensation starts from: random ones, class after class. Int64 [classes * ipc * factor²]."""
    return torch.cat([members[seeds.choice(len(members), ipc * factor**2, source)] for members in members_of(data)])


def members_of(data: ImageData) -> list[Tensor]:
    """Indices of each class's training images."""
    return [torch.nonzero(data.train_labels == label).flatten() for label in range(len(data.classes))]


def packed(data: ImageData, chosen: Tensor, factor: int, mode: str = PACKING) -> Tensor:
    """Training images by index, shrunk to cells (mode: of `formation.pack`): float [n / factor², C, S, S] in 0..1."""
    parts = chosen.split(PACKED * factor**2)  # floats of all real images would be factor² times what is kept
    return torch.cat([formation.pack(to_floats(data.train_images[part]), factor, data.size, mode) for part in parts])


def real_set(data: ImageData, ipc: int, factor: int, seed: int, packing: str = PACKING) -> CondensedSet:
    """Packed random real images: where every method but DREAM starts from under the same seed (see `start_set`).

    packing: mode of `formation.pack`. Raises ValueError if a class has fewer than ipc * factor² images.
    """
    data.require_per_class(f"ipc={ipc} with factor={factor}", ipc * factor**2)
    images = packed(data, start_choice(data, ipc, factor, seeds.generator(seed)), factor, packing)
    return condensed_from(images, data, ipc, factor, "real", {"dataset": data.name, "seed": seed, "packing": packing})


def condensed_from(images: Tensor, data: ImageData, ipc: int, factor: int, method: str, info: Mapping[str, object]) -> CondensedSet:
    """Images of `data`'s classes, class after class, as a CondensedSet."""
    labels = torch.arange(len(data.classes)).repeat_interleave(ipc)
    return CondensedSet(images.detach().cpu(), labels, factor, data.classes, data.mean, data.std, method, info)


@dataclass(frozen=True)
class Method:
    """A condensation method. settings_for: (preset, size, ipc, overrides) -> its settings; stepper: what takes its steps
    (see `resumable.Stepper`); multi: whether its sets are multi-formation in the paper (factor 2, or 3 for large images) or hold
    one image each."""

    name: str
    settings_for: Callable[..., Any]
    stepper: Callable[..., Any]
    multi: bool
    experts: str | None = None  # the folder that keeps its experts, if it has any
    nests: bool = False  # whether its steps can match prefixes
