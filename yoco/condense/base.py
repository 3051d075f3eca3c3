"""What all condensation methods share: how one is declared, the packed real images that it starts
from, the set that it makes.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor

from yoco import formation
from yoco.data.batches import RealImages
from yoco.data.image_data import ImageData
from yoco.data.normalise import to_floats
from yoco.parallel.distributed import ALONE, Ranks
from yoco.sets.condensed_set import CondensedSet
from yoco.training import resumable
from yoco.utils import device as devices
from yoco.utils import seeds

LARGE = 64  # images of this side or more take the ImageNet-10 settings
PACKED = 100  # condensed images that are packed at a time
PACKING = "nearest"  # how every method shrinks the real images that it starts from


def start_choice(data: ImageData, ipc: int, factor: int, source: Generator) -> Tensor:
    """The training images that condensation starts from: random ones, class after class.

    Int64 [classes * ipc * factor²].
    """
    return torch.cat(
        [
            members[seeds.choice(len(members), ipc * factor**2, source)]
            for members in members_of(data)
        ]
    )


def members_of(data: ImageData) -> list[Tensor]:
    """Indices of each class's training images."""
    return [
        torch.nonzero(data.train_labels == label).flatten() for label in range(len(data.classes))
    ]


def packed(data: ImageData, chosen: Tensor, factor: int, mode: str = PACKING) -> Tensor:
    """Training images by index, shrunk to cells (mode: of `formation.pack`): float [n / factor², C,
    S, S] in 0..1.
    """
    # floats of all real images would be factor² times what is kept
    parts = chosen.split(PACKED * factor**2)
    return torch.cat(
        [
            formation.pack(to_floats(data.train_images[part]), factor, data.size, mode)
            for part in parts
        ]
    )


def real_set(
    data: ImageData, ipc: int, factor: int, seed: int, packing: str = PACKING
) -> CondensedSet:
    """Packed random real images: where every method but DREAM starts from under the same seed (see
    `start_set`).

    packing: mode of `formation.pack`. Raises ValueError if a class has fewer than ipc * factor²
    images.
    """
    data.require_per_class(f"ipc={ipc} with factor={factor}", ipc * factor**2)
    images = packed(data, start_choice(data, ipc, factor, seeds.generator(seed)), factor, packing)
    return condensed_from(
        images, data, ipc, factor, "real", {"dataset": data.name, "seed": seed, "packing": packing}
    )


def condensed_from(
    images: Tensor, data: ImageData, ipc: int, factor: int, method: str, info: Mapping[str, object]
) -> CondensedSet:
    """Images of `data`'s classes, class after class, as a CondensedSet."""
    labels = torch.arange(len(data.classes)).repeat_interleave(ipc)
    return CondensedSet(
        images.detach().cpu(), labels, factor, data.classes, data.mean, data.std, method, info
    )


@dataclass(frozen=True)
class Settings:
    """What a method is set by: a frozen dataclass, whose fields are what `condense` takes as
    `**settings` and keeps in `.info`.
    """

    @property
    def steps(self) -> int:
        """Image steps in all."""
        raise NotImplementedError

    def work(self, classes: int, formed: int) -> int:
        """Images that go through a network in one step, about, with `formed` formed images a class:
        whether compiling pays hangs on it.
        """
        return 0

    def record(self) -> dict[str, Any]:
        """The fields, as `.info` holds them."""
        return asdict(self)


class Condensing(resumable.Stepper):
    """The steps of one condensation. A method overrides `step`, and what else it does otherwise.

    All draws come from `source`, a CPU generator: with the images and what `state` holds besides,
    it decides every later step.

    Args:
        data: the real images.
        ipc: condensed images per class; factor: cells along a side of each.
        settings: the method's own.
        source: the run's generator.
        device, precision, compiled: where and how networks run; precision is "float32" or
            "bfloat16".
        ranks: of several processes, each works on the classes in `own`.

    Attributes:
        images: the condensed images, class after class, float32 [classes * ipc, C, S, S] in 0..1
            after every step.
        started_from: the training images that they were, int64 [classes * ipc * factor²].
        members: indices of each class's training images.
    """

    def __init__(
        self,
        data: ImageData,
        ipc: int,
        factor: int,
        settings: Any,
        source: Generator,
        device: torch.device,
        precision: str,
        compiled: bool,
        ranks: Ranks = ALONE,
    ) -> None:
        self.data, self.ipc, self.factor, self.settings, self.source = (
            data,
            ipc,
            factor,
            settings,
            source,
        )
        self.device, self.precision, self.compiled = device, precision, compiled
        self.ranks, self.own = ranks, ranks.part(len(data.classes))
        devices.keep_memory(device)
        self.members = members_of(data)
        self.started_from = self.choose_start()
        self.images = packed(data, self.started_from, factor).to(device)

    @functools.cached_property
    def real(self) -> RealImages:
        """The training images, on the device if it has room for them."""
        return RealImages.training(self.data, self.device)

    def choose_start(self) -> Tensor:
        """The training images that the condensed ones start from, int64 [classes * ipc *
        factor²].
        """
        return start_choice(self.data, self.ipc, self.factor, self.source)

    def state(self) -> dict[str, Tensor]:
        """Images, and the state of the generator."""
        return {"images": self.images, "generator": self.source.get_state()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go back to what `state` gave."""
        self.images = state["images"].to(self.device)
        self.source.set_state(state["generator"])


@dataclass(frozen=True)
class Condenser:
    """A condensation method: all that the package knows of it.

    Args:
        name: as `method=` and on the command line.
        settings_for: (preset, size, ipc, overrides) -> its settings, a `Settings`.
        stepper: what takes its steps: `Condensing`, with the same arguments, and those that
            `experts` and `nests` add.
        multi: whether its sets are multi-formation in the paper (factor 2, or 3 for large images)
            or hold one image each.
        loss: what its loss is, along an axis.
        unending: settings that have it go on until its time budget is over.
        experts: the folder that keeps networks which it trains first; the stepper then takes
            `experts` (that folder, or None) and `progress`.
        nests: whether its steps can match prefixes; the stepper then takes `prefixes`, numbers of
            formed images per class.
        lbpe: top_k and within of LBPE on its sets (None: the paper's, see
            `dynamics.lbpe_settings`).
    """

    name: str
    settings_for: Callable[[str, int, int, Mapping[str, Any]], Any]
    stepper: Callable[..., Condensing]
    multi: bool = False
    loss: str = "loss"
    unending: Mapping[str, Any] = field(default_factory=dict)
    experts: str | None = None
    nests: bool = False
    lbpe: tuple[int, int] | None = None

    def factor(self, size: int) -> int:
        """Its factor for images of side `size`."""
        if not self.multi:
            return 1
        return 3 if size >= LARGE else 2
