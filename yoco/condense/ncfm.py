"""NCFM: condensation by matching the distribution of features through their characteristic function (design §5)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.func import functional_call

from yoco import augment, checks, formation, models, seeds
from yoco import device as devices
from yoco.condense.characteristic import characteristic, distance, prefix_averages, prefix_weights
from yoco.condense.experts import PairSettings
from yoco.condense.idc import members_of, packed, start_choice
from yoco.condense.pool import Pool
from yoco.condense.settings import PRESETS, default_model, overridden, smoke_width
from yoco.condensed import normalise
from yoco.data import ImageData
from yoco.loop import Stepper
from yoco.ranks import ALONE, Ranks
from yoco.real import RealImages

BETAS, EPSILON = (0.9, 0.999), 1e-8  # Adam's defaults
TOGETHER_CPU, TOGETHER = 80, 4096  # formed images that pass a network at once: on a CPU, as many as its cache holds
AUGMENTATION = augment.Augmentation(augment.MATCHING)  # a draw per class, for its real and synthetic images alike


@dataclass(frozen=True)
class NcfmSettings:
    """Settings of NCFM. The defaults are the published ones for CIFAR-10 at ipc 10.

    The published code steps class after class, and halves the learning rate when the loss stalls; here all classes step at
    once, and the rate stays for the first half of the run and then falls by a cosine to `final_lr`.
    Raises TypeError or ValueError at a value out of range.
    """

    model: str = "convnet"  # of the pool
    width: int | None = None  # channels of the ConvNet's layers; None: 128
    iterations: int = 20_000  # image steps
    real_batch: int = 1024  # real images per class and step
    frequencies: int = 4096
    image_lr: float = 0.001
    final_lr: float = 0.0001
    calibration: float = 1.0  # weight of the cross-entropy under a trained network
    calibrate_every: int = 1  # steps
    prefix_power: float = 0.0  # of a nested set: a prefix of k cells weighs k ** -prefix_power; 0: all weigh the same
    pool_networks: int = 20
    pool_epochs: int = 60
    pool_images: int | None = None  # real images of each network at most, a random subset of its own; None: all
    pool_lr: float = 0.04
    pool_batch: int = 256
    pool_seed: int = 0  # apart from the run's seed, so that runs share a pool

    def __post_init__(self) -> None:
        for name in ("iterations", "real_batch", "frequencies", "calibrate_every", "pool_networks"):
            checks.whole(name, getattr(self, name), 1)
        for name in ("image_lr", "final_lr", "calibration", "prefix_power", "pool_lr"):
            checks.real(name, getattr(self, name), 0)
        for name in ("pool_epochs", "pool_batch"):
            checks.whole(name, getattr(self, name), 1)
        if self.pool_images is not None:
            checks.whole("pool_images", self.pool_images, 1)
        checks.seed("pool_seed", self.pool_seed)
        _ = self.pool  # checks model and width

    @property
    def steps(self) -> int:
        """Image steps in all."""
        return self.iterations

    @property
    def pool(self) -> PairSettings:
        """How the networks are trained."""
        network = {"model": self.model, "width": self.width, "lr": self.pool_lr, "batch_size": self.pool_batch}
        return PairSettings(epochs=self.pool_epochs, images=self.pool_images, **network)

    def work(self, classes: int, formed: int) -> int:
        """Images that go through a network in one step, about: whether compiling pays hangs on it."""
        return classes * (self.real_batch + 4 * formed)

    def lr_at(self, number: int) -> float:
        """The learning rate of step `number`."""
        late = max(0.0, 2 * number / self.steps - 1)
        return self.final_lr + (self.image_lr - self.final_lr) * (1 + math.cos(math.pi * late)) / 2

    def record(self) -> dict[str, Any]:
        return asdict(self)


def settings_for(preset: str, size: int, ipc: int, overrides: Mapping[str, Any]) -> NcfmSettings:
    """The preset for images of side `size`, with single values overridden.

    `laptop` and `smoke` take fewer and larger steps. Raises ValueError at an unknown preset, setting or value.
    """
    checks.one_of("preset", preset, PRESETS)
    values: dict[str, Any] = {"model": default_model(size)}
    if preset != "paper":
        values |= {"image_lr": 0.01, "final_lr": 0.001}
    if preset == "laptop":
        values |= {"iterations": 2500, "real_batch": 64, "frequencies": 1024, "pool_networks": 3, "pool_epochs": 12}
    elif preset == "smoke":
        values |= {"width": smoke_width(overrides, values["model"]), "iterations": 80, "real_batch": 16, "frequencies": 128}
        values |= {"image_lr": 0.03, "final_lr": 0.003}
        values |= {"pool_networks": 2, "pool_epochs": 3, "pool_batch": 64}
    return overridden(NcfmSettings(), {**values, **overrides})


class CharacteristicMatching(Stepper):
    """Steps of NCFM: each takes a network between its random and its trained weights, and moves the images by Adam.

    Draws come from one CPU generator, whose state is part of `state()`. images: the condensed images, float32
    [classes * ipc, C, S, S], kept in 0..1 after every step. experts: the folder that keeps the pool's networks (see
    `train_experts`); None trains them for this run alone. prefixes: numbers of formed images per class, of which the first so
    many are matched as a set of their own; () matches all alone. ranks: of several, each matches its own classes.
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
        self.data, self.ipc, self.factor, self.settings, self.source = data, ipc, factor, settings, source
        self.device, self.precision, self.ranks = device, precision, ranks
        devices.keep_memory(device)
        where = {"device": device, "precision": precision, "compiled": compiled, "progress": progress}
        self.pool = Pool(data, experts, settings.pool, settings.pool_networks, settings.pool_seed, ranks=ranks, **where)
        self.real, self.members = RealImages.training(data, device), members_of(data)
        self.started_from = start_choice(data, ipc, factor, source)
        self.images = packed(data, self.started_from, factor).to(device)
        self.mean, self.square = torch.zeros_like(self.images), torch.zeros_like(self.images)
        formed = ipc * factor**2
        self.averages = prefix_averages(prefixes or [formed], formed).to(device)
        self.weights = prefix_weights(prefixes or [formed], settings.prefix_power).to(device)
        self.groups = _groups(ranks.part(len(self.members)), max(1, (TOGETHER_CPU if device.type == "cpu" else TOGETHER) // formed))
        shape = (data.channels, len(data.classes), data.size)
        skeleton = models.build_seeded(0, settings.model, *shape, width=settings.width).to(device)
        self.network = Network(skeleton, precision, compiled)

    def prepare(self, time_budget: float | None) -> bool:
        """Train the networks that are not there; False if the time was over before the last one, on any rank."""
        return self.pool.ready(time_budget)

    def step(self, number: int) -> float:
        """One image step. Returns the loss, averaged over the classes, or NaN for a gradient that is not finite."""
        between, trained = self._weights()
        if number % self.settings.calibrate_every:
            trained = None
        losses, gradient = self.gradient(between, trained)
        if not torch.isfinite(gradient).all():
            return math.nan  # the loop stops at it, and keeps the last good checkpoint
        self._move(gradient, number)
        return losses.sum().item() / len(self.members)

    def gradient(self, between: Tensor, trained: Tensor | None) -> tuple[Tensor, Tensor]:
        """Each class's loss, float [classes], and its gradient with respect to the class's images.

        between: the weights that images are matched under, [P]; trained: those that calibrate, None for no calibration.
        """
        classes = len(self.members)
        draw = AUGMENTATION.draw(classes, self.data.size, self.source)
        real = torch.stack([self._real_batch(members) for members in self.members])
        frequencies = torch.randn(self.settings.frequencies, self.network.width, generator=self.source).to(self.device)
        losses, gradient = torch.zeros(classes, device=self.device), torch.zeros_like(self.images)
        for group in self.groups:
            chosen = (group.view(-1, 1) * self.ipc + torch.arange(self.ipc)).flatten()
            images = self.images[chosen].requires_grad_()
            target = self._target(between, group, real[group], draw, frequencies)
            synthetic = self._seen(normalise(formation.form(images, self.factor), self.data.mean, self.data.std), group, draw)
            loss = distance(target, self._characteristic(between, synthetic, group, frequencies, self.averages)) @ self.weights
            if trained is not None:
                loss = loss + self.settings.calibration * self._calibration(trained, synthetic, group)
            losses[group], gradient[chosen] = loss.detach(), torch.autograd.grad(loss.sum(), images)[0]
        return self.ranks.sum(losses), self.ranks.sum(gradient)

    def _weights(self) -> tuple[Tensor, Tensor]:
        """Weights between a network's first and last, and those of a trained network, float32 [P] each."""
        number, other = (int(torch.randint(self.settings.pool_networks, (1,), generator=self.source)) for _ in range(2))
        first, last = self.pool.experts.pair(number, 0, 1)
        between = torch.lerp(first, last, torch.rand(1, generator=self.source))
        return between.to(self.device), self.pool.experts.pair(other, 0, 1)[1].to(self.device)

    def _real_batch(self, members: Tensor) -> Tensor:
        """Indices of `real_batch` random real images of a class; with repetitions if there are fewer."""
        count = self.settings.real_batch
        if len(members) < count:
            return members[torch.randint(len(members), (count,), generator=self.source)]
        return members[seeds.choice(len(members), count, self.source)]

    def _seen(self, images: Tensor, group: Tensor, draw: augment.Draw) -> Tensor:
        """Normalised images of a group of classes, as many of each, augmented by the draw of their class."""
        return AUGMENTATION.apply(images, draw.of(group.repeat_interleave(len(images) // len(group))))

    @torch.no_grad()
    def _target(self, weights: Tensor, group: Tensor, real: Tensor, draw: augment.Draw, frequencies: Tensor) -> Tensor:
        """The characteristic functions of real images by index, int64 [classes of the group, n]."""
        seen = self._seen(self.real[real.flatten()], group, draw)
        return self._characteristic(weights, seen, group, frequencies, prefix_averages([real.shape[1]], real.shape[1]).to(self.device))

    def _characteristic(self, weights: Tensor, images: Tensor, group: Tensor, frequencies: Tensor, averages: Tensor) -> Tensor:
        features = self.network.features(weights, images)
        return characteristic(features.unflatten(0, (len(group), -1)), frequencies, averages)

    def _calibration(self, weights: Tensor, images: Tensor, group: Tensor) -> Tensor:
        """The mean cross-entropy of each class's images under trained weights, [classes of the group]."""
        labels = group.repeat_interleave(len(images) // len(group)).to(self.device)
        logits = self.network.logits(weights, images)
        return F.cross_entropy(logits, labels, reduction="none").view(len(group), -1).mean(1)

    def _move(self, gradient: Tensor, number: int) -> None:
        """Adam's step on the pixels, and back into 0..1."""
        first, second = BETAS
        self.mean = torch.lerp(gradient, self.mean, first)
        self.square = torch.lerp(gradient**2, self.square, second)
        mean, square = self.mean / (1 - first ** (number + 1)), self.square / (1 - second ** (number + 1))
        self.images = (self.images - self.settings.lr_at(number) * mean / (square.sqrt() + EPSILON)).clamp(0, 1)

    def state(self) -> dict[str, Tensor]:
        """Images, Adam's moments, and the state of the generator; the pool is not in it."""
        return {"images": self.images, "mean": self.mean, "square": self.square, "generator": self.source.get_state()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go back to what `state` gave."""
        for name in ("images", "mean", "square"):
            setattr(self, name, state[name].to(self.device))
        self.source.set_state(state["generator"])


class Network:
    """Features and logits of networks of one architecture, whose weights are one flat vector [P] in named_parameters order.

    skeleton: a network of that architecture (its own weights are not read). width: D of its features.
    """

    def __init__(self, skeleton: torch.nn.Module, precision: str, compiled: bool) -> None:
        self.skeleton, self.precision, self.compiled = skeleton.requires_grad_(False), precision, compiled
        self.shapes = {name: parameter.shape for name, parameter in skeleton.named_parameters()}
        self.width = skeleton.head.in_features
        self._features = devices.compiled(self._features_of) if compiled else self._features_of

    def features(self, weights: Tensor, images: Tensor) -> Tensor:
        """Features [N, D] of normalised images, differentiable in them."""
        images = images.contiguous(memory_format=torch.channels_last) if self.compiled else images
        return self._features(self._named(weights), images)

    def logits(self, weights: Tensor, images: Tensor) -> Tensor:
        """Logits float32 [N, K]."""
        named = self._named(weights)
        return F.linear(self.features(weights, images).float(), named["head.weight"], named["head.bias"])

    def _named(self, weights: Tensor) -> dict[str, Tensor]:
        parts = weights.split([shape.numel() for shape in self.shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts)}

    def _features_of(self, named: dict[str, Tensor], images: Tensor) -> Tensor:
        body = {name.removeprefix("body."): values for name, values in named.items() if name.startswith("body.")}
        with devices.autocast(images.device, self.precision):
            return functional_call(self.skeleton.body, body, (images,))


def _groups(classes: Sequence[int], size: int) -> list[Tensor]:
    """Classes in groups of at most `size`, of nearly equal lengths."""
    if not classes:
        return []
    return list(torch.tensor(classes).tensor_split(math.ceil(len(classes) / size)))
