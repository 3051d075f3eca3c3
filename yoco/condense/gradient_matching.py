"""Gradient matching: the distance, per class, between the gradients of two batches (design §5).

One batch is real, the other synthetic; the gradients are those of a network's weights.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from yoco import architectures
from yoco.utils import checks, device
from yoco.utils.gradients import gradients

Gradients = tuple[Float[Tensor, "..."], ...]
EPSILON = 1e-6  # in the denominator of the cosine


def squared_l2(real: Gradients, synthetic: Gradients) -> Float[Tensor, ""]:
    """Squared differences, summed over all weights (CIFAR)."""
    return sum(((r - s) ** 2).sum() for r, s in zip(real, synthetic))  # type: ignore[return-value]  # there is at least one


def l1(real: Gradients, synthetic: Gradients) -> Float[Tensor, ""]:
    """Absolute differences, summed over all weights (ImageNet)."""
    return sum((r - s).abs().sum() for r, s in zip(real, synthetic))  # type: ignore[return-value]  # there is at least one


def row_cosine(real: Gradients, synthetic: Gradients) -> Float[Tensor, ""]:
    """1 - cosine of each output row, summed over rows and layers (DSA).

    A row holds the weights that lead to one channel or logit. The published code adds `EPSILON` to
    the product of the norms, so that rows of tiny gradients count as far apart.
    """
    rows = ((r.flatten(1), s.flatten(1)) for r, s in zip(real, synthetic))
    return sum(
        (1 - (r * s).sum(1) / (r.norm(dim=1) * s.norm(dim=1) + EPSILON)).sum() for r, s in rows
    )


DISTANCES: dict[str, Callable[[Gradients, Gradients], Tensor]] = {
    "l2": squared_l2,
    "l1": l1,
    "cosine": row_cosine,
}


def convolution_weights(model: nn.Module) -> list[str]:
    """Return the names of the convolution weights; biases, norms, last layer are left out (IDC)."""
    return [name for name, parameter in model.named_parameters() if parameter.ndim == 4]


def layer_weights(model: nn.Module) -> list[str]:
    """Return the names of all layers' weights, the last layer's included (DSA).

    Biases and norms are left out.
    """
    return [name for name, parameter in model.named_parameters() if parameter.ndim >= 2]


class GradientMatcher:
    """Gradient matching for networks of one architecture, whose parameters are passed in.

    Args:
        skeleton: a network of that architecture, on the device of all others; its own weights are
            not read.
        distance: a name in `DISTANCES`.
        matched: returns the names of the parameters whose gradients are compared.
        precision: "float32", or "bfloat16" for the convolutions.
        compiled: use torch.compile. The inner gradient is inside the compiled function, since
            double backward through a compiled module is not supported.
    """

    def __init__(
        self,
        skeleton: nn.Module,
        distance: str,
        matched: Callable[[nn.Module], list[str]] = convolution_weights,
        *,
        precision: str = "float32",
        compiled: bool = False,
    ) -> None:
        self.distance = DISTANCES[checks.one_of("distance", distance, DISTANCES)]
        self.skeleton = architectures.differentiable_twice(skeleton)
        self.precision, self.compiled = precision, compiled
        self.device = next(skeleton.parameters()).device
        self.names = matched(skeleton)
        if not self.names:
            raise ValueError(
                "model must have a convolution, whose weights are matched, but has none; "
                "method='dsa' matches every layer"
            )
        self.gradients = device.compiled(self._gradients) if compiled else self._gradients
        self._matching = device.compiled(self._distance_to) if compiled else self._distance_to

    def split(self, model: nn.Module) -> tuple[Gradients, dict[str, Float[Tensor, "..."]]]:
        """Return `model`'s parameters, detached: the matched ones in order, the others by name."""
        parameters = {name: p.detach() for name, p in model.named_parameters()}
        return tuple(parameters.pop(name) for name in self.names), parameters

    def _loss(
        self, weights: Gradients, others: Mapping[str, Tensor], images: Tensor, labels: Tensor
    ) -> Tensor:
        """Return the mean cross-entropy, float32. images: normalised."""
        with device.autocast(self.device, self.precision):
            logits = functional_call(
                self.skeleton, {**others, **dict(zip(self.names, weights))}, (images,)
            )
        return F.cross_entropy(logits.float(), labels)

    def _gradients(
        self, weights: Gradients, others: Mapping[str, Tensor], images: Tensor, labels: Tensor
    ) -> Gradients:
        """Return the gradients of the loss with respect to the matched weights, float32."""
        return gradients(lambda weights: self._loss(weights, others, images, labels), weights)

    def _distance_to(
        self,
        real: Gradients,
        weights: Gradients,
        others: Mapping[str, Tensor],
        images: Tensor,
        labels: Tensor,
    ) -> Tensor:
        return self.distance(real, self._gradients(weights, others, images, labels))

    def match(
        self,
        model: nn.Module,
        real: Float[Tensor, "images channels size size"],
        synthetic: Float[Tensor, "others channels size size"],
        label: int,
    ) -> Float[Tensor, ""]:
        """Return the distance D between the gradients of two batches of one class, a scalar >= 0.

        It is differentiable in `synthetic`. real [n, C, S, S] and synthetic [m, C, S, S] are
        normalised and augmented.
        """
        weights, others = self.split(model)
        if self.compiled:
            real, synthetic = (
                images.contiguous(memory_format=torch.channels_last) for images in (real, synthetic)
            )
        with torch.no_grad():
            target = self.gradients(
                weights, others, real, real.new_full((len(real),), label, dtype=torch.long)
            )
        labels = synthetic.new_full((len(synthetic),), label, dtype=torch.long)
        return self._matching(target, weights, others, synthetic, labels)

    def match_together(
        self,
        model: nn.Module,
        real: Float[Tensor, "classes images channels size size"],
        synthetic: Float[Tensor, "classes others channels size size"],
        labels: Int[Tensor, "classes"],
    ) -> Float[Tensor, "classes"]:
        """Return the distances D of several classes, each as `match` gives it up to rounding.

        The kernels of one class serve all of them, which spares a GPU the launches. It is never
        compiled.
        """
        weights, others = self.split(model)
        each = torch.vmap(torch.func.grad(self._loss), (None, None, 0, 0))

        def gradients_on(images: Tensor) -> Gradients:
            return each(weights, others, images, labels.view(-1, 1).expand(images.shape[:2]))

        with torch.no_grad():
            target = gradients_on(real)
        return torch.vmap(self.distance)(target, gradients_on(synthetic))
