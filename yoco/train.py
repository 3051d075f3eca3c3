"""Training a network on images that are in memory: the step, the epoch, and the paper's schedule (design §6)."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from yoco import augment, checks, device, models, seeds

LR_DROP = 0.2  # the learning rate is multiplied by it after 2/3 and after 5/6 of the epochs


@dataclass(frozen=True)
class Optimiser:
    """SGD with the paper's settings for every network."""

    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def build(self, model: nn.Module) -> torch.optim.SGD:
        return torch.optim.SGD(model.parameters(), self.lr, self.momentum, weight_decay=self.weight_decay, foreach=True)


def loss_and_logits(model: nn.Module, images: Tensor, targets: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy against soft targets [N, K], and the logits [N, K], both float32."""
    with device.autocast(images.device, precision):
        logits = model(images)
    logits = logits.float()
    return F.cross_entropy(logits, targets), logits


@functools.cache
def _compiled() -> Callable[..., tuple[Tensor, Tensor]]:
    """One compiled function for all networks: their weights are its inputs, so a fresh network compiles nothing anew."""
    return device.compiled(loss_and_logits)


@dataclass(frozen=True)
class Step:
    """One optimiser step on a batch; returns the logits [N, K] from before the step, detached."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    precision: str = "float32"
    compiled: bool = False

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        if self.compiled:
            images, targets = device.for_compiled(images, targets)
        function = _compiled() if self.compiled else loss_and_logits
        loss, logits = function(self.model, images, targets, self.precision)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return logits.detach()


def batches(count: int, batch_size: int, source: Generator) -> Iterator[Tensor]:
    """A random order of 0..count-1, in batches; the last one may be smaller."""
    return iter(torch.randperm(count, generator=source).split(batch_size))


def epoch(
    step: Step,
    images: Tensor,
    labels: Tensor,
    source: Generator,
    *,
    classes: int,
    augmentation: augment.Augmentation,
    batch_size: int = 64,
    cutmix: float = 0.5,
    seen: Callable[[Tensor, Tensor], None] | None = None,
) -> None:
    """One pass over normalised images [N, C, S, S], each batch augmented and mixed by CutMix with probability `cutmix`.

    seen: called with the indices of each batch and its logits [n, K].
    """
    step.model.train()
    for index in batches(len(images), batch_size, source):
        chosen = index.to(images.device)
        batch = augmentation(images[chosen], source)
        batch, targets = augment.cutmix(batch, labels[chosen], classes, source, cutmix)
        logits = step(batch, targets)
        if seen is not None:
            seen(index, logits)


@dataclass(frozen=True)
class Protocol:
    """The paper's way to train a network on a condensed set, for evaluation and dynamics; it takes 1000 epochs."""

    epochs: int = 1000
    model: str = "convnet"
    width: int | None = None  # channels of the ConvNet's layers; None: 128
    batch_size: int = 64
    optimiser: Optimiser = Optimiser()
    cutmix: float = 0.5  # probability
    precision: str = "auto"
    compiled: bool | None = None  # None: where the training is long enough to pay for it

    def __post_init__(self) -> None:
        checks.whole("epochs", self.epochs, 1)
        checks.one_of("model", self.model, models.MODELS)
        checks.whole("batch_size", self.batch_size, 1)
        checks.real("cutmix", self.cutmix, 0, 1)
        checks.one_of("precision", self.precision, device.PRECISIONS)

    def pays_to_compile(self, where: torch.device, images: int, size: int) -> bool:
        """Whether `images` images of side `size` through this network, in one process, pay for compiling its step or its test."""
        return self.model not in models.SLOW_TO_COMPILE and device.worth_compiling(where, images, size)

    def resolved(self, where: torch.device, images: int, size: int) -> "Protocol":
        """With precision and compilation decided for a device and a training on `images` images of side `size`, epochs counted in."""
        compiled = self.compiled
        if compiled is None:
            compiled = self.pays_to_compile(where, images, size)
        return replace(self, precision=device.choose_precision(self.precision, where), compiled=compiled)


def fit(
    images: Tensor,
    labels: Tensor,
    classes: int,
    protocol: Protocol,
    seed: int,
    *,
    until: int | None = None,
    seen: Callable[[Tensor, Tensor], None] | None = None,
    after_epoch: Callable[[nn.Module], None] | None = None,
) -> nn.Module:
    """Train a fresh network by a resolved `protocol` on normalised images [N, C, S, S] with labels int64 [N]; returns it.

    The learning rate drops to a fifth after 2/3 and again after 5/6 of the epochs. until: stop after that many epochs
    of the same schedule. seen: as in `epoch`. after_epoch: called with the network after every epoch.
    Raises FloatingPointError where the weights leave the finite numbers.
    """
    device.keep_memory(images.device)
    source = seeds.generator(seed, stream=1)
    network = models.build_seeded(seeds.draw_seed(source), protocol.model, images.shape[1], classes, images.shape[2], width=protocol.width)
    network = network.to(images.device)
    optimizer = protocol.optimiser.build(network)
    milestones = [2 * protocol.epochs // 3, 5 * protocol.epochs // 6]
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=LR_DROP)
    step = Step(network, optimizer, protocol.precision, bool(protocol.compiled))
    augmentation = augment.Augmentation(augment.EVALUATION)
    for _ in range(until or protocol.epochs):
        epoch(
            step, images, labels, source, classes=classes, augmentation=augmentation,
            batch_size=protocol.batch_size, cutmix=protocol.cutmix, seen=seen,
        )
        scheduler.step()
        if after_epoch is not None:
            after_epoch(network)
    if not all(torch.isfinite(p).all() for p in network.parameters()):
        raise FloatingPointError(f"training diverged: weights are not finite after {until or protocol.epochs} epochs (seed {seed}, {protocol})")
    return network.eval()


def _output(function: Callable[[Tensor], Tensor], images: Tensor, precision: str) -> Tensor:
    with device.autocast(images.device, precision):
        return function(images).float()


@functools.cache
def _compiled_output() -> Callable[..., Tensor]:
    return device.compiled(_output)


@torch.no_grad()
def outputs(
    function: Callable[[Tensor], Tensor], images: Callable[[slice], Tensor], count: int, precision: str, *, compiled: bool = False, batch: int = 500
) -> Tensor:
    """`function` (a network, or its features) of `count` images in batches, in order; float32 [count, …].

    images: gives the normalised images of a slice, so that a whole test set need not be held as floats.
    """
    parts = []
    for start in range(0, count, batch):
        inputs = images(slice(start, start + batch))
        if compiled:
            (inputs,) = device.for_compiled(inputs)
        parts.append((_compiled_output() if compiled else _output)(function, inputs, precision))
    return torch.cat(parts)
