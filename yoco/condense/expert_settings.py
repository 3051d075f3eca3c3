"""How the experts of MTT and the networks of NCFM's pool are trained on real images."""

import math
from dataclasses import dataclass
from typing import ClassVar

from yoco import augment
from yoco.condense.base import Matchable
from yoco.data.image_data import ImageData
from yoco.utils import fields

# DSA's, for experts and students
AUGMENTATION = augment.Augmentation(augment.OPERATIONS, single=True)


@dataclass(frozen=True)
class ExpertSettings:
    """How one expert of MTT is trained.

    The defaults are the published ones for CIFAR, plain SGD.
    """

    weight_decay: ClassVar[float] = 0.0
    # whether the weights after each epoch are kept, or only the first and the last
    every_epoch: ClassVar[bool] = True
    augmentation: ClassVar[augment.Augmentation] = AUGMENTATION

    epochs: fields.Count = 50
    model: Matchable = "convnet"
    width: fields.Count | None = None  # channels of the ConvNet's layers; None: 128
    # random real images per expert, at most; each has a subset of its own; None: all
    images: fields.Count | None = None
    lr: fields.Rate = 0.01
    momentum: fields.Share = 0.0
    batch_size: fields.Count = 256

    def __post_init__(self) -> None:
        fields.check(self)

    def taken(self, data: ImageData) -> int:
        """Return the number of images that an expert trains on."""
        return min(self.images or len(data.train_images), len(data.train_images))

    def lr_at(self, progress: float) -> float:
        """Return the learning rate after a share of the training, in 0..1."""
        return self.lr


@dataclass(frozen=True)
class PairSettings(ExpertSettings):
    """How one network of NCFM's pool is trained.

    Momentum SGD, with a linear warm-up and then a cosine to 0.
    """

    lr: fields.Rate = 0.04
    momentum: fields.Share = 0.9
    weight_decay: fields.Rate = 5e-4  # type: ignore[misc]  # fixed for MTT, a setting here
    warmup: fields.Share = 0.05  # share of the training

    every_epoch: ClassVar[bool] = False
    augmentation: ClassVar[augment.Augmentation] = augment.Augmentation(
        ("color", "crop", "flip", "cutout")
    )

    def lr_at(self, progress: float) -> float:
        if progress < self.warmup:
            return self.lr * progress / self.warmup
        return self.lr * (1 + math.cos(math.pi * (progress - self.warmup) / (1 - self.warmup))) / 2
