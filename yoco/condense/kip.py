"""KIP: condensation by kernel ridge regression under a neural tangent kernel.

Source: Nguyen et al., ICLR 2021 and NeurIPS 2021. The regression is fitted on the synthetic set and
has to predict the real images. The images, and optionally the labels, move down the gradient of the
squared error.
"""

import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Num
from torch import Tensor

from yoco import formation
from yoco.condense import kip_kernels
from yoco.condense.base import Condenser, Condensing, Settings
from yoco.condense.presets import PRESETS, overridden
from yoco.data.normalise import normalise, to_floats
from yoco.training import timing
from yoco.training.state import State
from yoco.utils import checks, seeds
from yoco.utils import device as devices
from yoco.utils.fields import Count, Flag, Rate, among

KERNELS = {"fc": kip_kernels.fc_kernel, "conv": kip_kernels.conv_kernel}
# covariances of a whole run up to which `auto` takes the convolutional kernel on a CPU: about 15
# minutes on one core
AFFORDABLE = 1e10
MOST_MEASURED = 512  # images whose kernel is timed at once, at most
GPU_FACTOR = 100  # the same factor more on a GPU: a guess, not measured
RUNS: dict[str, dict[str, Any]] = {
    "paper": {},
    "laptop": {"kernel": "auto", "real_batch": 500, "iterations": 500},
    "smoke": {"kernel": "auto", "real_batch": 100, "iterations": 40},
}


@dataclass(frozen=True)
class KipSettings(Settings):
    """Settings of KIP. The defaults are the paper's for CIFAR-10: many days on a GPU."""

    # "auto": conv if a run with it is affordable, else fc
    kernel: Annotated[str, among((*KERNELS, "auto"))] = "conv"
    depth: Count = 3  # hidden layers
    # Adam's, for normalised images (a pixel in 0..1 moves by lr times its channel's std) and
    # labels
    lr: Rate = 0.04
    ridge: Rate = 1e-6  # times the mean of the synthetic kernel's diagonal
    real_batch: Count = 5000  # real images predicted per step
    learn_labels: Flag = False  # learn the labels too
    iterations: Count = 50_000

    @property
    def steps(self) -> int:
        return self.iterations


def settings_for(preset: str, size: int, ipc: int, overrides: Mapping[str, Any]) -> KipSettings:
    """Return the preset for images of side `size`, with single values overridden.

    It does not depend on `ipc`. Raises TypeError or ValueError if a preset, setting or value is
    unknown, or the convolutional kernel is asked for but does not fit images of this side.
    """
    chosen = overridden(KipSettings(**RUNS[checks.one_of("preset", preset, PRESETS)]), overrides)
    if chosen.kernel == "conv":
        kip_kernels.conv_entries(size, chosen.depth)
    return chosen


@dataclass(frozen=True)
class Pair:
    """Two images whose kernel is computed and differentiated: `timing`'s unit of work for KIP."""

    kernel: str
    depth: int
    channels: int
    size: int
    device: torch.device

    @property
    def pixels(self) -> int:
        return (
            kip_kernels.conv_entries(self.size, self.depth)
            if self.kernel == "conv"
            else self.size**2
        )

    def per_second(self, threads: int, patience: float) -> float:
        """Return the pairs per second, measured on random images.

        Their number doubles until a run takes a quarter of `patience` seconds or `MOST_MEASURED`
        images.
        """
        count, source = 2, seeds.generator(0)
        with devices.threads(threads):
            while True:
                shape = count, self.channels, self.size, self.size
                images = (
                    torch.rand(shape, dtype=torch.float64, generator=source)
                    .to(self.device)
                    .requires_grad_()
                )
                began = time.monotonic()
                (gradient,) = torch.autograd.grad(
                    KERNELS[self.kernel](images, images.detach(), self.depth).sum(), images
                )
                gradient.sum().item()  # waits for a GPU
                taken = time.monotonic() - began
                if taken >= patience / 4 or count >= MOST_MEASURED:
                    return count**2 / taken
                count *= 2


def ridge_regression(
    among: Float[Tensor, "images images"],
    towards: Float[Tensor, "others images"],
    labels: Float[Tensor, "images classes"],
    ridge: float,
) -> Float[Tensor, "others classes"]:
    """Predict K_ts (K_ss + r I)⁻¹ y, with r = ridge times the mean of K_ss's diagonal.

    Differentiable.

    Args:
        among: K_ss.
        towards: K_ts.
        labels: y.
        ridge: factor of the diagonal.

    Returns:
        The predictions; NaN or infinite if the system is singular.
    """
    shift = (
        ridge
        * among.diagonal().mean()
        * torch.eye(len(among), dtype=among.dtype, device=among.device)
    )
    weights, _ = torch.linalg.solve_ex(among + shift, labels)
    return towards @ weights


class KernelInducingPoints(Condensing):
    """Steps of KIP: predict random real images from the synthetic set, and move the set by Adam.

    Targets are one-hot minus 1/K. `precision` and `compiled` are ignored: the kernel is always
    float64, since float32 rounds the ridge away. Unless the device is a CUDA GPU, the work is done
    on the CPU, with a warning if another device was chosen. With several ranks, each predicts its
    part of the batch.

    Attributes:
        labels: float32 [classes * ipc * factor², K], of the formed images.
        kernel: "fc" or "conv", also if the setting is "auto".
    """

    settings: KipSettings

    def place(self, device: torch.device) -> torch.device:
        """Return `device` if it is a CUDA GPU, else the CPU: other GPUs have no float64."""
        if devices.is_gpu(device):
            return device
        if device.type != "cpu":
            warnings.warn(
                f"KIP needs float64, which {device.type} does not have: it runs on the CPU",
                stacklevel=5,
            )
        return torch.device("cpu")

    def begin(self) -> None:
        """Choose the kernel, and give the images their labels."""
        data, settings = self.data, self.settings
        count = len(data.classes) * self.formed
        self.kernel = _chosen_kernel(
            settings, data.size, count * (count + settings.real_batch), self.device
        )
        self.classes = torch.arange(len(data.classes), device=self.device).repeat_interleave(
            self.formed
        )
        self.labels = self._targets(self.classes)
        self.train_labels = data.train_labels.to(self.device)
        self.scale = self.images.new_tensor(data.std).view(1, -1, 1, 1)
        self.moved = {"images": self.images.clone(), "labels": self.labels}
        self.optimizer = torch.optim.Adam(self.moved.values(), settings.lr)

    def further_work(self) -> dict[timing.Unit, int]:
        """Return the pairs of all steps: formed images with each other and with the real ones."""
        pairs = len(self.classes) * (len(self.classes) + self.settings.real_batch)
        unit = Pair(
            self.kernel, self.settings.depth, self.data.channels, self.data.size, self.device
        )
        return {unit: self.settings.steps * pairs}

    def step(self, number: int) -> float:
        """Take step `number` of Adam, counted from 0.

        Returns half the mean squared error of the batch before the step, or NaN if a gradient is
        not finite. If that is not finite, nothing changes, and the loop stops.
        """
        chosen = seeds.choice(len(self.real), self.settings.real_batch, self.source).to(self.device)
        total, of_images, of_labels = map(self.ranks.sum, self._share(chosen))
        finite = of_images.isfinite().all() & of_labels.isfinite().all()
        loss = total.masked_fill(~finite, math.nan).item()
        if math.isfinite(loss):
            self._move(of_images, of_labels)
        return loss

    def _move(self, of_images: Tensor, of_labels: Tensor) -> None:
        """Take Adam's step on normalised images and, if they are learned, on the labels.

        The gradient in normalised images is std times the pixels' gradient.
        """
        images, labels = self.moved.values()
        images.copy_(self.images / self.scale)
        images.grad, labels.grad = (
            of_images * self.scale,
            of_labels if self.settings.learn_labels else None,
        )
        self.optimizer.step()
        self.images = (images * self.scale).clamp(0, 1)

    def _share(self, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return this rank's share of the batch loss and its gradients (images, labels)."""
        own = chosen[self.ranks.rows]
        images, labels = self.images.clone().requires_grad_(), self.labels.clone().requires_grad_()
        if not len(own):
            return (
                torch.zeros((), dtype=torch.float64, device=self.device),
                torch.zeros_like(images),
                torch.zeros_like(labels),
            )
        predicted = self.predict(images, labels, self.real.bytes(own))
        loss = (
            0.5
            * F.mse_loss(predicted, self._targets(self.train_labels[own]).double())
            * (len(own) / len(chosen))
        )
        of_images, of_labels = torch.autograd.grad(loss, (images, labels))
        return loss.detach(), of_images, of_labels

    def predict(
        self,
        images: Float[Tensor, "images channels size size"],
        labels: Float[Tensor, "cells classes"],
        real: Num[Tensor, "real channels size size"],
    ) -> Float[Tensor, "real classes"]:
        """Predict real images by the regression fitted on condensed images and labels.

        Args:
            images: condensed images.
            labels: labels of their formed images.
            real: uint8, or floats in 0..1.

        Returns:
            Their float64 predictions, whose argmax is the predicted class.
        """
        formed = self._inputs(formation.form(images, self.factor))
        kernel = KERNELS[self.kernel]
        among = kernel(formed, formed, self.settings.depth)
        towards = kernel(self._inputs(to_floats(real)), formed, self.settings.depth)
        return ridge_regression(among, towards, labels.double(), self.settings.ridge)

    def outcome(self) -> dict[str, Any]:
        """Return the kernel, and how many learned labels point at another class than their own.

        The condensed set keeps its order, one class after the other, whatever the labels.
        """
        changed = int((self.labels.argmax(1) != self.classes).sum())
        return {"kernel": self.kernel, "changed_classes": changed}

    def state(self) -> State:
        """Return the images, labels, Adam's moments of both and the generator's state."""
        adam = {
            f"adam.{name}.{part}": held
            for name, of in self.moved.items()
            for part, held in self.optimizer.state[of].items()
        }
        return {**super().state(), "labels": self.labels, **adam}

    def restore(self, state: State) -> None:
        """Restore what `state` returned.

        Raises KeyError for a state of version 0.1, which stored Adam's moments differently.
        """
        if "moments.images" in state:
            raise KeyError("Adam's moments are those of version 0.1")
        super().restore(state)
        self.labels.copy_(state["labels"])
        for name, of in self.moved.items():
            self.optimizer.state[of] = {
                key.rsplit(".", 1)[1]: held.to(self.device)
                for key, held in state.items()
                if key.startswith(f"adam.{name}.")
            }

    def _inputs(self, images: Tensor) -> Tensor:
        return normalise(images, self.data.mean, self.data.std).double()

    def _targets(self, labels: Tensor) -> Tensor:
        one_hot = F.one_hot(labels, len(self.data.classes)).float()
        return one_hot - 1 / one_hot.shape[1]


def _chosen_kernel(settings: KipSettings, size: int, pairs: int, device: torch.device) -> str:
    """Return what `auto` stands for with `pairs` pairs of images per step."""
    if settings.kernel != "auto":
        return settings.kernel
    try:
        work = settings.steps * pairs * kip_kernels.conv_entries(size, settings.depth)
    except ValueError:  # images that are too large or too small
        return "fc"
    return "conv" if work <= AFFORDABLE * (1 if device.type == "cpu" else GPU_FACTOR) else "fc"


CONDENSER = Condenser(
    "kip",
    settings_for,
    KernelInducingPoints,
    loss="squared error of the regression",
    # one step with the convolutional kernel can take hours
    unending={"iterations": 10**6, "kernel": "auto"},
    lbpe=(3, 50),
)
