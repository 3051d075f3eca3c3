"""Inspects a network that the package does not know by building it and showing it two images."""

import functools
import hashlib
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from yoco.utils import checks, seeds

Factory = Callable[[int, int, int], nn.Module]
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class Examined(NamedTuple):
    """What the inspection found.

    Attributes:
        weights: digest of the names and shapes of the weights, and of the layers.
        head: name of the last linear layer, if its output is the network's output.
        batch_norm: name of a batch norm layer with running statistics, if there is one.
    """

    weights: str
    head: str | None
    batch_norm: str | None


@functools.lru_cache(maxsize=64)
def examined(name: str, factory: Factory, channels: int, classes: int, size: int) -> Examined:
    """Build a network and show it two images in training mode.

    torch's global generator is left unchanged.

    Args:
        name: name of the network, for errors.
        factory: (channels, classes, size) -> nn.Module.
        channels, classes, size: the images are [N, channels, size, size], the logits [N, classes].

    Raises:
        ValueError: if the network cannot be built or does not accept such images.
        TypeError: if the factory does not return a network, or the network such logits.
    """
    told = f"{channels}x{size}x{size} images of {classes} classes"
    with seeds.torch_seeded(0):
        network = _tried(
            f"model={name!r} cannot be built for {told}", lambda: factory(channels, classes, size)
        )
        if not isinstance(network, nn.Module):
            raise TypeError(f"model={name!r} must return an nn.Module, got {checks.shown(network)}")
        if not any(parameter.requires_grad for parameter in network.parameters()):
            raise ValueError(f"model={name!r} has no weights to train")
        seen: list[tuple[str, Tensor]] = []  # linear layers and their inputs, as they are called
        for layer, module in network.named_modules():
            if isinstance(module, nn.Linear):
                module.register_forward_pre_hook(
                    lambda _, inputs, layer=layer: seen.append((layer, inputs[0]))
                )
        images = torch.rand(2, channels, size, size)
        logits = _tried(f"model={name!r} does not take {told}", lambda: network(images))
    if not isinstance(logits, Tensor) or logits.shape != (2, classes):
        got = f"shape {list(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise TypeError(
            f"model={name!r} must return logits of shape [N, {classes}], got {got} for two images"
        )
    shapes = [(key, list(tensor.shape)) for key, tensor in network.state_dict().items()]
    norms = [
        key
        for key, module in network.named_modules()
        if isinstance(module, BATCH_NORMS) and module.running_mean is not None
    ]
    return Examined(
        hashlib.sha256(repr((shapes, str(network))).encode()).hexdigest()[:16],
        _head(network, seen, logits),
        next(iter(norms), None),
    )


def _tried(told: str, function: Callable[[], Any]) -> Any:
    try:
        return function()
    except Exception as error:  # whatever the user's code raises
        raise ValueError(f"{told}: {type(error).__name__}: {error}") from error


def _head(network: nn.Module, seen: list[tuple[str, Tensor]], logits: Tensor) -> str | None:
    """Return the last linear layer called, if its input is [N, D] and its output the network's."""
    layer, features = seen[-1] if seen else ("", logits)
    if not seen or features.ndim != 2:
        return None
    again = network.get_submodule(layer)(features)
    return (
        layer if again.shape == logits.shape and torch.allclose(again, logits, atol=1e-5) else None
    )


class Features(nn.Module):
    """A network's features as a module.

    They are what the network's method `features` returns, or else the input of its layer `head`.
    """

    def __init__(self, network: nn.Module, head: str) -> None:
        super().__init__()
        self.network, self.head = network, head
        # torchvision networks have submodules of that name
        self.hooked = not inspect.ismethod(getattr(network, "features", None))

    def forward(
        self, images: Float[Tensor, "images channels size size"]
    ) -> Float[Tensor, "images features"]:
        if not self.hooked:
            features: Any = self.network.features
            return features(images)
        taken: list[Tensor] = []
        handle = self.network.get_submodule(self.head).register_forward_pre_hook(
            lambda _, inputs: taken.append(inputs[0])
        )
        try:
            self.network(images)
        finally:
            handle.remove()
        return taken[-1]
