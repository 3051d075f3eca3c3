"""How the experts of MTT and the networks of NCFM's pool are trained on real images."""

import math
from dataclasses import dataclass
from typing import ClassVar

from yoco import augment, models
from yoco.data.image_data import ImageData
from yoco.utils import checks

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

    epochs: int = 50
    model: str = "convnet"
    width: int | None = None  # channels of the ConvNet's layers; None: 128
    # random real images per expert, at most; each has a subset of its own; None: all
    images: int | None = None
    lr: float = 0.01
    momentum: float = 0.0
    batch_size: int = 256

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", models.check_matchable(self.model))
        for name in ("epochs", "batch_size"):
            checks.whole(name, getattr(self, name), 1)
        for name in ("width", "images"):
            if getattr(self, name) is not None:
                checks.whole(name, getattr(self, name), 1)
        checks.real("lr", self.lr, 0)
        checks.real("momentum", self.momentum, 0, 1)

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

    lr: float = 0.04
    momentum: float = 0.9
    weight_decay: float = 5e-4  # type: ignore[misc]  # fixed for MTT, a setting here
    warmup: float = 0.05  # share of the training

    every_epoch: ClassVar[bool] = False
    augmentation: ClassVar[augment.Augmentation] = augment.Augmentation(
        ("color", "crop", "flip", "cutout")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.real("weight_decay", self.weight_decay, 0)
        checks.real("warmup", self.warmup, 0, 1)

    def lr_at(self, progress: float) -> float:
        """Return the learning rate after a share of the training, in 0..1."""
        if progress < self.warmup:
            return self.lr * progress / self.warmup
        return self.lr * (1 + math.cos(math.pi * (progress - self.warmup) / (1 - self.warmup))) / 2
