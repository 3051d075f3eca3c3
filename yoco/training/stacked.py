"""Several training runs at once: their weights are stacked, so that a GPU's kernels serve all."""

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.func import functional_call

from yoco import augment, models
from yoco.training.network import Run, batches
from yoco.training.protocol import Protocol
from yoco.utils import device as devices
from yoco.utils import graphs

# pixels of the images in all batches of a step: 16 runs with batches of 64 images of 32×32
TOGETHER = 16 * 64 * 32**2


def grouped(
    kinds: Sequence[tuple[Protocol, torch.Size, Hashable]], device: torch.device, jobs: int = 1
) -> list[list[int]]:
    """Return which runs to train at once, by number; the first of each group are in order.

    On a CPU every run trains alone: one network fits its cache, and others have the other cores.

    Args:
        kinds: for each run its protocol, the shape of its images [N, C, S, S], and whatever else
            runs that train at once must share.
        device: where they train.
        jobs: groups in parallel: no GPU is left without work.
    """
    alike: dict[Hashable, list[int]] = defaultdict(list)
    for number, kind in enumerate(kinds):
        alike[kind if devices.is_gpu(device) else number].append(number)
    groups = []
    for numbers in alike.values():
        needed = math.ceil(len(numbers) / _most(*kinds[numbers[0]][:2]))
        parts = torch.tensor(numbers).tensor_split(max(needed, min(jobs, len(numbers))))
        groups += [part.tolist() for part in parts]
    return sorted(groups)


def _most(protocol: Protocol, shape: torch.Size) -> int:
    """Return how many runs to train at once at most."""
    alone = protocol.compiled or not protocol.optimiser.IN_STUDIES
    if alone or not models.stackable(protocol.model):
        return 1
    return max(1, TOGETHER // (min(protocol.batch_size, shape[0]) * shape[-1] ** 2))


def fit(runs: Sequence[Run]) -> None:
    """Train runs of one of the `grouped` groups by their whole schedule."""
    together = Stacked(runs) if len(runs) > 1 else runs[0]
    for _ in range(runs[0].protocol.epochs):
        together.epoch()


class Stacked:
    """Runs that train at once. Each ends as it would alone, up to rounding, with the same draws.

    The runs' weights and momentum become views of stacked tensors, so that each run can still be
    read, saved and restored.

    Args:
        runs: at least one, of one protocol, one number of images and of epochs done, on one device,
            with networks for which `models.stackable` is true.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs, first = list(runs), runs[0]
        self.network, self.protocol = first.network, first.protocol
        self.device = first.images.device
        self.names = [name for name, _ in first.network.named_parameters()]
        of_each = [run.step.optimizer for run in runs]
        self.parameters = [
            _joined(same).requires_grad_() for same in zip(*(o.parameters for o in of_each))
        ]
        self.optimizer = self.protocol.optimiser.build(self.parameters)
        self.optimizer.momenta = [_joined(same) for same in zip(*(o.momenta for o in of_each))]
        self.learn = graphs.captured(self._learn, self.device)

    def epoch(self, seen: Callable[[Tensor, Tensor], None] | None = None) -> None:
        """Train every run for one epoch.

        seen: called with the indices [runs, n] and logits [runs, n, K] of each step's batches.
        Raises FloatingPointError if a weight of a run is no longer finite.
        """
        p, sources = self.protocol, tuple(run.own_source for run in self.runs)
        self.optimizer.lr = self.runs[0].learning_rate
        for run in self.runs:
            run.network.train()
        orders = [
            batches(len(r.images), p.batch_size, r.own_source, p.last_batch) for r in self.runs
        ]
        for indices in zip(*orders):
            chosen = torch.stack(indices).to(self.device)
            logits = self.learn(chosen, sources=sources)
            if seen is not None:
                seen(chosen, logits)
        for run in self.runs:
            run.epochs += 1
        finite = torch.stack([p.isfinite().flatten(1).all(1) for p in self.parameters]).all(0)
        if not finite.all():
            raise self.runs[finite.tolist().index(False)].diverged()

    def _learn(
        self, chosen: Int[Tensor, "runs images"], *, sources: Sequence[Generator]
    ) -> Float[Tensor, "runs images classes"]:
        """Take a step of every run; return the logits from before it."""
        losses, logits = torch.vmap(self._losses)(self.parameters, *self._batches(chosen, sources))
        self.optimizer.zero_grad()
        losses.sum().backward()
        self.optimizer.step()
        return logits.detach()

    def _batches(
        self, chosen: Int[Tensor, "runs images"], sources: Sequence[Generator]
    ) -> tuple[Tensor, Tensor]:
        """Return each run's images, augmented and mixed, and their soft targets."""
        augmentation = self.runs[0].augmentation
        on_gpu = devices.is_gpu(sources[0].device)
        if not isinstance(augmentation, augment.Augmentation) or not on_gpu:
            each = [run.batch(*drawn) for run, *drawn in zip(self.runs, chosen, sources)]
            images, targets = map(torch.stack, zip(*each))
            return images, targets
        # few kernels serve all runs
        rows = torch.arange(len(chosen), device=self.device).view(-1, 1)
        images, targets = self.images[rows, chosen], self.targets[rows, chosen]
        draw = augmentation.draw_together(chosen.shape[1], images.shape[-1], sources)
        images = augmentation.apply(images.flatten(0, 1), draw).unflatten(0, chosen.shape)
        return augment.cutmix_together(images, targets, sources, self.protocol.cutmix)

    @functools.cached_property
    def images(self) -> Float[Tensor, "runs images channels size size"]:
        """Every run's images; each run's own become a view of them."""
        stacked = torch.stack([run.images for run in self.runs])
        for run, own in zip(self.runs, stacked):
            run.images = own
        return stacked

    @functools.cached_property
    def targets(self) -> Float[Tensor, "runs images classes"]:
        """Every run's soft targets."""
        return torch.stack([run.targets for run in self.runs])

    def _losses(
        self, parameters: list[Tensor], images: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `network.loss_and_logits`, for one run's weights."""
        with devices.autocast(self.device, self.protocol.precision):
            named = dict(zip(self.names, parameters))
            logits = functional_call(self.network, named, (images,)).float()
        return F.cross_entropy(logits, targets), logits


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """Return tensors of one shape stacked; each becomes a view of its part."""
    stacked = torch.stack([tensor.detach() for tensor in tensors])
    for tensor, own in zip(tensors, stacked):
        tensor.data = own
    return stacked
