"""How an expert of MTT, or a network of NCFM's pool, is trained on real images.

Its settings; and one in training: its batches, its learning rate, and what is kept of it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from yoco import augment
from yoco.condense.base import Matchable
from yoco.condense.presets import network_of
from yoco.data.batches import RealImages
from yoco.data.image_data import ImageData
from yoco.training import network as train
from yoco.training import resumable
from yoco.training.sgd import MomentumSGD
from yoco.training.state import State
from yoco.utils import device as devices
from yoco.utils import fields, seeds

STREAM = 1000  # expert n draws from stream STREAM + n of its seed
CHUNK = 32  # batches that are drawn from the same part of an epoch
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


class ExpertTraining(resumable.Stepper):
    """An expert in training, as the loop of `resumable` sees it: a step is an epoch."""

    def __init__(
        self,
        data: ImageData,
        settings: ExpertSettings,
        identity: Mapping[str, Any],
        device: torch.device,
        compiled: bool,
        advance: Callable[[int], Any],
    ) -> None:
        devices.keep_memory(device)
        self.data, self.settings, self.advance = data, settings, advance
        self.source = seeds.generator(identity["seed"], STREAM + identity["number"])
        self.model = network_of(settings, data, seeds.draw_seed(self.source)).to(device)
        optimiser = MomentumSGD(
            self.model.parameters(), settings.lr, settings.momentum, settings.weight_decay
        )
        self.network_step = train.Step(self.model, optimiser, identity["precision"], compiled)
        chosen = seeds.choice(len(data.train_images), settings.taken(data), self.source)
        self.images = RealImages.training(data, device).of(chosen)
        self.labels = data.train_labels[chosen].to(device)
        self.own_source = seeds.for_device(self.source, device)
        self.rows = [self._parameters()]  # on the CPU
        self.shown = 0  # images that the bar has counted

    def _parameters(self) -> Tensor:
        return parameters_to_vector(self.model.parameters()).detach().cpu()

    def step(self, number: int) -> float:
        """Train for epoch `number`.

        Returns its mean cross-entropy, or NaN if a weight is not finite.
        """
        self.progress = number * len(self.images)  # in images, over all epochs
        self._look()
        order = seeds.choice(len(self.images), len(self.images), self.own_source).to(
            self.images.device
        )
        total = torch.zeros((), device=self.labels.device)
        for part in order.tensor_split(-(-len(order) // (CHUNK * self.settings.batch_size))):
            total += self._train_on(part)
        self.rows = [
            *(self.rows if self.settings.every_epoch else self.rows[:1]),
            self._parameters(),
        ]
        return total.item() / len(self.images) if self.rows[-1].isfinite().all() else math.nan

    def _train_on(self, part: Tensor) -> Tensor:
        """Train on the images with these indices; return the sum of their losses."""
        images, labels = self.images.of(part), self.labels[part]
        losses = []

        def seen(index: Tensor, logits: Tensor) -> None:
            losses.append(F.cross_entropy(logits, labels[index], reduction="sum"))
            self.progress += len(index)
            self._look()

        train.epoch(
            self.network_step,
            images,
            labels,
            self.own_source,
            classes=len(self.data.classes),
            augmentation=self.settings.augmentation,
            batch_size=self.settings.batch_size,
            cutmix=0.0,
            seen=seen,
        )
        return torch.stack(losses).sum()

    def _look(self) -> None:
        """Set the learning rate of the next batch, and advance the bar."""
        self.advance(self.progress - self.shown)
        self.shown = self.progress
        self.network_step.optimizer.lr = self.settings.lr_at(
            self.progress / (self.settings.epochs * len(self.images))
        )

    def state(self) -> State:
        """Return kept and current parameters, float32 [n, P], momentum and generator states."""
        return {
            "parameters": torch.stack(self.rows),
            "momentum": parameters_to_vector(self.network_step.optimizer.momenta),
            **seeds.states(self.source, self.own_source),
        }

    @torch.no_grad()
    def restore(self, state: State) -> None:
        self.rows = list(state["parameters"])
        seeds.restore(state, self.source, self.own_source)
        _fill(list(self.model.parameters()), self.rows[-1])
        if "momentum" in state:  # files of version 0.1 lack it if there was none
            _fill(self.network_step.optimizer.momenta, state["momentum"])


def _fill(tensors: Sequence[Tensor], values: Tensor) -> None:
    """Copy a flat vector into tensors, one after another."""
    for tensor, part in zip(tensors, values.split([tensor.numel() for tensor in tensors])):
        tensor.copy_(part.view_as(tensor))
