"""IDC: condensation by gradient matching with multi-formation (appendix B.1.2; design §5 and §6)."""

import math
from collections.abc import Mapping

import torch
from torch import Generator, Tensor

from yoco import augment, formation, models, seeds, train
from yoco import device as devices
from yoco.condense.matching import GradientMatcher
from yoco.condense.settings import MatchingSettings
from yoco.condensed import CondensedSet, normalise
from yoco.data import ImageData, to_floats


def start_images(data: ImageData, ipc: int, factor: int, source: Generator) -> Tensor:
    """Where condensation starts: random real images, shrunk to cells. Float [classes * ipc, C, S, S] in 0..1."""
    chosen = []
    for label, count in enumerate(data.counts()):
        members = torch.nonzero(data.train_labels == label).flatten()
        chosen.append(members[seeds.choice(count, ipc * factor**2, source)])
    return formation.pack(to_floats(data.train_images[torch.cat(chosen)]), factor, data.size)


class GradientMatching:
    """Steps of IDC: an image step that matches every class's gradient, then a network step on real images.

    Every `inner_loops` steps a fresh network takes over. Draws come from one CPU generator, whose state is part of
    `state()`. images: the condensed images, float32 [classes * ipc, C, S, S], kept in 0..1 after every step.
    """

    def __init__(
        self,
        data: ImageData,
        ipc: int,
        factor: int,
        settings: MatchingSettings,
        source: Generator,
        device: torch.device,
        precision: str,
        compiled: bool,
    ) -> None:
        self.data, self.ipc, self.factor, self.settings, self.source = data, ipc, factor, settings, source
        self.device, self.precision, self.compiled = device, precision, compiled
        devices.keep_memory(device)
        self.images = start_images(data, ipc, factor, source).to(device)
        self.velocity = torch.zeros_like(self.images)
        self.train_images, self.train_labels = data.train_images.to(device), data.train_labels.to(device)
        self.members = [torch.nonzero(data.train_labels == label).flatten() for label in range(len(data.classes))]
        self.shared = augment.Augmentation(augment.MATCHING, shared=True)
        self.per_image = augment.Augmentation(augment.NETWORK)
        self._take_network(self._new_network())
        self.matcher = GradientMatcher(self.model, settings.distance, precision=precision, compiled=compiled)

    def step(self, number: int) -> float:
        """One inner loop. Returns the distance D, averaged over the classes."""
        if number % self.settings.inner_loops == 0:
            self._take_network(self._new_network())
            for _ in range(self.settings.pretrain_epochs):
                self._train_network(len(self.train_images))
        loss, gradient = self.image_gradient()
        self._move_images(gradient)
        self._train_network(self.settings.network_images)
        return loss

    def image_gradient(self) -> tuple[float, Tensor]:
        """The mean over classes of the distance D, and the gradient of each class's D with respect to its images."""
        gradient = torch.zeros_like(self.images)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for label in range(len(self.members)):
            chosen = self._synthetic_batch(label)
            images = self.images[chosen].requires_grad_()
            draw = self.shared.draw(1, self.data.size, self.source)
            real = self.shared.apply(self._real_batch(label), draw)
            synthetic = self.shared.apply(self._normalise(formation.form(images, self.factor)), draw)
            distance = self.matcher.match(self.model, real, synthetic, label)
            gradient[chosen] = torch.autograd.grad(distance, images)[0]
            total += distance.detach()
        if not torch.isfinite(gradient).all():
            return math.nan, gradient  # the loop stops at it, and keeps the last good checkpoint
        return total.item() / len(self.members), gradient

    def _move_images(self, gradient: Tensor) -> None:
        """Momentum SGD for all classes at once; the published code steps after each class (design §5, image step)."""
        self.velocity = self.settings.image_momentum * self.velocity + gradient
        self.images = (self.images - self.settings.image_lr * self.velocity).clamp(0, 1)

    def _synthetic_batch(self, label: int) -> Tensor:
        """Indices of the condensed images of a class that take part: all, or as many as make `synthetic_batch` formed images."""
        most = max(1, self.settings.synthetic_batch // self.factor**2)
        chosen = torch.arange(self.ipc) if self.ipc <= most else seeds.choice(self.ipc, most, self.source)
        return (chosen + label * self.ipc).to(self.device)

    def _real_batch(self, label: int) -> Tensor:
        members = self.members[label]
        chosen = members[seeds.choice(len(members), self.settings.real_batch, self.source)]
        return self._normalise(to_floats(self.train_images[chosen.to(self.device)]))

    def _normalise(self, images: Tensor) -> Tensor:
        return normalise(images, self.data.mean, self.data.std)

    def _new_network(self) -> torch.nn.Module:
        shape = (self.data.channels, len(self.data.classes), self.data.size)
        return models.build_seeded(seeds.draw_seed(self.source), self.settings.model, *shape, width=self.settings.width)

    def _take_network(self, model: torch.nn.Module) -> None:
        s = self.settings
        self.model = model.to(self.device)
        optimiser = train.Optimiser(s.network_lr, s.network_momentum, s.network_weight_decay)
        self.network_step = train.Step(self.model, optimiser.build(self.model), self.precision, self.compiled)

    def _train_network(self, count: int) -> None:
        """Train the network on `count` random real images, each augmented by a draw of its own, with CutMix."""
        if not count:
            return
        chosen = seeds.choice(len(self.train_images), count, self.source).to(self.device)
        images = self._normalise(to_floats(self.train_images[chosen]))
        options = {"classes": len(self.members), "augmentation": self.per_image, "batch_size": self.settings.network_batch}
        train.epoch(self.network_step, images, self.train_labels[chosen], self.source, **options)

    def state(self) -> dict[str, Tensor]:
        """Images, their velocity, the network, its momentum, and the state of the generator."""
        momenta = self.network_step.optimizer.state
        state = {"images": self.images, "velocity": self.velocity, "generator": self.source.get_state()}
        for name, parameter in self.model.named_parameters():
            state[f"network.{name}"] = parameter
            if parameter in momenta:
                state[f"momentum.{name}"] = momenta[parameter]["momentum_buffer"]
        return state

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go back to what `state` gave."""
        self.images = state["images"].to(self.device)
        self.velocity = state["velocity"].to(self.device)
        self.source.set_state(state["generator"])
        self.model.load_state_dict({k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")})
        for name, parameter in self.model.named_parameters():
            if f"momentum.{name}" in state:
                buffer = state[f"momentum.{name}"].to(self.device)
                self.network_step.optimizer.state[parameter]["momentum_buffer"] = buffer


def real_set(data: ImageData, ipc: int, factor: int, seed: int) -> CondensedSet:
    """The uncondensed start that `condense` takes under the same seed: packed random real images.

    Raises ValueError where a class has fewer than ipc * factor² images.
    """
    data.require_per_class(f"ipc={ipc} with factor={factor}", ipc * factor**2)
    images = start_images(data, ipc, factor, seeds.generator(seed))
    return condensed_from(images, data, ipc, factor, "real", {"dataset": data.name, "seed": seed})


def condensed_from(images: Tensor, data: ImageData, ipc: int, factor: int, method: str, info: Mapping[str, object]) -> CondensedSet:
    """Images of `data`'s classes, class after class, as a CondensedSet."""
    labels = torch.arange(len(data.classes)).repeat_interleave(ipc)
    return CondensedSet(images.detach().cpu(), labels, factor, data.classes, data.mean, data.std, method, info)
