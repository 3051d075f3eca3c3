"""The network of an NCFM step: one architecture, whose weights change with every step."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call

from yoco.utils import device as devices
from yoco.utils.foreign import Features


class Network:
    """Features and logits of networks of one architecture, whose weights are one flat vector [P].

    The vector is in named_parameters order.

    Args:
        skeleton: a network of that architecture; its own weights are not read.
        precision: "float32", or "bfloat16" for the convolutions.
        compiled: use torch.compile.
        head: name of the layer that turns features into logits.

    Attributes:
        width: dimensions D of the features.
    """

    def __init__(self, skeleton: Any, precision: str, compiled: bool, head: str = "head") -> None:
        self.skeleton, self.precision, self.head = skeleton.requires_grad_(False), precision, head
        self.features_of_skeleton = Features(skeleton, head)
        # torch.compile cannot include a hook
        self.compiled = compiled and not self.features_of_skeleton.hooked
        self.shapes = {name: parameter.shape for name, parameter in skeleton.named_parameters()}
        self.width = skeleton.get_submodule(head).in_features
        self._features = devices.compiled(self._features_of) if self.compiled else self._features_of

    def features(
        self,
        weights: Float[Tensor, "parameters"],
        images: Float[Tensor, "images channels size size"],
    ) -> Float[Tensor, "images features"]:
        """Return the features of normalised images, differentiable in the images."""
        images = images.contiguous(memory_format=torch.channels_last) if self.compiled else images
        return self._features(self._named(weights), images)

    def logits(
        self,
        weights: Float[Tensor, "parameters"],
        images: Float[Tensor, "images channels size size"],
    ) -> Float[Tensor, "images classes"]:
        """Return the logits of normalised images, float32."""
        named = self._named(weights)
        return F.linear(
            self.features(weights, images).float(),
            named[f"{self.head}.weight"],
            named.get(f"{self.head}.bias"),
        )

    def _named(self, weights: Tensor) -> dict[str, Tensor]:
        parts = weights.split([shape.numel() for shape in self.shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts)}

    def _features_of(self, named: dict[str, Tensor], images: Tensor) -> Tensor:
        parameters = {f"network.{name}": values for name, values in named.items()}
        with devices.autocast(images.device, self.precision):
            return functional_call(self.features_of_skeleton, parameters, (images,))
