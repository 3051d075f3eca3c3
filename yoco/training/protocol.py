"""The paper's way to train a network (design §6): the settings of a training run."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from yoco import augment, models
from yoco.training.photographic import Photographic
from yoco.training.sgd import MomentumSGD
from yoco.utils import checks, device, fields

LAST_BATCHES = ("even", "small")
# our default, and the published way
PROTOCOLS = {"even": {"last_batch": "even"}, "paper": {"last_batch": "small"}}
# with the other protocol fields that each sets
AUGMENTATIONS: dict[str, dict[str, Any]] = {"dsa": {}, "imagenet": {"cutmix": 1.0}}
# values of every training from before these could be chosen
BEFORE = {"last_batch": "small", "augmentation": "dsa"}


@dataclass(frozen=True)
class Optimiser:
    """SGD with the paper's settings for every network."""

    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def build(self, parameters: Iterable[Float[Tensor, "..."]]) -> MomentumSGD:
        return MomentumSGD(parameters, self.lr, self.momentum, self.weight_decay)


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

    @classmethod
    def of(cls, protocol: str = "even", **fields: Any) -> "Protocol":
        """Return a protocol by name.

        "even" splits batches evenly, "paper" leaves a small last batch as the published code does.

        fields: of `Protocol`; they override those of the named protocol. augmentation="imagenet"
        sets cutmix=1 unless that is given. Raises ValueError if the name is unknown.
        """
        named = PROTOCOLS[checks.one_of("protocol", protocol, PROTOCOLS)]
        augmented = AUGMENTATIONS[
            checks.one_of("augmentation", fields.get("augmentation", "dsa"), AUGMENTATIONS)
        ]
        return cls(**{**named, **augmented, **fields})

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
