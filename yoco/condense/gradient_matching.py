"""Gradient matching: the distance between the weight gradients of a real and of a synthetic batch,
per class (design §5).
"""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from yoco.utils import checks, device
from yoco.utils.gradients import gradients

Gradients = tuple[Tensor, ...]
EPSILON = 1e-6  # of the cosine


def squared_l2(real: Gradients, synthetic: Gradients) -> Tensor:
    """Squared differences, summed over all weights (CIFAR)."""
    return sum(((r - s) ** 2).sum() for r, s in zip(real, synthetic))  # type: ignore[return-value]  # there is at least one


def l1(real: Gradients, synthetic: Gradients) -> Tensor:
    """Absolute differences, summed over all weights (ImageNet)."""
    return sum((r - s).abs().sum() for r, s in zip(real, synthetic))  # type: ignore[return-value]  # there is at least one


def row_cosine(real: Gradients, synthetic: Gradients) -> Tensor:
    """1 - cosine of each output row (what leads to one channel, or one logit), summed over rows and
    layers (DSA).

    The published code adds `EPSILON` to the product of the norms, so that rows of tiny gradients
    count as far apart.
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
    """Names of the convolution weights: biases, norms and the last layer are left out (IDC)."""
    return [name for name, parameter in model.named_parameters() if parameter.ndim == 4]


def layer_weights(model: nn.Module) -> list[str]:
    """Names of every layer's weights, the last layer's too: biases and norms are left out (DSA)."""
    return [name for name, parameter in model.named_parameters() if parameter.ndim >= 2]


class GradientMatcher:
    """Matching gradients for networks of one architecture, whose parameters are passed in.

    skeleton: a network of that architecture (its own weights are not read). distance: a name in
    `DISTANCES`. matched: gives the names of the parameters whose gradients are compared.
    precision: "float32", or "bfloat16" for the convolutions. compiled: through torch.compile; the
    inner gradient is inside of the compiled function, since double backward through a compiled
    module is not supported.
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
        self.skeleton, self.precision, self.compiled = skeleton, precision, compiled
        self.names = matched(skeleton)
        if not self.names:
            raise ValueError(
                "model has no convolution, whose weights are matched; of another network, dsa "
                "matches every layer"
            )
        self.gradients: Callable[..., Gradients] = self._gradients
        self._matching: Callable[..., Tensor] = self._distance_to
        if compiled:
            self.gradients = device.compiled(self._gradients)
            self._matching = device.compiled(self._distance_to)

    def split(self, model: nn.Module) -> tuple[Gradients, dict[str, Tensor]]:
        """Parameters of `model`, detached: the matched ones in order, and the others by name."""
        parameters = {name: p.detach() for name, p in model.named_parameters()}
        return tuple(parameters.pop(name) for name in self.names), parameters

    def _gradients(
        self, weights: Gradients, others: Mapping[str, Tensor], images: Tensor, labels: Tensor
    ) -> Gradients:
        """Gradients of the mean cross-entropy of normalised `images` with respect to the matched
        weights, float32.
        """

        def loss(weights: Sequence[Tensor]) -> Tensor:
            with device.autocast(images.device, self.precision):
                logits = functional_call(
                    self.skeleton, {**others, **dict(zip(self.names, weights))}, (images,)
                )
            return F.cross_entropy(logits.float(), labels)

        return gradients(loss, weights)

    def _distance_to(
        self,
        real: Gradients,
        weights: Gradients,
        others: Mapping[str, Tensor],
        images: Tensor,
        labels: Tensor,
    ) -> Tensor:
        return self.distance(real, self._gradients(weights, others, images, labels))

    def match(self, model: nn.Module, real: Tensor, synthetic: Tensor, label: int) -> Tensor:
        """Distance D between the gradients of two batches of one class, differentiable in
        `synthetic`.

        real [n, C, S, S], synthetic [m, C, S, S]: normalised and augmented. Returns a scalar, at
        least 0.
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
