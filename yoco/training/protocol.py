"""The settings of a training run: the paper's way to train a network, and NCFM's (design §5, 6)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from yoco import augment, models
from yoco.training.adamw import TorchAdamW
from yoco.training.optimizer import Optimizer
from yoco.training.photographic import Photographic
from yoco.training.sgd import MomentumSGD
from yoco.utils import checks, device, fields

LAST_BATCHES = ("even", "small")
# with the other protocol fields that each sets
AUGMENTATIONS: dict[str, dict[str, Any]] = {"dsa": {}, "imagenet": {"cutmix": 1.0}}
# values of every training from before these could be chosen
BEFORE = {"last_batch": "small", "augmentation": "dsa"}


@dataclass(frozen=True)
class Optimiser:
    """SGD with the paper's settings for every network.

    The learning rate drops to a fifth after 2/3 and again after 5/6 of the epochs. Raises TypeError
    or ValueError if a value is bad.
    """

    lr: fields.Rate = 0.01
    momentum: fields.Share = 0.9
    weight_decay: fields.Rate = 5e-4

    DROP: ClassVar[float] = 0.2  # factor of the learning rate at each milestone
    MILESTONES: ClassVar[Sequence[tuple[int, int]]] = ((2, 3), (5, 6))  # shares of the epochs
    # whether dynamics are recorded and studies trained by it, several runs at once
    IN_STUDIES: ClassVar[bool] = True

    def __post_init__(self) -> None:
        fields.check(self)

    def build(self, parameters: Iterable[Float[Tensor, "..."]]) -> Optimizer:
        """Return what takes the steps."""
        return MomentumSGD(parameters, self.lr, self.momentum, self.weight_decay)

    def rate(self, epoch: int, epochs: int) -> float:
        """Return the learning rate of an epoch, counted from 0, of a run of `epochs` epochs."""
        lr = self.lr
        for part, of in self.MILESTONES:
            lr *= self.DROP if epoch >= part * epochs // of else 1.0
        return lr


@dataclass(frozen=True)
class AdamW(Optimiser):
    """AdamW with the settings of NCFM's evaluation; the learning rate is halved at each fifth.

    momentum, square: decay of the first and of the second moment (β₁, β₂).
    """

    lr: fields.Rate = 0.001
    weight_decay: fields.Rate = 0.01
    square: fields.Share = 0.999

    DROP = 0.5
    MILESTONES = ((1, 5), (2, 5), (3, 5), (4, 5))
    IN_STUDIES = False

    def build(self, parameters: Iterable[Float[Tensor, "..."]]) -> Optimizer:
        betas = self.momentum, self.square
        return TorchAdamW(parameters, self.lr, betas, self.weight_decay)


# the fields that each sets: our default, the paper's published way, and that of NCFM's evaluation
PROTOCOLS: dict[str, dict[str, Any]] = {
    "even": {"last_batch": "even"},
    "paper": {"last_batch": "small"},
    "ncfm": {"last_batch": "small", "batch_size": 256, "optimiser": AdamW()},
}
# those by which dynamics are recorded and studies trained
RECORDED = tuple(name for name, named in PROTOCOLS.items() if "optimiser" not in named)


@dataclass(frozen=True)
class Protocol:
    """How networks are trained on a condensed set, for evaluation and dynamics.

    The paper takes 1000 epochs. Raises TypeError or ValueError if a value is bad.
    """

    epochs: fields.Count = 1000
    # or a factory or its path, which become text: see `models.named`
    model: Annotated[str, lambda _, model: models.named(model)] = "convnet"
    width: fields.Count | None = None  # channels of the ConvNet's layers; None: 128
    batch_size: fields.Count = 64
    # or "small", as in the published loaders: see `batches`
    last_batch: Annotated[str, fields.among(LAST_BATCHES)] = "even"
    # or "imagenet": see `augmentation_of`
    augmentation: Annotated[str, fields.among(AUGMENTATIONS)] = "dsa"
    optimiser: Optimiser = Optimiser()
    cutmix: float = 0.5  # probability
    precision: Annotated[str, fields.among(device.PRECISIONS)] = "auto"
    compiled: fields.Flag | None = None  # None: if the training is long enough to pay for it

    def __post_init__(self) -> None:
        fields.check(self)
        checks.instance("optimiser", self.optimiser, Optimiser)
        # kept as given, an int too: the fingerprints of results have its text
        checks.real("cutmix", self.cutmix, 0, 1)
        object.__setattr__(self, "cutmix", checks.plain(self.cutmix))

    @classmethod
    def of(cls, protocol: str = "even", **fields: Any) -> "Protocol":
        """Return a protocol by name.

        "even" splits batches evenly; "paper" leaves a small last batch as the published code does.
        "ncfm" trains as NCFM's published evaluation of CIFAR-10 at IPC 10, which takes 4,000
        epochs: AdamW at 0.001, halved at each fifth, weight decay 0.01, batches of 256 with a small
        last one. Its augmentation and CutMix are the paper's: its files also name cutout and a
        resized crop, but its code removes cutout if there is CutMix, and the crop if there is DSA.
        At IPC 1 it takes 2,000 epochs, batch_size=128 and AdamW(lr=0.0006), at IPC 50 and for
        CIFAR-100 2,000 epochs, batch_size=128 and AdamW(weight_decay=5e-4). (github gszfwsb/NCFM:
        config/ipc*/*.yaml, condenser/evaluate.py, utils/train_val.py, utils/init_script.py.)

        fields: of `Protocol`; they override those of the named protocol. augmentation="imagenet"
        sets cutmix=1 unless that is given. Raises TypeError if there is no such field, ValueError
        if the name is unknown.
        """
        checks.options("training", fields, ("protocol", *cls.__dataclass_fields__))
        named = PROTOCOLS[checks.one_of("protocol", protocol, PROTOCOLS)]
        augmented = AUGMENTATIONS[
            checks.one_of("augmentation", fields.get("augmentation", "dsa"), AUGMENTATIONS)
        ]
        return cls(**{**named, **augmented, **fields})

    @property
    def told(self) -> dict[str, Any]:
        """The fields as a checkpoint's identity has them; a run can be resumed uncompiled."""
        return {**vars(self), "optimiser": repr(self.optimiser), "compiled": None}

    def check_recorded(self) -> None:
        """Raise ValueError unless dynamics can be recorded, and studies trained, in this way."""
        if not self.optimiser.IN_STUDIES:
            raise ValueError(
                "dynamics and studies follow the paper, which trains by SGD, got "
                f"optimiser={self.optimiser}; allowed: protocol={' or '.join(map(repr, RECORDED))}"
            )

    def pays_to_compile(self, where: torch.device, images: int, size: int) -> bool:
        """Return whether `images` images of side `size` in one process pay for compiling.

        What is compiled is this network's step or its test.
        """
        return self.model not in models.SLOW_TO_COMPILE and device.worth_compiling(
            where, images, size
        )

    def resolved(self, where: torch.device, images: int, size: int) -> "Protocol":
        """Return the protocol with precision and compilation decided for a device and a training.

        images: images of side `size` in all epochs together.
        """
        compiled = self.compiled
        if compiled is None:
            compiled = self.pays_to_compile(where, images, size)
        return replace(
            self, precision=device.choose_precision(self.precision, where), compiled=compiled
        )


def augmentation_of(
    name: str, mean: Sequence[float] | None, std: Sequence[float] | None, recorded: bool
) -> Callable[[Tensor, Generator], Tensor]:
    """Return how the batches of a training are augmented.

    Args:
        name: "dsa": colour, one of crop, scale and rotate, and flip; "imagenet": as the published
            code trains on ImageNet-10, see `Photographic`.
        mean, std: normalisation of the images, which "imagenet" needs.
        recorded: whether dynamics are recorded; then the published code applies the operations of
            "dsa" after those of "imagenet".

    Returns:
        (normalised images, generator) -> augmented images.

    Raises:
        ValueError: if "imagenet" has no mean and std, or not three values of each.
    """
    operations = augment.Augmentation(augment.EVALUATION)
    if name == "dsa":
        return operations
    if mean is None or std is None:
        raise ValueError(
            f"augmentation={name!r} needs the mean and std by which the images are normalised, "
            f"got {mean} and {std}"
        )
    photographic = Photographic(tuple(mean), tuple(std))
    return (
        (lambda images, source: operations(photographic(images, source), source))
        if recorded
        else photographic
    )
