"""One expert in training: its batches, its learning rate, and what is kept of it."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from yoco.condense.expert_settings import ExpertSettings
from yoco.condense.presets import network_of
from yoco.data.batches import RealImages
from yoco.data.image_data import ImageData
from yoco.training import network as train
from yoco.training import resumable
from yoco.training.sgd import MomentumSGD
from yoco.training.state import State
from yoco.utils import device as devices
from yoco.utils import seeds

STREAM = 1000  # expert n draws from stream STREAM + n of its seed
CHUNK = 32  # batches that are drawn from the same part of an epoch


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
