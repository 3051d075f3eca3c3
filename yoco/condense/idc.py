"""IDC: condensation by gradient matching with multi-formation (appendix B.1.2; design §5, §6)."""

import functools
import math
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from yoco import augment, formation, models
from yoco.condense.base import Condenser, Condensing
from yoco.condense.class_groups import Group, Members, grouped
from yoco.condense.gradient_matching import GradientMatcher, convolution_weights
from yoco.condense.presets import network_of, settings_for
from yoco.data.batches import RealImages
from yoco.data.normalise import normalise
from yoco.training import network as train
from yoco.training import timing
from yoco.training.sgd import MomentumSGD
from yoco.training.state import State
from yoco.utils import device as devices
from yoco.utils import graphs, seeds


class GradientMatching(Condensing):
    """Steps of IDC: an image step matches every class's gradient, then the network takes a step.

    The network step is on real images. Every `inner_loops` steps a fresh network takes over. DREAM
    and DSA differ in the class attributes, `choose_start`, `real_batch`, the network's training and
    `pixel_lr`.

    On a GPU, classes are matched together, with draws from a generator there. With several ranks,
    each matches its own classes. All of them make the draws of every class, so that their
    generators stay in step, and train the network, which takes rank 0's weights before each image
    step.
    """

    held: ClassVar[tuple[str, ...]] = ("images", "velocity")
    # shared by the real and the synthetic half
    matching = augment.Augmentation(augment.MATCHING, shared=True)
    training = augment.Augmentation(augment.NETWORK)  # of the images that train the network
    matched = staticmethod(convolution_weights)

    def begin(self) -> None:
        """Take the first network, and decide how classes are matched."""
        s = self.settings
        self.train_labels = self.data.train_labels.to(self.device)
        self.velocity = torch.zeros_like(self.images)
        self.own_source = seeds.for_device(self.source, self.device)
        self.model = self._new_network().to(self.device)
        optimiser = MomentumSGD(
            self.model.parameters(), s.network_lr, s.network_momentum, s.network_weight_decay
        )
        self.network_step = train.Step(self.model, optimiser, self.precision, self.compiled)
        self.matcher = GradientMatcher(
            self.model, s.distance, self.matched, precision=self.precision, compiled=self.compiled
        )
        # a GPU spends its time on launches; on a CPU, one class fits the cache and ten do not
        self.together = devices.is_gpu(self.own_source.device) and not self.compiled
        # a graph cannot read images that are held on the host
        together, recordable = self._match_together, self.real.pixels.device == self.images.device
        self.match_together = graphs.captured(together, self.device) if recordable else together

    def further_work(self) -> dict[timing.Unit, int]:
        """Return the pretraining epochs of the fresh networks."""
        images = self.settings.outer_loops * self.settings.pretrain_epochs * len(self.real)
        return {timing.Network.of(self.settings, self.data, self.precision, self.device): images}

    def step(self, number: int) -> float:
        """Take one inner loop. Returns the distance D, averaged over the classes."""
        if number % self.settings.inner_loops == 0:
            self._renew_network()
            self.prepare_network()
        # ranks may round differently, on GPUs in particular
        self.ranks.like_first(list(self.model.parameters()))
        loss, gradient = self.image_gradient()
        self._move_images(gradient)
        self.update_network()
        return loss

    def prepare_network(self) -> None:
        """Train a fresh network before it is matched."""
        for _ in range(self.settings.pretrain_epochs):
            self._train_on_real(len(self.real))

    def update_network(self) -> None:
        """Take the network step that follows each image step."""
        self._train_on_real(self.settings.network_images)

    def image_gradient(self) -> tuple[float, Float[Tensor, "images channels size size"]]:
        """Return the mean of D over the classes, and the gradient of each class's D."""
        if self.together:
            matched = self.match_together(self.images, self.real_batches(), source=self.own_source)
        else:
            matched = self._in_turn()
        distances, gradient = map(self.ranks.sum, matched)
        # at NaN the loop stops and keeps the last checkpoint
        read = distances.masked_fill(~torch.isfinite(gradient).all(), math.nan).cpu()
        return read.double().sum().item() / len(self.members), gradient

    def _in_turn(self) -> tuple[Tensor, Tensor]:
        """Match one class after another; return D of each, float32 [K], and its gradient."""
        gradient = torch.zeros_like(self.images)
        distances = torch.zeros(len(self.members), device=self.device)
        for label in range(len(self.members)):
            chosen = self.synthetic_batch()
            draw = self.matching.draw(1, self.data.size, self.source)
            real = self.real_batch(label)
            if label in self.own:
                own = slice(label * self.ipc, (label + 1) * self.ipc)
                distances[label], gradient[own] = self._matched(
                    label, self.images[own], chosen, real, draw
                )
        return distances, gradient

    def _matched(
        self, label: int, images: Tensor, chosen: Tensor | slice, real: Tensor, draw: augment.Draw
    ) -> tuple[Tensor, Tensor]:
        """Return the distance D of a class and its gradient, [ipc, C, S, S].

        D is between real images, given by index, and the `chosen` cells of the class's condensed
        images, with respect to which the gradient is taken.
        """
        images = images.detach().requires_grad_()
        seen = self.matching.apply(self.real[real], draw)
        formed = formation.upsampled(formation.cells(images, self.factor)[chosen], self.data.size)
        synthetic = self.matching.apply(self._normalise(formed), draw)
        distance = self.matcher.match(self.model, seen, synthetic, label)
        return distance.detach(), torch.autograd.grad(distance, images)[0]

    def _match_together(
        self, images: Tensor, real: Tensor, *, source: Generator
    ) -> tuple[Tensor, Tensor]:
        """As `_in_turn`, with draws and kernels that serve many classes; on a GPU, one graph.

        real: indices of the real images of each class, int64 [K, n]; see `real_batches`.
        """
        draw = self.matching.draw_batches(len(self.members), self.data.size, source)
        cells = self.synthetic_batches(source)
        gradient = torch.zeros_like(images)
        distances = torch.zeros(len(self.members), device=images.device)
        by_class, slopes = (i.unflatten(0, (len(self.members), -1)) for i in (images, gradient))
        for group in self.groups:
            own = by_class[group.labels].requires_grad_()
            found = self._matched_group(own, group, real, cells, draw)
            distances[group.labels] = found.detach()
            (slopes[group.labels],) = torch.autograd.grad(found.sum(), own)
        return distances, gradient

    def _matched_group(
        self, images: Tensor, group: Group, real: Tensor, cells: Tensor | None, draw: augment.Draw
    ) -> Tensor:
        """Return D of each class of a group, differentiable in its images [k, ipc, C, S, S].

        real, draw: of every class. cells: see `synthetic_batches`.
        """
        made = formation.cells(images.flatten(0, 1), self.factor)
        if cells is not None:
            made = made[group.places(cells, len(made))]
        synthetic = self._normalise(formation.upsampled(made, self.data.size))
        seen = self.real[real[group.labels, : group.real].flatten()]

        def augmented(batch: Tensor) -> Tensor:
            own = self.matching.apply(batch, draw.of(group.of_each(batch)))
            return own.unflatten(0, (len(group.labels), -1))

        return self.matcher.match_together(
            self.model, augmented(seen), augmented(synthetic), group.labels
        )

    def _move_images(self, gradient: Tensor) -> None:
        """Momentum SGD on all classes at once (design §5, image step).

        The published code takes a step after each class.
        """
        self.velocity = self.settings.image_momentum * self.velocity + gradient
        self.images = (self.images - self.pixel_lr * self.velocity).clamp(0, 1)

    def rules(self) -> dict[str, Any]:
        """Return the network's layout, and which part of a class a step uses if not all of it."""
        layout = models.layout(self.settings.model, *models.shape_of(self.data))
        return layout if self.whole else {**layout, "synthetic": "cells"}

    @property
    def pixel_lr(self) -> float | Float[Tensor, "1 channels 1 1"]:
        """The factor of a pixel's gradient in a step, for pixels in 0..1."""
        return self.settings.image_lr

    @property
    def whole(self) -> bool:
        """Whether every step uses all cells of a class."""
        return self.formed <= self.settings.synthetic_batch

    def synthetic_batch(self) -> Int[Tensor, "cells"] | slice:
        """Return which cells of a class a step uses: all, or `synthetic_batch` random ones."""
        if self.whole:
            return slice(None)
        return seeds.choice(self.formed, self.settings.synthetic_batch, self.source).to(self.device)

    def synthetic_batches(self, source: Generator) -> Int[Tensor, "classes cells"] | None:
        """Return the same for every class; None if they are all used."""
        if self.whole:
            return None
        sizes = torch.full((len(self.members), 1), self.formed, device=source.device)
        return seeds.choice_of_each(sizes, self.formed, self.settings.synthetic_batch, source)

    def real_batch(self, label: int) -> Int[Tensor, "images"]:
        """Return the indices of the real images of a class that are matched: random ones."""
        members = self.members[label]
        return members[seeds.choice(len(members), self.settings.real_batch, self.source)]

    def real_batches(self) -> Int[Tensor, "classes images"]:
        """Return the same for every class; see `Members.draw`."""
        return self.of_classes.draw(self.settings.real_batch, self.own_source)

    @functools.cached_property
    def of_classes(self) -> Members:
        """The training images of every class, on the device."""
        return Members(self.members, self.device)

    @functools.cached_property
    def groups(self) -> list[Group]:
        """The classes that are matched at once, if they are not matched in turn."""
        real = [min(len(members), self.settings.real_batch) for members in self.members]
        synthetic = min(self.formed, self.settings.synthetic_batch)
        return grouped(self.own, real, synthetic, self.data.size, self.device)

    def _normalise(self, images: Tensor) -> Tensor:
        return normalise(images, self.real.mean, self.real.std)

    def _new_network(self) -> torch.nn.Module:
        return network_of(self.settings, self.data, seeds.draw_seed(self.source))

    def _renew_network(self) -> None:
        """Give the network fresh weights, in the memory that CUDA graphs read."""
        self.model.load_state_dict(self._new_network().state_dict())
        for momentum in self.network_step.optimizer.momenta:
            momentum.zero_()

    def _train_on_real(self, count: int) -> None:
        """Train the network on `count` random real images, augmented one by one, with CutMix."""
        if not count:
            return
        chosen = seeds.choice(len(self.real), count, self.own_source)
        self._train_network(self.real.of(chosen), self.train_labels[chosen.to(self.device)])

    def _train_network(self, images: Tensor | RealImages, labels: Tensor, **options: Any) -> None:
        """Train for one epoch on normalised images; options: as for `network.epoch`."""
        train.epoch(
            self.network_step,
            images,
            labels,
            self.own_source,
            classes=len(self.members),
            augmentation=self.training,
            batch_size=self.settings.network_batch,
            **options,
        )

    def state(self) -> State:
        """Return also the network and its momentum."""
        return super().state() | train.network_state(self.network_step)

    def restore(self, state: State) -> None:
        super().restore(state)
        train.restore_network(self.network_step, state)


LOSS = "distance of gradients"
UNENDING = {"outer_loops": 10**6}
CONDENSER = Condenser(
    "idc", settings_for, GradientMatching, multi=True, loss=LOSS, unending=UNENDING
)
