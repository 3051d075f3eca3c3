"""What all condensation methods share.

How a method is declared, the packed real images that it starts from, and the set that it makes.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from yoco import formation, models
from yoco.data.batches import RealImages
from yoco.data.image_data import ImageData
from yoco.data.normalise import to_floats
from yoco.parallel.distributed import ALONE, Ranks
from yoco.sets.condensed_set import CondensedSet
from yoco.training import resumable
from yoco.training.state import State
from yoco.utils import checks, digests, fields, seeds
from yoco.utils import device as devices

LARGE = 64  # images of at least this side take the ImageNet-10 settings
PACKED = 100  # condensed images packed at a time
PACKING = "nearest"  # how all methods shrink the real images that they start from
# a network that condensing can use, by name, path or factory; stored as text
Matchable = Annotated[str, lambda _, model: models.check_matchable(model)]


def start_choice(data: ImageData, ipc: int, factor: int, source: Generator) -> Int[Tensor, "cells"]:
    """Return the random training images that condensation starts from, class by class."""
    return torch.cat(
        [
            members[seeds.choice(len(members), ipc * factor**2, source)]
            for members in members_of(data)
        ]
    )


def members_of(data: ImageData) -> list[Int[Tensor, "_"]]:
    """Return the indices of each class's training images."""
    return [
        torch.nonzero(data.train_labels == label).flatten() for label in range(len(data.classes))
    ]


def packed(
    data: ImageData, chosen: Int[Tensor, "cells"], factor: int, mode: str = PACKING
) -> Float[Tensor, "images channels size size"]:
    """Shrink training images, given by index, to cells of condensed images in 0..1.

    mode: as for `formation.pack`.
    """
    # in parts: all real images as floats would take factor² times the memory of the result
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
    """Return packed random real images, the start of every method but DREAM with the same seed.

    See `start_set` for DREAM. packing: the mode for `formation.pack`. Raises ValueError if a class
    has fewer than ipc * factor² images.
    """
    ipc, seed = checks.whole("ipc", ipc, 1), checks.seed("seed", seed)
    formation.cell_size(data.size, factor)
    data.require_per_class(f"ipc={ipc} with factor={factor}", ipc * factor**2)
    images = packed(data, start_choice(data, ipc, factor, seeds.generator(seed)), factor, packing)
    return condensed_from(
        images, data, ipc, factor, "real", {"dataset": data.name, "seed": seed, "packing": packing}
    )


def condensed_from(
    images: Float[Tensor, "images channels size size"],
    data: ImageData,
    ipc: int,
    factor: int,
    method: str,
    info: Mapping[str, object],
) -> CondensedSet:
    """Return images of `data`'s classes, ordered by class, as a CondensedSet."""
    labels = torch.arange(len(data.classes)).repeat_interleave(ipc)
    told = {**info, digests.MADE_FROM: data.made_from}
    return CondensedSet(
        images.detach().cpu(), labels, factor, data.classes, data.mean, data.std, method, told
    )


@dataclass(frozen=True)
class Settings(ABC):
    """Settings of a method: a frozen dataclass that says how many image steps it takes.

    Its fields are what `condense` takes as `**settings` and stores in `.info`. Types such as
    `fields.Count` say what values they allow; others are the method's own to check.
    """

    def __post_init__(self) -> None:
        fields.check(self)

    @property
    @abstractmethod
    def steps(self) -> int:
        """Image steps in total."""

    def work(self, classes: int, formed: int) -> int:
        """Return roughly the images that go through a network per step.

        formed: formed images per class. The number decides whether compiling pays.
        """
        return 0

    def record(self) -> dict[str, Any]:
        """Return the fields as `.info` stores them."""
        return asdict(self)


@dataclass(frozen=True)
class NetworkSettings(Settings):
    """Settings of a method whose networks are all of one architecture."""

    model: Matchable = "convnet"
    width: fields.Count | None = None  # channels of the ConvNet's layers; None: 128


class Condensing(resumable.Stepper):
    """The steps of one condensation. A method overrides `step` and whatever else differs.

    All draws come from `source`, a CPU generator. Together with the images and whatever else
    `state` holds, it determines every later step.

    Args:
        data: the real images.
        ipc: condensed images per class.
        factor: cells along a side of each.
        settings: the method's own.
        source: the run's generator.
        device, precision, compiled: where and how networks run; precision is "float32" or
            "bfloat16".
        ranks: with several processes, each works on the classes in `own`.

    Attributes:
        images: the condensed images, ordered by class, float32 [classes * ipc, C, S, S] in 0..1
            after every step.
        started_from: the training images that they were made from, int64 [classes * ipc * factor²].
        formed: formed images per class.
        members: indices of each class's training images.
        held: names of the attributes that a checkpoint holds besides the generators.
        own_source: the generator for draws on a device, if the method makes any; else `source`.
    """

    held: ClassVar[tuple[str, ...]] = ("images",)

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
        **own: Any,
    ) -> None:
        self.data, self.ipc, self.factor, self.formed = data, ipc, factor, ipc * factor**2
        self.settings, self.source, self.own_source = settings, source, source
        self.device, self.precision, self.compiled = self.place(device), precision, compiled
        self.ranks, self.own = ranks, ranks.part(len(data.classes))
        devices.keep_memory(self.device)
        self.members = members_of(data)
        self.started_from = self.choose_start()
        self.images = packed(data, self.started_from, factor).to(self.device)
        self.begin(**own)

    def begin(self, *_: Any, **own: Any) -> None:
        """Make what the steps need besides the images.

        A method overrides this with arguments of its own: those that `Condenser.experts` and
        `Condenser.nests` add.
        """

    def place(self, device: torch.device) -> torch.device:
        """Return where the method works, if that is not always `device`."""
        return device

    @functools.cached_property
    def real(self) -> RealImages:
        """The training images, on the device if it has room for them."""
        return RealImages.training(self.data, self.device)

    def choose_start(self) -> Int[Tensor, "cells"]:
        """Return the training images to start from, classes * ipc * factor² of them."""
        return start_choice(self.data, self.ipc, self.factor, self.source)

    def state(self) -> State:
        """Return the tensors in `held` and the generators' states."""
        own = {name: getattr(self, name) for name in self.held}
        return own | seeds.states(self.source, self.own_source)

    def restore(self, state: State) -> None:
        for name in self.held:
            setattr(self, name, state[name].to(self.device))
        seeds.restore(state, self.source, self.own_source)


@dataclass(frozen=True)
class Condenser:
    """A condensation method: all that the package knows about it.

    Args:
        name: name for `method=` and the command line.
        settings_for: (preset, size, ipc, overrides) -> its settings, a `Settings`.
        stepper: takes the steps: a `Condensing`, with the same arguments plus those that `experts`
            and `nests` add.
        multi: whether the paper makes its sets multi-formation (factor 2, or 3 for large images) or
            with one image each.
        loss: axis label of its loss.
        unending: settings for a run that only its time budget ends.
        experts: folder that keeps the networks that it trains first; the stepper then takes
            `experts` (that folder, or None) and `progress`.
        nests: whether its steps can match prefixes; the stepper then takes `prefixes`, numbers of
            formed images per class.
        lbpe: top_k and within of LBPE on sets that are multi-formation or not as `multi` says
            (None: the paper's, see `dynamics.lbpe_settings`).
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
        """Return its factor for images of side `size`."""
        if not self.multi:
            return 1
        return 3 if size >= LARGE else 2

    def lbpe_at(self, factor: int) -> tuple[int, int] | None:
        """Return `lbpe` for a set of this factor, or None if it does not apply."""
        return self.lbpe if self.multi == (factor > 1) else None
