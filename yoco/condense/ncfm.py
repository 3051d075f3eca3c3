"""NCFM: condensation by matching the distribution of features (design §5).

Distributions are compared through their characteristic functions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.func import functional_call

from yoco import formation, models
from yoco.condense.base import Condenser, Condensing, Settings
from yoco.condense.expert_pool import Pool
from yoco.condense.expert_settings import PairSettings
from yoco.condense.ncfm_draws import AUGMENTATION, DeviceDraws, Draws, HostDraws
from yoco.condense.ncfm_frequencies import Mixture, Normal
from yoco.condense.ncfm_loss import characteristic, distance, prefix_averages, prefix_weights
from yoco.condense.presets import PRESETS, default_model, network_of, overridden, smoke_width
from yoco.data.image_data import ImageData
from yoco.data.normalise import normalise
from yoco.parallel.distributed import ALONE, Ranks
from yoco.training import timing
from yoco.utils import checks, graphs, seeds
from yoco.utils import device as devices
from yoco.utils.foreign import Features

BETAS, EPSILON = (0.9, 0.999), 1e-8  # Adam's defaults
Number = float | Tensor
# formed images that pass a network at once; on a CPU, as many as fit its cache
TOGETHER_CPU, TOGETHER = 80, 4096


@dataclass(frozen=True)
class NcfmSettings(Settings):
    """Settings of NCFM. The defaults are the published ones for CIFAR-10 at ipc 10.

    The published code steps class after class and halves the learning rate when the loss stalls.
    Here all classes step at once, and the rate is constant for the first half of the run and then
    falls by a cosine to `final_lr`. Raises TypeError or ValueError if a value is out of range.
    """

    model: str = "convnet"  # network of the pool
    width: int | None = None  # channels of the ConvNet's layers; None: 128
    iterations: int = 20_000  # image steps
    real_batch: int = 1024  # real images per class and step
    frequencies: int = 4096
    # Gaussians in the learned mixture from which frequencies are drawn; 0: standard normal
    sampler: int = 0
    image_lr: float = 0.001
    final_lr: float = 0.0001
    calibration: float = 1.0  # weight of the cross-entropy under a trained network
    calibrate_every: int = 1  # steps
    # in a nested set, a prefix of k cells weighs k ** -prefix_power; 0: all weigh the same
    prefix_power: float = 0.0
    pool_networks: int = 20
    pool_epochs: int = 60
    # random real images per network, at most; each has a subset of its own; None: all
    pool_images: int | None = None
    pool_lr: float = 0.04
    pool_batch: int = 256
    pool_seed: int = 0  # independent of the run's seed, so that runs can share a pool

    def __post_init__(self) -> None:
        for name in ("iterations", "real_batch", "frequencies", "calibrate_every", "pool_networks"):
            checks.whole(name, getattr(self, name), 1)
        checks.whole("sampler", self.sampler, 0)
        for name in ("image_lr", "final_lr", "calibration", "prefix_power", "pool_lr"):
            checks.real(name, getattr(self, name), 0)
        for name in ("pool_epochs", "pool_batch"):
            checks.whole(name, getattr(self, name), 1)
        if self.pool_images is not None:
            checks.whole("pool_images", self.pool_images, 1)
        checks.seed("pool_seed", self.pool_seed)
        object.__setattr__(self, "model", self.pool.model)  # checked and turned into text

    @property
    def steps(self) -> int:
        return self.iterations

    @property
    def pool(self) -> PairSettings:
        """How the networks are trained."""
        network: dict[str, Any] = {
            "model": self.model,
            "width": self.width,
            "lr": self.pool_lr,
            "batch_size": self.pool_batch,
        }
        return PairSettings(epochs=self.pool_epochs, images=self.pool_images, **network)

    def work(self, classes: int, formed: int) -> int:
        """Return roughly the images that go through a network per step.

        This decides whether compiling pays.
        """
        return classes * (self.real_batch + 4 * formed)

    def lr_at(self, number: int) -> float:
        """Return the learning rate of step `number`."""
        late = max(0.0, 2 * number / self.steps - 1)
        return self.final_lr + (self.image_lr - self.final_lr) * (1 + math.cos(math.pi * late)) / 2


def settings_for(preset: str, size: int, ipc: int, overrides: Mapping[str, Any]) -> NcfmSettings:
    """Return the preset for images of side `size`, with single values overridden.

    `laptop` and `smoke` take fewer and larger steps. Raises ValueError if a preset, setting or
    value is unknown.
    """
    checks.one_of("preset", preset, PRESETS)
    values: dict[str, Any] = {"model": default_model(size)}
    if preset != "paper":
        values |= {"image_lr": 0.01, "final_lr": 0.001}
    if preset == "laptop":
        values |= {"iterations": 2500, "real_batch": 64, "frequencies": 1024, "prefix_power": 1.0}
        values |= {"pool_networks": 3, "pool_epochs": 12}
    elif preset == "smoke":
        values |= {
            "width": smoke_width(overrides, values["model"]),
            "iterations": 80,
            "real_batch": 16,
            "frequencies": 128,
        }
        values |= {"image_lr": 0.03, "final_lr": 0.003}
        values |= {"pool_networks": 2, "pool_epochs": 3, "pool_batch": 64}
    return overridden(NcfmSettings(), {**values, **overrides})


class CharacteristicMatching(Condensing):
    """Steps of NCFM: each draws a network and moves the images by Adam.

    The network's weights are between its initial and its trained ones. On a CUDA device, draws come
    from a generator there, whose state is part of `state()` as well. If that device also holds the
    real images, a step is one CUDA graph (see `graphs.captured`). With several ranks, each matches
    its own classes.

    Args:
        experts: the folder that keeps the pool's networks (see `train_experts`); None trains them
            for this run only.
        prefixes: numbers of formed images per class; each such prefix is matched as a set of its
            own. () matches the whole set only.
        progress: show a progress bar for the pool.
        Others: as `Condensing`.
    """

    def __init__(
        self,
        data: ImageData,
        ipc: int,
        factor: int,
        settings: NcfmSettings,
        source: Generator,
        device: torch.device,
        precision: str,
        compiled: bool,
        experts: str | Path | None = None,
        prefixes: Sequence[int] = (),
        progress: bool = True,
        ranks: Ranks = ALONE,
    ) -> None:
        super().__init__(data, ipc, factor, settings, source, device, precision, compiled, ranks)
        where: dict[str, Any] = {
            "device": device,
            "precision": precision,
            "compiled": compiled,
            "progress": progress,
        }
        self.pool = Pool(
            data,
            experts,
            settings.pool,
            settings.pool_networks,
            settings.pool_seed,
            ranks=ranks,
            **where,
        )
        self.mean, self.square = torch.zeros_like(self.images), torch.zeros_like(self.images)
        formed = ipc * factor**2
        self.averages = prefix_averages(prefixes or [formed], formed).to(device)
        self.weights = prefix_weights(prefixes or [formed], settings.prefix_power).to(device)
        self.real_average = prefix_averages([settings.real_batch], settings.real_batch).to(device)
        self.statistics = [torch.tensor(values, device=device) for values in (data.mean, data.std)]
        together = max(1, (TOGETHER_CPU if device.type == "cpu" else TOGETHER) // formed)
        self.groups = [group.to(device) for group in _groups(self.own, together)]
        head = models.head_of(settings.model, *models.shape_of(data))
        self.network = Network(network_of(settings, data, 0).to(device), precision, compiled, head)
        width = self.network.width
        self.sampler = (
            Mixture(width, settings.sampler, source, device) if settings.sampler else Normal(width)
        )
        drawn = DeviceDraws if devices.is_gpu(device) else HostDraws
        self.draws = drawn(
            self.pool,
            self.members,
            data.size,
            settings.real_batch,
            settings.frequencies,
            self.sampler,
            device,
        )
        self.own_source = seeds.for_device(source, device)
        recordable = ranks.size == 1 and self.real.pixels.device == self.images.device
        self._advance = graphs.captured(self._advanced, device) if recordable else self._advanced

    def rules(self) -> dict[str, Any]:
        """Return the layout of a network of the user's own; for the package's networks nothing."""
        return (
            models.layout(self.settings.model, *models.shape_of(self.data))
            if models.own(self.settings.model)
            else {}
        )

    def further_work(self) -> dict[timing.Unit, int]:
        """Return the epochs of the pool's missing networks."""
        return self.pool.work()

    def prepare(self, time_budget: float | None) -> bool:
        """Train the missing networks; False if the time of any rank ran out before the last one."""
        return self.pool.ready(time_budget)

    def step(self, number: int) -> float:
        """Take one image step.

        Returns the loss averaged over the classes, or NaN if a gradient is not finite.
        """
        corrections = [1 - beta ** (number + 1) for beta in BETAS]
        now: dict[str, Any] = {
            "source": self.own_source,
            "calibrated": number % self.settings.calibrate_every == 0,
        }
        total, *moved = self._advance(
            self.images, self.mean, self.square, self.settings.lr_at(number), *corrections, **now
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
        self, images: Tensor, draws: Draws, calibrated: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return each class's loss, float32 [K], and the gradients of their sum.

        They are in the images, and in the frequencies if these are learned (else 0). calibrated:
        whether the loss includes the cross-entropy under trained weights.
        """
        frequencies = draws.frequencies.detach().requires_grad_(draws.frequencies.requires_grad)
        losses, gradient, slope = (
            torch.zeros(len(self.data.classes), device=self.device),
            torch.zeros_like(images),
            torch.zeros_like(frequencies),
        )
        for group in self.groups:
            chosen = (
                group.view(-1, 1) * self.ipc + torch.arange(self.ipc, device=self.device)
            ).flatten()
            own = images[chosen].requires_grad_()
            target = self._target(group, draws, frequencies)
            synthetic = _seen(
                normalise(formation.form(own, self.factor), *self.statistics), group, draws
            )
            loss = (
                distance(
                    target,
                    self._characteristic(
                        draws.between, synthetic, group, frequencies, self.averages
                    ),
                )
                @ self.weights
            )
            if calibrated:
                loss = loss + self.settings.calibration * self._calibration(
                    draws.trained, synthetic, group
                )
            learned = [frequencies] if frequencies.requires_grad else []
            losses[group] = loss.detach()
            gradient[chosen], *slopes = torch.autograd.grad(loss.sum(), [own, *learned])
            for part in slopes:
                slope += part
        return (
            self.ranks.sum(losses),
            self.ranks.sum(gradient),
            self.ranks.sum(slope) if frequencies.requires_grad else slope,
        )

    def _target(self, group: Tensor, draws: Draws, frequencies: Tensor) -> Tensor:
        """Return the characteristic functions of the real images of a group of classes."""
        with torch.no_grad():
            features = self.network.features(
                draws.between, _seen(self.real[draws.real[group].flatten()], group, draws)
            )
        return characteristic(
            features.unflatten(0, (len(group), -1)), frequencies, self.real_average
        )

    def _characteristic(
        self, weights: Tensor, images: Tensor, group: Tensor, frequencies: Tensor, averages: Tensor
    ) -> Tensor:
        features = self.network.features(weights, images)
        return characteristic(features.unflatten(0, (len(group), -1)), frequencies, averages)

    def _calibration(self, weights: Tensor, images: Tensor, group: Tensor) -> Tensor:
        """Return the mean cross-entropy of each class's images under trained weights, [classes]."""
        labels = group.view(-1, 1).expand(-1, len(images) // len(group)).flatten()
        logits = self.network.logits(weights, images)
        return F.cross_entropy(logits, labels, reduction="none").view(len(group), -1).mean(1)

    def state(self) -> dict[str, Tensor]:
        """Return images, Adam's moments, the sampler's parameters and the generators' states.

        The pool is not part of it.
        """
        own = {"images": self.images, "mean": self.mean, "square": self.square}
        return own | self.sampler.state() | seeds.states(self.source, self.own_source)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned."""
        for name in ("images", "mean", "square"):
            setattr(self, name, state[name].to(self.device))
        self.sampler.restore(state)
        seeds.restore(state, self.source, self.own_source)


def _seen(images: Tensor, group: Tensor, draws: Draws) -> Tensor:
    """Augment normalised images of a group of classes, as many of each, by their class's draw."""
    classes = group.view(-1, 1).expand(-1, len(images) // len(group)).flatten()
    return AUGMENTATION.apply(images, draws.augmentation.of(classes))


def adam(
    images: Tensor,
    mean: Tensor,
    square: Tensor,
    gradient: Tensor,
    lr: Number,
    corrections: Sequence[Number],
) -> tuple[Tensor, Tensor, Tensor]:
    """Take Adam's step on pixels, clamped to 0..1; return the images and the moments after it.

    corrections: 1 - β**n of both moments at the nth step. Numbers may be scalar tensors, which a
    CUDA graph reads anew.
    """
    mean, square = torch.lerp(gradient, mean, BETAS[0]), torch.lerp(gradient**2, square, BETAS[1])
    first, second = mean / corrections[0], square / corrections[1]
    return (images - lr * first / (second.sqrt() + EPSILON)).clamp(0, 1), mean, square


class Network:
    """Features and logits of networks of one architecture, whose weights are one flat vector [P].

    The vector is in named_parameters order.

    Args:
        skeleton: a network of that architecture; its own weights are not read.
        precision: "float32", or "bfloat16" for the convolutions.
        compiled: use torch.compile.
        head: name of the layer that turns features into logits.

    Attributes:
        width: dimensions D of the features.
    """

    def __init__(self, skeleton: Any, precision: str, compiled: bool, head: str = "head") -> None:
        self.skeleton, self.precision, self.head = skeleton.requires_grad_(False), precision, head
        self.features_of_skeleton = Features(skeleton, head)
        # torch.compile cannot include a hook
        self.compiled = compiled and not self.features_of_skeleton.hooked
        self.shapes = {name: parameter.shape for name, parameter in skeleton.named_parameters()}
        self.width = skeleton.get_submodule(head).in_features
        self._features = devices.compiled(self._features_of) if self.compiled else self._features_of

    def features(self, weights: Tensor, images: Tensor) -> Tensor:
        """Return the features [N, D] of normalised images, differentiable in the images."""
        images = images.contiguous(memory_format=torch.channels_last) if self.compiled else images
        return self._features(self._named(weights), images)

    def logits(self, weights: Tensor, images: Tensor) -> Tensor:
        """Return the logits, float32 [N, K]."""
        named = self._named(weights)
        return F.linear(
            self.features(weights, images).float(),
            named[f"{self.head}.weight"],
            named.get(f"{self.head}.bias"),
        )

    def _named(self, weights: Tensor) -> dict[str, Tensor]:
        parts = weights.split([shape.numel() for shape in self.shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts)}

    def _features_of(self, named: dict[str, Tensor], images: Tensor) -> Tensor:
        parameters = {f"network.{name}": values for name, values in named.items()}
        with devices.autocast(images.device, self.precision):
            return functional_call(self.features_of_skeleton, parameters, (images,))


def _groups(classes: Sequence[int], size: int) -> list[Tensor]:
    """Split classes into groups of at most `size` and nearly equal lengths."""
    if not classes:
        return []
    return list(torch.tensor(classes).tensor_split(math.ceil(len(classes) / size)))


LOSS = "distance of the characteristic functions, and calibration"
CONDENSER = Condenser(
    "ncfm",
    settings_for,
    CharacteristicMatching,
    multi=True,
    loss=LOSS,
    unending={"iterations": 10**6},
    experts="networks",
    nests=True,
)
