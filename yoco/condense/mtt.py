"""MTT: condensation by trajectory matching: students should go where experts went (design §6)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor

from yoco import formation, models
from yoco.condense.base import Condenser, NetworkSettings
from yoco.condense.expert_pool import Pool, Pooled
from yoco.condense.expert_training import AUGMENTATION, ExpertSettings
from yoco.condense.mtt_student import Batch, Student, distance_gradients
from yoco.condense.presets import network_of, overridden, values_of
from yoco.data.normalise import normalise
from yoco.training import network as training
from yoco.utils import checks
from yoco.utils.fields import Count, Rate, Seed, Share

LEAST_STUDENT_LR = 1e-5  # the learned rate stays positive
PUBLISHED = {  # CIFAR-10 without whitening, by ipc
    1: {"student_steps": 50, "max_start_epoch": 5, "student_lr_lr": 1e-7, "student_lr": 1e-2},
    10: {"student_steps": 30, "max_start_epoch": 15, "student_lr_lr": 1e-5, "student_lr": 1e-2},
    50: {"student_steps": 30, "max_start_epoch": 40, "student_lr_lr": 1e-5, "student_lr": 1e-3},
}
RUNS = {
    "laptop": {
        "iterations": 200,
        "student_steps": 10,
        "max_start_epoch": 10,
        "synthetic_batch": 100,
        "student_lr": 2e-2,
        "experts": 5,
        "buffer_epochs": 20,
        "buffer_images": 10_000,
        "buffer_batch": 64,
    },
    "smoke": {
        "iterations": 30,
        "student_steps": 10,
        "max_start_epoch": 12,
        "synthetic_batch": 50,
        "image_lr": 300.0,
        "student_lr": 2e-2,
        "experts": 2,
        "buffer_epochs": 16,
        "buffer_images": 2_000,
        "buffer_batch": 128,
        "buffer_lr": 0.02,
    },
}


@dataclass(frozen=True)
class TrajectorySettings(NetworkSettings):
    """Settings of MTT. The defaults are the published ones for CIFAR-10, ipc 10, without whitening.

    image_lr is for normalised images, as published: for images in 0..1, each channel takes image_lr
    · std². Raises TypeError or ValueError if a value is out of range, or the experts are too short
    for the latest target.
    """

    iterations: Count = 5000  # image steps
    student_steps: Count = 30  # N, of plain SGD on the synthetic images
    expert_epochs: Count = 2  # M, from the start to the target
    max_start_epoch: Count = 15  # the start is drawn from 0..max_start_epoch - 1
    synthetic_batch: Count | None = None  # formed images per student step, at most; None: all
    image_lr: Rate = 1e3
    image_momentum: Share = 0.5
    # initial value; it is learned
    student_lr: Annotated[float, partial(checks.real, low=LEAST_STUDENT_LR)] = 1e-2
    student_lr_lr: Rate = 1e-5
    student_lr_momentum: Share = 0.5
    experts: Count = 100
    buffer_epochs: Count = 50  # of each expert
    # random real images per expert, at most; each has a subset of its own; None: all
    buffer_images: Count | None = None
    buffer_lr: Rate = 0.01
    buffer_momentum: Share = 0.0
    buffer_batch: Count = 256
    buffer_seed: Seed = 0  # independent of the run's seed, so that runs can share a buffer

    def __post_init__(self) -> None:
        super().__post_init__()
        latest = self.max_start_epoch - 1 + self.expert_epochs
        if latest > self.buffer_epochs:
            raise ValueError(
                f"buffer_epochs must be at least {latest} for max_start_epoch="
                f"{self.max_start_epoch} and expert_epochs={self.expert_epochs}, got "
                f"{self.buffer_epochs}"
            )

    @property
    def steps(self) -> int:
        return self.iterations

    @property
    def buffer(self) -> ExpertSettings:
        """How the experts are trained."""
        return ExpertSettings(
            epochs=self.buffer_epochs,
            model=self.model,
            width=self.width,
            images=self.buffer_images,
            lr=self.buffer_lr,
            momentum=self.buffer_momentum,
            batch_size=self.buffer_batch,
        )

    def work(self, classes: int, formed: int) -> int:
        batch = min(classes * formed, self.synthetic_batch or classes * formed)
        return 4 * self.student_steps * batch  # forward once, backward with second derivatives


def settings_for(
    preset: str, size: int, ipc: int, overrides: Mapping[str, Any]
) -> TrajectorySettings:
    """Return the preset for images of side `size`, with single values overridden.

    `paper` takes the published row (ipc 1, 10 or 50) whose ratio to `ipc` is nearest to 1; `laptop`
    and `smoke` have few iterations and few, short experts. Raises ValueError if a preset, setting
    or value is unknown.
    """
    nearest = min(PUBLISHED, key=lambda row: abs(math.log(ipc / row)))
    values = values_of(preset, {**RUNS, "paper": PUBLISHED[nearest]}, size, overrides)
    return overridden(TrajectorySettings(), {**values, **overrides})


class TrajectoryMatching(Pooled):
    """Steps of MTT.

    A student starts from weights that an expert had, trains on the synthetic images, and is pulled
    to where the expert went. Missing experts are trained before the first step. With several ranks,
    each trains its part of the experts, if there is a folder, and takes its part of each student
    batch. Arguments that are not listed are those of `Condensing`.

    Args:
        experts: the folder that keeps the experts (see `train_experts`); None trains them for this
            run only.
        progress: show a progress bar for the experts.

    Attributes:
        rate: the student's learned learning rate, float32 scalar.
    """

    settings: TrajectorySettings
    held = ("images", "velocity", "rate", "rate_velocity")  # not the experts

    def begin(self, experts: str | Path | None = None, progress: bool = True) -> None:
        """Look for the experts, and make the student."""
        data, settings, device = self.data, self.settings, self.device
        self.pool = Pool(
            self, experts, settings.buffer, settings.experts, settings.buffer_seed, progress
        )
        self.velocity = torch.zeros_like(self.images)
        self.labels = torch.arange(len(data.classes), device=device).repeat_interleave(self.formed)
        self.rate = torch.tensor(settings.student_lr, device=device)
        self.rate_velocity = torch.zeros_like(self.rate)
        self.image_lr = settings.image_lr * self.images.new_tensor(data.std).view(1, -1, 1, 1) ** 2
        network = network_of(settings, data, 0).to(device)
        self.student = Student(network, self.precision, self.compiled, self.ranks)

    def step(self, number: int) -> float:
        """Take one image step, and one step of the student's learning rate.

        Returns the distance, or NaN if a gradient is not finite.
        """
        distance, by_images, by_rate = self.gradients()
        loss = distance.masked_fill(
            ~(by_images.isfinite().all() & by_rate.isfinite()), math.nan
        ).item()
        if math.isnan(loss):
            return loss  # the loop stops and keeps the last good checkpoint
        s = self.settings
        self.velocity = s.image_momentum * self.velocity + by_images
        self.images = (self.images - self.image_lr * self.velocity).clamp(0, 1)
        self.rate_velocity = s.student_lr_momentum * self.rate_velocity + by_rate
        self.rate = (self.rate - s.student_lr_lr * self.rate_velocity).clamp(min=LEAST_STUDENT_LR)
        return loss

    def gradients(
        self,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "images channels size size"], Float[Tensor, ""]]:
        """Return the distance for one draw, and its gradients.

        Expert, start, batches and augmentation are drawn. The gradients are with respect to the
        images and the rate.
        """
        start, target = self._trajectory()
        images = self.images.detach().requires_grad_()
        formed = normalise(formation.form(images, self.factor), self.data.mean, self.data.std)
        loss, by_formed, by_rate = distance_gradients(
            self.student,
            start,
            target,
            self.rate,
            formed.detach(),
            self.labels,
            self._batches(len(formed)),
        )
        return loss, torch.autograd.grad(formed, images, by_formed)[0], by_rate

    def _trajectory(self) -> tuple[Tensor, Tensor]:
        number, epoch = (
            int(torch.randint(most, (1,), generator=self.source))
            for most in (self.settings.experts, self.settings.max_start_epoch)
        )
        start, target = self.pool.experts.pair(number, epoch, self.settings.expert_epochs)
        return start.to(self.device), target.to(self.device)

    def _batches(self, count: int) -> list[Batch]:
        """Return one batch per student step, in passes over the formed images.

        Each pass has its own order.
        """
        size = min(count, self.settings.synthetic_batch or count)
        parts: list[Tensor] = []
        while len(parts) < self.settings.student_steps:
            parts += training.batches(count, size, self.source)
        return [
            (part.to(self.device), AUGMENTATION.draw(len(part), self.data.size, self.source))
            for part in parts[: self.settings.student_steps]
        ]

    def rules(self) -> dict[str, Any]:
        """Return the network's layout, and that the start epoch is below `max_start_epoch`.

        Version 0.1 included `max_start_epoch` itself.
        """
        return {
            **models.layout(self.settings.model, *models.shape_of(self.data)),
            "start_epoch": "below max_start_epoch",
        }

    def outcome(self) -> dict[str, Any]:
        """Return the student's learned learning rate."""
        return {"student_lr": self.rate.item()}


CONDENSER = Condenser(
    "mtt",
    settings_for,
    TrajectoryMatching,
    loss="distance from the expert's weights (share of its way)",
    unending={"iterations": 10**6},
    experts="experts",
    lbpe=(3, 10),
)
