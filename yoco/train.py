"""Training a network on images that are in memory: the step, the epoch, and the paper's schedule (design §6)."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from yoco import augment, checks, device, models, seeds
from yoco.real import RealImages

LAST_BATCHES = ("even", "small")
PROTOCOLS = {"even": {"last_batch": "even"}, "paper": {"last_batch": "small"}}  # ours, and the published way
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


def batches(count: int, batch_size: int, source: Generator, last_batch: str = "even") -> Sequence[Tensor]:
    """Split a random order of 0..count-1 into batches.

    A small last batch takes a step at the full learning rate, which costs accuracy: 65 images train to 21.5 % in batches of
    64 and 1, and to 42.5 % in batches of 33 and 32 (CIFAR-10, 200 epochs; design §5).

    Args:
        count: images, at least 1.
        batch_size: images per batch at most, at least 1.
        source: the generator that the order is drawn from.
        last_batch: "even" splits into ceil(count / batch_size) batches whose sizes differ by one at most; "small" fills
            every batch but the last, as the published loaders do.

    Returns:
        The batches, int64 [n] each; every index is in exactly one.
    """
    order = torch.randperm(count, generator=source)
    return order.split(batch_size) if last_batch == "small" else order.tensor_split(-(-count // batch_size))


def epoch(
    step: Step,
    images: Tensor | RealImages,
    labels: Tensor,
    source: Generator,
    *,
    classes: int,
    augmentation: augment.Augmentation,
    batch_size: int = 64,
    last_batch: str = "even",
    cutmix: float = 0.5,
    seen: Callable[[Tensor, Tensor], None] | None = None,
) -> None:
    """One pass over normalised images [N, C, S, S], each batch augmented and mixed by CutMix with probability `cutmix`.

    last_batch: as in `batches`. seen: called with the indices of each batch and its logits [n, K].
    """
    step.model.train()
    for index in batches(len(images), batch_size, source, last_batch):
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
    last_batch: str = "even"  # or "small", as the published loaders leave it: see `batches`
    optimiser: Optimiser = Optimiser()
    cutmix: float = 0.5  # probability
    precision: str = "auto"
    compiled: bool | None = None  # None: where the training is long enough to pay for it

    def __post_init__(self) -> None:
        checks.whole("epochs", self.epochs, 1)
        models.factory(self.model)
        checks.whole("batch_size", self.batch_size, 1)
        checks.one_of("last_batch", self.last_batch, LAST_BATCHES)
        checks.instance("optimiser", self.optimiser, Optimiser)
        if self.width is not None:
            checks.whole("width", self.width, 1)
        if self.compiled is not None:
            checks.flag("compiled", self.compiled)
        checks.real("cutmix", self.cutmix, 0, 1)
        checks.one_of("precision", self.precision, device.PRECISIONS)

    @classmethod
    def of(cls, protocol: str = "even", **fields: Any) -> "Protocol":
        """A protocol by name: "even" splits batches evenly, "paper" leaves a small last batch as the published code does.

        fields: of `Protocol`; they override the named protocol's. Raises ValueError if the name is unknown.
        """
        return cls(**{**PROTOCOLS[checks.one_of("protocol", protocol, PROTOCOLS)], **fields})

    def pays_to_compile(self, where: torch.device, images: int, size: int) -> bool:
        """Whether `images` images of side `size` through this network, in one process, pay for compiling its step or its test."""
        return self.model not in models.SLOW_TO_COMPILE and device.worth_compiling(where, images, size)

    def resolved(self, where: torch.device, images: int, size: int) -> "Protocol":
        """With precision and compilation decided for a device and a training on `images` images of side `size`, epochs counted in."""
        compiled = self.compiled
        if compiled is None:
            compiled = self.pays_to_compile(where, images, size)
        return replace(self, precision=device.choose_precision(self.precision, where), compiled=compiled)


class Run:
    """One training by a resolved `protocol`, epoch after epoch, that can be left and gone on with.

    images: normalised, float [N, C, S, S]; labels: int64 [N] or soft targets [N, K]. The learning rate drops to a fifth after 2/3 and again
    after 5/6 of the epochs. network: in training; epochs: how many are done.
    """

    def __init__(self, images: Tensor, labels: Tensor, classes: int, protocol: Protocol, seed: int) -> None:
        device.keep_memory(images.device)
        self.images, self.labels, self.classes, self.protocol, self.seed = images, labels, classes, protocol, seed
        self.source = seeds.generator(seed, stream=1)
        shape = (images.shape[1], classes, images.shape[2])
        network = models.build_seeded(seeds.draw_seed(self.source), protocol.model, *shape, width=protocol.width)
        self.network = network.to(images.device)
        self.step = Step(self.network, protocol.optimiser.build(self.network), protocol.precision, bool(protocol.compiled))
        self.augmentation = augment.Augmentation(augment.EVALUATION)
        self.epochs = 0

    def epoch(self, seen: Callable[[Tensor, Tensor], None] | None = None) -> None:
        """Train for an epoch; seen: as in `epoch`. Raises FloatingPointError where the weights leave the finite numbers."""
        for group in self.step.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        p = self.protocol
        shared = {"classes": self.classes, "augmentation": self.augmentation, "cutmix": p.cutmix}
        shared |= {"batch_size": p.batch_size, "last_batch": p.last_batch}
        epoch(self.step, self.images, self.labels, self.source, seen=seen, **shared)
        self.epochs += 1
        if not all(torch.isfinite(parameter).all() for parameter in self.network.parameters()):
            raise FloatingPointError(f"training diverged: weights are not finite after epoch {self.epochs} (seed {self.seed}, {p})")

    def _learning_rate(self) -> float:
        lr = self.protocol.optimiser.lr
        for milestone in (2 * self.protocol.epochs // 3, 5 * self.protocol.epochs // 6):
            lr *= LR_DROP if self.epochs >= milestone else 1.0
        return lr

    def state(self) -> dict[str, Tensor]:
        """All that the next epoch depends on: the network, its momentum, the generator's state, the epochs done."""
        return {**network_state(self.step), "generator": self.source.get_state(), "epochs": torch.tensor(self.epochs)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go back to what `state` gave."""
        restore_network(self.step, state)
        self.source.set_state(state["generator"])
        self.epochs = int(state["epochs"])


def network_state(step: Step) -> dict[str, Tensor]:
    """Weights and buffers of a step's network as "network.NAME", its momentum as "momentum.NAME"."""
    momenta = step.optimizer.state
    weights = {f"network.{name}": tensor for name, tensor in step.model.state_dict().items()}
    named = step.model.named_parameters()
    return weights | {f"momentum.{name}": momenta[p]["momentum_buffer"] for name, p in named if momenta.get(p, {}).get("momentum_buffer") is not None}


def restore_network(step: Step, state: Mapping[str, Tensor]) -> None:
    """Give a step's network and optimiser what `network_state` took. Raises RuntimeError where it is of another network."""
    step.model.load_state_dict({name.removeprefix("network."): tensor for name, tensor in state.items() if name.startswith("network.")})
    for name, parameter in step.model.named_parameters():
        buffer = state.get(f"momentum.{name}")
        if buffer is not None:
            if buffer.shape != parameter.shape:
                raise RuntimeError(f"momentum of {name} has shape {list(buffer.shape)}, its weights {list(parameter.shape)}")
            step.optimizer.state[parameter]["momentum_buffer"] = buffer.to(parameter.device)


def fit(images: Tensor, labels: Tensor, classes: int, protocol: Protocol, seed: int) -> nn.Module:
    """Train a fresh network by a resolved `protocol` on normalised images [N, C, S, S] with labels int64 [N] or soft [N, K]; returns it.

    Raises FloatingPointError as `Run.epoch`.
    """
    run = Run(images, labels, classes, protocol, seed)
    for _ in range(protocol.epochs):
        run.epoch()
    return run.network.eval()


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
