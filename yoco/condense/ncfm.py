"""NCFM: condensation by matching the distribution of features (design §5).

Distributions are compared through their characteristic functions.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from yoco import formation, models
from yoco.condense.base import Condenser
from yoco.condense.expert_pool import Pool, Pooled
from yoco.condense.ncfm_draws import AUGMENTATION, DeviceDraws, Draws, HostDraws
from yoco.condense.ncfm_frequencies import Mixture, Normal
from yoco.condense.ncfm_loss import characteristic, distance, prefix_averages, prefix_shares
from yoco.condense.ncfm_network import Network
from yoco.condense.ncfm_settings import NcfmSettings, settings_for
from yoco.condense.presets import network_of
from yoco.data.normalise import normalise
from yoco.training.state import State
from yoco.utils import device as devices
from yoco.utils import graphs, seeds

BETAS, EPSILON = (0.9, 0.999), 1e-8  # Adam's defaults
Number = float | Float[Tensor, ""]
Pixels = Float[Tensor, "images channels size size"]
# formed images that pass a network at once on a CPU: as many as fit its cache
TOGETHER_CPU = 80
# pixels of real and formed images that are matched at once on a GPU
TOGETHER = 5000 * 32**2


class CharacteristicMatching(Pooled):
    """Steps of NCFM: each draws a network and moves the images by Adam.

    The network's weights are between its initial and its trained ones. On a CUDA device, draws come
    from a generator there, whose state is part of `state()` as well. If that device also holds the
    real images, a step is one CUDA graph (see `graphs.captured`). With several ranks, each matches
    its own classes. Arguments that are not listed are those of `Condensing`.

    Args:
        experts: the folder that keeps the pool's networks (see `train_experts`); None trains them
            for this run only.
        prefixes: numbers of formed images per class; each such prefix is matched as a set of its
            own. () matches the whole set only.
        progress: show a progress bar for the pool.
    """

    settings: NcfmSettings
    held = ("images", "mean", "square")

    def begin(
        self,
        experts: str | Path | None = None,
        prefixes: Sequence[int] = (),
        progress: bool = True,
    ) -> None:
        """Look for the pool's networks, and make what every step takes."""
        data, settings, device = self.data, self.settings, self.device
        self.pool = Pool(
            self, experts, settings.pool, settings.pool_networks, settings.pool_seed, progress
        )
        self.mean, self.square = torch.zeros_like(self.images), torch.zeros_like(self.images)
        prefixes, formed = prefixes or [self.formed], self.formed
        self.averages = prefix_averages(prefixes, formed).to(device)
        self.shares = prefix_shares(prefixes, formed, settings.prefix_share).to(device)
        self.weights = (self.averages * self.shares).mean(
            0
        )  # weights of the images' cross-entropies
        self.real_average = prefix_averages([settings.real_batch], settings.real_batch).to(device)
        self.statistics = [torch.tensor(values, device=device) for values in (data.mean, data.std)]
        of_class = (settings.real_batch + formed) * data.size**2
        most = TOGETHER_CPU // formed if device.type == "cpu" else TOGETHER // of_class
        self.groups = [group.to(device) for group in _groups(self.own, max(1, most))]
        head = models.head_of(settings.model, *models.shape_of(data))
        network = network_of(settings, data, 0).to(device)
        self.network = Network(network, self.precision, self.compiled, head)
        self.sampler: Mixture | Normal = Normal(self.network.width)
        if settings.sampler:
            self.sampler = Mixture(self.network.width, settings.sampler, self.source, device)
        self.own_source = seeds.for_device(self.source, device)
        drawn = DeviceDraws if devices.is_gpu(self.own_source.device) else HostDraws
        self.draws = drawn(
            self.pool,
            self.members,
            data.size,
            settings.real_batch,
            settings.frequencies,
            self.sampler,
            device,
        )
        recordable = self.ranks.size == 1 and self.real.pixels.device == self.images.device
        self._advance = graphs.captured(self._advanced, device) if recordable else self._advanced

    def rules(self) -> dict[str, Any]:
        """Return the layout of the user's own network; nothing for the package's networks."""
        return (
            models.layout(self.settings.model, *models.shape_of(self.data))
            if models.own(self.settings.model)
            else {}
        )

    def step(self, number: int) -> float:
        """Take one image step.

        Returns the loss averaged over the classes, or NaN if a gradient is not finite.
        """
        corrections = [1 - beta ** (number + 1) for beta in BETAS]
        total, *moved = self._advance(
            self.images,
            self.mean,
            self.square,
            self.settings.lr_at(number),
            *corrections,
            source=self.own_source,
            calibrated=number % self.settings.calibrate_every == 0,
        )
        # the only point at which the host waits for the device
        loss = total.item() / len(self.data.classes)
        if math.isfinite(loss):  # else the loop stops and keeps the last good checkpoint
            self.images, self.mean, self.square = moved
        return loss

    def _advanced(
        self,
        images: Tensor,
        mean: Tensor,
        square: Tensor,
        lr: Number,
        *corrections: Number,
        source: Generator,
        calibrated: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the sum of the classes' losses, and the images and Adam's moments after a step.

        The sum is NaN if a gradient is not finite.
        """
        draws = self.draws.next(source)
        losses, gradient, slope = self.gradients(images, draws, calibrated)
        self.sampler.ascend(draws.frequencies, slope)
        total = losses.sum().masked_fill(~torch.isfinite(gradient).all(), math.nan)
        return total, *adam(images, mean, square, gradient, lr, corrections)

    def gradients(
        self, images: Float[Tensor, "images channels size size"], draws: Draws, calibrated: bool
    ) -> tuple[
        Float[Tensor, "classes"],
        Float[Tensor, "images channels size size"],
        Float[Tensor, "frequencies features"],
    ]:
        """Return each class's loss, and the gradients of their sum.

        The gradients are with respect to the images, and to the frequencies if these are learned
        (else 0). calibrated: whether the loss includes the cross-entropy under trained weights.
        """
        frequencies = draws.frequencies.detach().requires_grad_(draws.frequencies.requires_grad)
        learned = [frequencies] if frequencies.requires_grad else []
        losses = torch.zeros(len(self.data.classes), device=self.device)
        gradient, slope = torch.zeros_like(images), torch.zeros_like(frequencies)
        for group in self.groups:
            chosen = (
                group.view(-1, 1) * self.ipc + torch.arange(self.ipc, device=self.device)
            ).flatten()
            own = images[chosen].requires_grad_()
            target = self._target(group, draws, frequencies)
            synthetic = _seen(
                normalise(formation.form(own, self.factor), *self.statistics), group, draws
            )
            features = self.network.features(draws.between, synthetic)
            made = characteristic(
                features.unflatten(0, (len(group), -1)), frequencies, self.averages, self.shares
            )
            loss = distance(target, made).mean(1)
            if calibrated:
                loss = loss + self.settings.calibration * self._calibration(
                    draws.trained, synthetic, group
                )
            losses[group] = loss.detach()
            gradient[chosen], *slopes = torch.autograd.grad(loss.sum(), [own, *learned])
            slope = sum(slopes, slope)
        losses, gradient = self.ranks.sum(losses), self.ranks.sum(gradient)
        return losses, gradient, self.ranks.sum(slope) if learned else slope

    def _target(self, group: Tensor, draws: Draws, frequencies: Tensor) -> Tensor:
        """Return the characteristic functions of the real images of a group of classes."""
        with torch.no_grad():
            features = self.network.features(
                draws.between, _seen(self.real[draws.real[group].flatten()], group, draws)
            )
        return characteristic(
            features.unflatten(0, (len(group), -1)), frequencies, self.real_average
        )

    def _calibration(self, weights: Tensor, images: Tensor, group: Tensor) -> Tensor:
        """Return the cross-entropy of each class's images under trained weights, [classes].

        It is averaged over each prefix and then over the prefixes, as the distance is.
        """
        labels = group.view(-1, 1).expand(-1, len(images) // len(group)).flatten()
        logits = self.network.logits(weights, images)
        return F.cross_entropy(logits, labels, reduction="none").view(len(group), -1) @ self.weights

    def state(self) -> State:
        """Return also the sampler's parameters; the pool is not part of it."""
        return super().state() | self.sampler.state()

    def restore(self, state: State) -> None:
        super().restore(state)
        self.sampler.restore(state)


def _seen(images: Tensor, group: Tensor, draws: Draws) -> Tensor:
    """Augment normalised images of a group of classes, equally many of each, by class."""
    classes = group.view(-1, 1).expand(-1, len(images) // len(group)).flatten()
    return AUGMENTATION.apply(images, draws.augmentation.of(classes))


def adam(
    images: Pixels,
    mean: Pixels,
    square: Pixels,
    gradient: Pixels,
    lr: Number,
    corrections: Sequence[Number],
) -> tuple[Pixels, Pixels, Pixels]:
    """Take Adam's step on pixels, clamped to 0..1; return the images and the moments after it.

    `torch.optim.Adam` moves its parameters in place; here the old images stay, since the host keeps
    them if the loss is not finite. corrections: 1 - β**n of both moments at the nth step. Numbers
    may be scalar tensors, which a CUDA graph reads at each replay.
    """
    mean, square = torch.lerp(gradient, mean, BETAS[0]), torch.lerp(gradient**2, square, BETAS[1])
    first, second = mean / corrections[0], square / corrections[1]
    return (images - lr * first / (second.sqrt() + EPSILON)).clamp(0, 1), mean, square


def _groups(classes: Sequence[int], size: int) -> list[Tensor]:
    """Split classes into groups of at most `size` and nearly equal lengths."""
    if not classes:
        return []
    return list(torch.tensor(classes).tensor_split(math.ceil(len(classes) / size)))


CONDENSER = Condenser(
    "ncfm",
    settings_for,
    CharacteristicMatching,
    multi=True,
    loss="distance of the characteristic functions, and calibration",
    unending={"iterations": 10**6},
    experts="networks",
    nests=True,
)
