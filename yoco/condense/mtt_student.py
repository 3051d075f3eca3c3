"""The student of trajectory matching: its unrolled steps, differentiated by hand (design §6).

The gradients come from a hand-written adjoint.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from yoco import architectures, augment
from yoco.condense.expert_training import AUGMENTATION
from yoco.parallel.distributed import ALONE, Ranks
from yoco.utils import device as devices
from yoco.utils.gradients import gradients

# indices into the formed images, all different, and their augmentation
Batch = tuple[Int[Tensor, "images"], augment.Draw]


class Student:
    """Gradients of networks of one architecture, whose parameters are one flat vector.

    The vector is in named_parameters order.

    Args:
        skeleton: a network of that architecture; its own weights are not read.
        precision: "float32", or "bfloat16" for the convolutions; gradients have the vector's dtype.
        compiled: use torch.compile, as in `gradient_matching`.
        ranks: with several, each takes its part of every batch.
    """

    def __init__(
        self,
        skeleton: nn.Module,
        precision: str = "float32",
        compiled: bool = False,
        ranks: Ranks = ALONE,
    ) -> None:
        self.skeleton = architectures.differentiable_twice(skeleton)
        self.precision = precision
        self.compiled, self.ranks = compiled, ranks
        self.shapes = {name: parameter.shape for name, parameter in skeleton.named_parameters()}
        self._gradient = devices.compiled(self._gradient_of) if compiled else self._gradient_of
        self._slope = devices.compiled(self._slope_of) if compiled else self._slope_of

    def gradient(
        self,
        theta: Float[Tensor, "parameters"],
        images: Float[Tensor, "images channels size size"],
        labels: Int[Tensor, "images"],
    ) -> Float[Tensor, "parameters"]:
        """Return the gradient [P] at `theta` [P] of the mean cross-entropy.

        images: normalised [n, C, S, S]. labels: int64 [n].
        """
        images, labels, share = self._own(images, labels)
        return self.ranks.sum(
            share * self._gradient(theta, images, labels) if share else torch.zeros_like(theta)
        )

    def slope(
        self,
        theta: Float[Tensor, "parameters"],
        direction: Float[Tensor, "parameters"],
        images: Float[Tensor, "images channels size size"],
        labels: Int[Tensor, "images"],
    ) -> Float[Tensor, ""]:
        """Return ⟨gradient, direction⟩, a scalar differentiable in `theta` and in the images.

        With several ranks, it is this rank's summand.
        """
        own, labels, share = self._own(images, labels)
        return (
            share * self._slope(theta, direction, own, labels)
            if share
            else 0 * (theta.sum() + images.sum())
        )

    def _own(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, float]:
        """Return this rank's part of a batch, laid out for the network, and its share of it."""
        own, count = images[self.ranks.rows], len(images)
        own = own.contiguous(memory_format=torch.channels_last) if self.compiled else own
        return own, labels[self.ranks.rows], len(own) / count

    def _gradient_of(self, theta: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        def loss(at: tuple[Tensor, ...]) -> Tensor:
            parts = at[0].split([shape.numel() for shape in self.shapes.values()])
            parameters = {
                name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts)
            }
            with devices.autocast(images.device, self.precision):
                logits = functional_call(self.skeleton, parameters, (images,))
            return F.cross_entropy(logits.to(theta.dtype), labels)

        return gradients(loss, (theta,))[0]

    def _slope_of(self, theta: Tensor, direction: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        return (self._gradient_of(theta, images, labels) * direction).sum()


def distance_gradients(
    student: Student,
    start: Float[Tensor, "parameters"],
    target: Float[Tensor, "parameters"],
    rate: Float[Tensor, ""],
    images: Float[Tensor, "images channels size size"],
    labels: Int[Tensor, "images"],
    batches: Sequence[Batch],
) -> tuple[Float[Tensor, ""], Float[Tensor, "images channels size size"], Float[Tensor, ""]]:
    """Return ‖θ_N − target‖² / ‖start − target‖² after N plain SGD steps, and its gradients.

    The unrolled graph is not kept, only each θ. The backward pass goes through one step at a time;
    λ is the gradient with respect to the θ after that step.

    Args:
        student: computes the networks' gradients.
        start, target: parameters [P].
        rate: learning rate of SGD, a scalar.
        images: normalised [n, C, S, S].
        labels: int64 [n].
        batches: one per step.

    Returns:
        The distance (1 if the student does not move, 0 if it reaches the target) and its exact
            gradients with respect to the images, [n, C, S, S], and the rate.
    """
    thetas = [start]
    with torch.no_grad():
        for index, draw in batches:
            seen = AUGMENTATION.apply(images[index], draw)
            thetas.append(thetas[-1] - rate * student.gradient(thetas[-1], seen, labels[index]))
    scale = (start - target).square().sum()
    gap = thetas.pop() - target
    by_theta = 2 * gap / scale  # λ
    by_images, by_rate = torch.zeros_like(images), torch.zeros_like(rate)
    for index, draw in reversed(batches):
        theta, leaf = (
            thetas.pop().detach().requires_grad_(),
            images[index].detach().requires_grad_(),
        )
        slope = student.slope(theta, by_theta, AUGMENTATION.apply(leaf, draw), labels[index])
        curvature, mixed = torch.autograd.grad(slope, (theta, leaf))
        by_images[index] -= rate * mixed
        by_rate -= slope.detach()
        by_theta = by_theta - rate * student.ranks.sum(curvature)
    return gap.square().sum() / scale, student.ranks.sum(by_images), student.ranks.sum(by_rate)
