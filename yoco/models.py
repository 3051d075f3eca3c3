"""Networks by name, or the user's own (docs/extend.md): found, checked and built."""

import functools
import re
from collections.abc import Callable
from typing import Any

from torch import nn

from yoco.architectures import ConvNet, DenseNet, ResNet10, ResNetAP
from yoco.utils import checks, foreign, importable, seeds
from yoco.utils.foreign import Factory

MODELS: dict[str, Callable[..., nn.Module]] = {
    "convnet": ConvNet,
    "resnet10ap": ResNetAP,
    "resnet10": ResNet10,
    "densenet": DenseNet,
}
# its depth and width in its name
_SHAPED = re.compile(
    r"(?P<name>convnet|resnet10ap|resnet10)(-d(?P<depth>[1-9]\d*))?(-w(?P<width>[1-9]\d*))?"
)
# what condensing takes: no batch norm, whose running statistics its checkpoints do not hold
MATCHABLE = ("convnet", "resnet10ap")
SLOW_TO_COMPILE = ("densenet",)  # minutes for each of its graphs on a CPU
# names that have had another network; what is trained says which, so that the two never mix
LAYOUTS = {"resnet10ap": 2}
TORCHVISION = "torchvision:"  # before a name of `torchvision.models`
FORMS = (
    "'package.module:factory', 'torchvision:NAME', or a factory (channels, classes, size) -> "
    "nn.Module"
)


class Carried(str):
    """The text of a factory that other processes cannot import (a lambda, or one that a notebook
    defines), which travels with it.
    """

    factory: Factory


def named(model: str | Factory) -> str:
    """The text that a network has in settings, files and other processes: its name, or the path of
    its factory.

    Raises:
        TypeError: if it is neither a text nor a factory.
        ValueError: if there is no such network; the message suggests the nearest name.
    """
    if not isinstance(model, str):
        if isinstance(model, nn.Module) or not callable(model):
            raise TypeError(
                f"model must be a name ({', '.join(MODELS)}), {FORMS}, got {checks.shown(model)}"
            )
        path, found = importable.path_of(model)
        if not found:
            carried = Carried(path)
            carried.factory, path = model, carried
        model = path
    factory(model)
    return model


def own(name: str) -> bool:
    """Whether a network is not the package's."""
    return ":" in name


def factory(name: str) -> Factory:
    """What builds the network of a name from (channels, classes, size).

    Args:
        name: a key of `MODELS`; a ConvNet with its depth or width, as "convnet-d5-w64"; a ResNet10
            or ResNet10-AP with the width of its first stage, as "resnet10-w32"; "torchvision:NAME";
            "package.module:factory"; or a text of `named`.

    Raises:
        ValueError: if there is no such network; the message suggests the nearest name.
    """
    shaped = _SHAPED.fullmatch(checks.instance("model", name, str))
    if shaped and (shaped["name"] == "convnet" or not shaped["depth"]):
        options = {option: int(shaped[option]) for option in ("depth", "width") if shaped[option]}
        return functools.partial(MODELS[shaped["name"]], **options)
    if isinstance(name, Carried):
        return name.factory
    if not own(name):
        return MODELS[checks.one_of("model", name, MODELS)]
    if name.startswith(TORCHVISION):
        return _torchvision(name.removeprefix(TORCHVISION))
    found = importable.find("model", name)
    if not callable(found) or isinstance(found, nn.Module):
        raise TypeError(
            f"model={name!r} must be a factory (channels, classes, size) -> nn.Module, got "
            f"{checks.shown(found)}"
        )
    return found


@functools.cache
def _torchvision(name: str) -> Factory:
    """A network of torchvision's, with random weights; it takes images of 3 channels."""
    from torchvision import models

    checks.one_of("model=torchvision:NAME, NAME", name, models.list_models(module=models))
    return lambda channels, classes, size: models.get_model(name, weights=None, num_classes=classes)


def shape_of(data: Any) -> tuple[int, int, int]:
    """Channels, classes and size of an `ImageData` or `CondensedSet`: what a factory is given."""
    return data.channels, len(data.classes), data.size


def check_takes(name: str, *shape: int) -> None:
    """Raise ValueError or TypeError if an own network does not take images of this shape (see
    `shape_of`), or gives no logits for them.
    """
    if own(name):
        foreign.examined(name, factory(name), *shape)


def layout(name: str, *shape: int) -> dict[str, int | str]:
    """What tells a network from others of its name: the number of its layout, if it is not the
    first that the name has had, or of an own network a digest of its weights' shapes; else nothing.
    shape: as of `shape_of`.
    """
    if own(name):
        return {"weights": foreign.examined(name, factory(name), *shape).weights}
    number = LAYOUTS.get(name.split("-")[0])
    return {} if number is None else {"layout": number}


def check_matchable(model: str | Factory) -> str:
    """The text of a network (see `named`) if condensing can take it, as far as that shows without
    its shape; else raises ValueError.
    """
    name = named(model)
    if not own(name) and name.split("-")[0] not in MATCHABLE:
        raise ValueError(
            f"model={name!r} has batch norm, which condensing cannot take; allowed: "
            f"{', '.join(MATCHABLE)}"
        )
    return name


def build_matchable(seed: int, name: str, *shape: int, width: int | None = None) -> nn.Module:
    """As `build_seeded`, a network that condensing takes.

    Raises ValueError if an own one has batch norm, or does not take this shape.
    """
    norm = foreign.examined(name, factory(name), *shape).batch_norm if own(name) else None
    if norm is not None:
        told = (
            f"model={name!r} has batch norm ({norm}), which condensing cannot take: its "
            "checkpoints hold no running statistics"
        )
        raise ValueError(f"{told}; use group or instance norm, or track_running_stats=False")
    return build_seeded(seed, name, *shape, width=width)


def head_of(name: str, *shape: int) -> str:
    """The layer, by name, that makes logits of a network's features: "head", or the last linear
    layer of an own network.

    Raises ValueError if there is no such layer, or more follows it. shape: as of `shape_of`.
    """
    head = foreign.examined(name, factory(name), *shape).head if own(name) else "head"
    if head is None:
        raise ValueError(
            f"model={name!r} must end in a linear layer, whose input [N, D] is its features: what "
            "is asked for needs them"
        )
    return head


def build(
    name: str, channels: int, classes: int, size: int, *, width: int | None = None
) -> nn.Module:
    """A network by name (see `factory`), its weights drawn from torch's global generator.

    width: channels of the ConvNet's layers (None: the paper's 128). Raises ValueError at an unknown
    name, a size below the network's least, a count below 1, or a width for a network that has none
    to set; TypeError at what is no whole number.
    """
    if width is None:
        return factory(name)(channels, classes, size)
    if name.split("-")[0] != "convnet" or "-w" in name:
        raise ValueError(
            f"width={width} can be set for a ConvNet whose name has none, got model={name!r}"
        )
    convnet: Callable[..., nn.Module] = factory(name)
    return convnet(channels, classes, size, width=width)


def build_seeded(
    seed: int, name: str, channels: int, classes: int, size: int, *, width: int | None = None
) -> nn.Module:
    """As `build`, with the weights that `seed` gives, whatever ran before; torch's global generator
    stays as it was.
    """
    with seeds.torch_seeded(seed):
        return build(name, channels, classes, size, width=width)
