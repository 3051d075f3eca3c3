"""Training a network on images in memory: step, epoch, whole run, outputs."""

import functools
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from yoco import augment, models
from yoco.data.batches import RealImages
from yoco.training.optimizer import Optimizer
from yoco.training.protocol import Optimiser as Optimiser
from yoco.training.protocol import Protocol, augmentation_of
from yoco.training.state import State
from yoco.utils import device, graphs, seeds

Images = Float[Tensor, "images channels size size"]  # normalised
Logits = Float[Tensor, "images classes"]
Labels = Int[Tensor, "images"] | Float[Tensor, "images classes"]  # or soft targets


def loss_and_logits(
    model: nn.Module, images: Images, targets: Logits, precision: str
) -> tuple[Float[Tensor, ""], Logits]:
    """Return the mean cross-entropy against soft targets and the logits, float32."""
    with device.autocast(images.device, precision):
        logits = model(images)
    logits = logits.float()
    return F.cross_entropy(logits, targets), logits


@dataclass(frozen=True)
class Step:
    """One optimiser step on a batch; returns the detached logits from before the step."""

    model: nn.Module
    optimizer: Optimizer
    precision: str = "float32"
    compiled: bool = False

    def __call__(self, images: Images, targets: Logits) -> Logits:
        if self.compiled:
            images, targets = device.for_compiled(images, targets)
        function = device.compiled_once(loss_and_logits) if self.compiled else loss_and_logits
        loss, logits = function(self.model, images, targets, self.precision)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return logits.detach()

    @functools.cached_property
    def learn(self) -> Callable[..., Tensor]:
        """Augment, mix and learn from a batch; on a GPU a CUDA graph per batch size.

        (images, labels, source=, classes=, augmentation=, cutmix=) -> logits from before the step.
        """
        # no reference cycle: graphs hold much memory and are freed with their network
        learn = functools.partial(_learn, weakref.proxy(self))
        return graphs.captured(learn, next(self.model.parameters()).device)


def _learn(
    step: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    source: Generator,
    classes: int,
    augmentation: augment.Augmentation,
    cutmix: float,
) -> Tensor:
    return step(*augment.cutmix(augmentation(images, source), labels, classes, source, cutmix))


def batches(
    count: int, batch_size: int, source: Generator, last_batch: str = "even"
) -> Sequence[Int[Tensor, "_"]]:
    """Split a random order of 0..count-1 into batches.

    A small last batch takes a step at the full learning rate, which costs accuracy: 65 images train
    to 21.5 % in batches of 64 and 1, and to 42.5 % in batches of 33 and 32 (CIFAR-10, 200 epochs;
    design §5).

    Args:
        count: number of images, at least 1.
        batch_size: images per batch at most, at least 1.
        source: generator of the order.
        last_batch: "even" splits into ceil(count / batch_size) batches whose sizes differ by at
            most one; "small" fills every batch but the last, as the published loaders do.

    Returns:
        The batches, on the generator's device; every index is in exactly one.
    """
    order = torch.randperm(count, generator=source, device=source.device)
    return (
        order.split(batch_size)
        if last_batch == "small"
        else order.tensor_split(-(-count // batch_size))
    )


def epoch(
    step: Step,
    images: Images | RealImages,
    labels: Labels,
    source: Generator,
    *,
    classes: int,
    augmentation: Callable[[Tensor, Generator], Tensor],
    batch_size: int = 64,
    last_batch: str = "even",
    cutmix: float = 0.5,
    seen: Callable[[Tensor, Tensor], None] | None = None,
) -> None:
    """Make one pass over normalised images.

    Each batch is augmented, and mixed by CutMix with probability `cutmix`.

    Args:
        step: takes the optimiser step.
        images, labels: the training set.
        source: generator on the CPU, or on the images' device so that nothing waits for the host.
        classes: number of classes.
        augmentation: (images, generator) -> images.
        batch_size, last_batch: as in `batches`.
        cutmix: probability.
        seen: called with each batch's indices and logits [n, K], both on the images' device.
    """
    step.model.train()
    how = {"source": source, "classes": classes, "augmentation": augmentation, "cutmix": cutmix}
    for index in batches(len(images), batch_size, source, last_batch):
        chosen = index.to(images.device)
        logits = step.learn(images[chosen], labels[chosen], **how)
        if seen is not None:
            seen(chosen, logits)


class Run:
    """One training by a resolved `protocol`, epoch by epoch, that can be interrupted and resumed.

    Args:
        images: normalised.
        labels: int64, or soft targets.
        classes: number of classes K.
        protocol: how the network is trained.
        seed: seed of the training.
        mean, std, recorded: see `augmentation_of`.

    Attributes:
        network: the network in training.
        epochs: number of epochs done.
    """

    def __init__(
        self,
        images: Images,
        labels: Labels,
        classes: int,
        protocol: Protocol,
        seed: int,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        recorded: bool = False,
    ) -> None:
        device.keep_memory(images.device)
        self.images, self.labels, self.classes = images, labels, classes
        self.protocol, self.seed, self.epochs = protocol, seed, 0
        self.source = seeds.generator(seed, stream=1)
        first, shape = seeds.draw_seed(self.source), (images.shape[1], classes, images.shape[2])
        self.network = models.build_seeded(first, protocol.model, *shape, width=protocol.width).to(
            images.device
        )
        optimizer = protocol.optimiser.build(self.network.parameters())
        self.step = Step(self.network, optimizer, protocol.precision, bool(protocol.compiled))
        self.augmentation = augmentation_of(protocol.augmentation, mean, std, recorded)
        self.own_source = seeds.for_device(self.source, images.device)

    def epoch(self, seen: Callable[[Tensor, Tensor], None] | None = None) -> None:
        """Train for one epoch; seen: as in `epoch`.

        Raises FloatingPointError if a weight is no longer finite.
        """
        self.step.optimizer.lr = self.learning_rate
        epoch(
            self.step,
            self.images,
            self.labels,
            self.own_source,
            classes=self.classes,
            augmentation=self.augmentation,
            batch_size=self.protocol.batch_size,
            last_batch=self.protocol.last_batch,
            cutmix=self.protocol.cutmix,
            seen=seen,
        )
        self.epochs += 1
        if not torch.stack(
            [torch.isfinite(parameter).all() for parameter in self.network.parameters()]
        ).all():
            raise self.diverged()

    def diverged(self) -> FloatingPointError:
        """Return the error for weights that are not finite."""
        return FloatingPointError(
            f"training diverged: weights are not finite after epoch {self.epochs} (seed "
            f"{self.seed}, {self.protocol})"
        )

    def batch(self, index: Int[Tensor, "images"], source: Generator) -> tuple[Images, Logits]:
        """Return the images with these indices, augmented and mixed, and their soft targets."""
        images, p = self.augmentation(self.images[index], source), self.protocol
        return augment.cutmix(images, self.labels[index], self.classes, source, p.cutmix)

    @property
    def targets(self) -> Float[Tensor, "images classes"]:
        """The soft targets of all images."""
        soft = self.labels.ndim == 2
        return self.labels if soft else F.one_hot(self.labels, self.classes).float()

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next epoch."""
        return self.protocol.optimiser.rate(self.epochs, self.protocol.epochs)

    def state(self) -> State:
        """Return all that the next epoch depends on.

        That is the network, what its optimiser remembers, the generators' states and the number of
        epochs done.
        """
        return {
            **network_state(self.step),
            **seeds.states(self.source, self.own_source),
            "epochs": torch.tensor(self.epochs),
        }

    def restore(self, state: State) -> None:
        restore_network(self.step, state)
        seeds.restore(state, self.source, self.own_source)
        self.epochs = int(state["epochs"])


def network_state(step: Step) -> State:
    """Return weights and buffers as "network.NAME", the optimiser's memory as "KIND.NAME".

    Of SGD, it is "momentum.NAME".
    """
    weights = {f"network.{name}": tensor for name, tensor in step.model.state_dict().items()}
    return weights | {f"{kind}.{name}": tensor for kind, name, tensor in _remembered(step)}


def _remembered(step: Step) -> list[tuple[str, str, Tensor]]:
    """Return all that the optimiser remembers: of what kind, of which parameter, and the tensor."""
    names = [name for name, _ in step.model.named_parameters()]
    return [
        (kind, *named)
        for kind, tensors in step.optimizer.memory.items()
        for named in zip(names, tensors, strict=True)
    ]


@torch.no_grad()
def restore_network(step: Step, state: State) -> None:
    """Restore a step's network and its optimiser from what `network_state` returned.

    Raises RuntimeError if it is of another network.
    """
    step.model.load_state_dict(
        {
            name.removeprefix("network."): tensor
            for name, tensor in state.items()
            if name.startswith("network.")
        }
    )
    for kind, name, tensor in _remembered(step):
        # a file from before the first step may lack it
        stored = state.get(f"{kind}.{name}", torch.zeros_like(tensor))
        if stored.shape != tensor.shape:
            raise RuntimeError(
                f"{kind} of {name} has shape {list(stored.shape)}, but its weights have "
                f"{list(tensor.shape)}"
            )
        tensor.copy_(stored)


def fit(
    images: Images,
    labels: Labels,
    classes: int,
    protocol: Protocol,
    seed: int,
    **normalisation: Any,
) -> nn.Module:
    """Train a fresh network by a resolved `protocol` and return it.

    normalisation: mean and std,
    see `Run`. Raises as `Run` and `Run.epoch`.
    """
    run = Run(images, labels, classes, protocol, seed, **normalisation)
    for _ in range(protocol.epochs):
        run.epoch()
    return run.network.eval()


def _output(function: Callable[[Tensor], Tensor], images: Tensor, precision: str) -> Tensor:
    with device.autocast(images.device, precision):
        return function(images).float()


@torch.no_grad()
def outputs(
    function: Callable[[Tensor], Tensor],
    images: Callable[[slice], Tensor],
    count: int,
    precision: str,
    *,
    compiled: bool = False,
    batch: int = 500,
) -> Float[Tensor, "images ..."]:
    """Apply `function` (a network, or its features) to `count` images in batches, in order.

    images: returns the normalised images of a slice, so that a whole test set need not be held as
    floats. Returns float32.
    """
    parts, apply = [], device.compiled_once(_output) if compiled else _output
    for start in range(0, count, batch):
        inputs = images(slice(start, start + batch))
        if compiled:
            (inputs,) = device.for_compiled(inputs)
        parts.append(apply(function, inputs, precision))
    return torch.cat(parts)
