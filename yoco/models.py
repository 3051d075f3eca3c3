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
# names that contain depth or width
_SHAPED = re.compile(
    r"(?P<name>convnet|resnet10ap|resnet10)(-d(?P<depth>[1-9]\d*))?(-w(?P<width>[1-9]\d*))?"
)
# networks for condensing: without batch norm, whose running statistics checkpoints do not hold
MATCHABLE = ("convnet", "resnet10ap")
SLOW_TO_COMPILE = ("densenet",)  # takes minutes for each of its graphs on a CPU
# names whose network has changed; what is trained stores the number, so that the two never mix
LAYOUTS = {"resnet10ap": 2}
TORCHVISION = "torchvision:"  # prefix of a name in `torchvision.models`
FORMS = (
    "'package.module:factory', 'torchvision:NAME', or a factory (channels, classes, size) -> "
    "nn.Module"
)


class Carried(str):
    """The text of a factory that other processes cannot import, together with the factory.

    Such a factory is a lambda, or defined in a notebook.
    """

    factory: Factory


def named(model: str | Factory) -> str:
    """Return a network's text in settings, files and other processes: its name or factory path.

    Raises:
        TypeError: if it is neither a string nor a factory.
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
    """Return whether a network is the user's own."""
    return ":" in name


def stackable(name: str) -> bool:
    """Return whether the weights of several such networks can be stacked and trained at once.

    They can if a network has no batch norm, whose statistics belong to a single batch, and is not
    the user's own, of which nothing is known.
    """
    return not own(name) and name.split("-")[0] in MATCHABLE


def factory(name: str) -> Factory:
    """Return the function that builds a network of this name from (channels, classes, size).

    Args:
        name: a key of `MODELS`; a ConvNet with its depth or width, for example "convnet-d5-w64"; a
            ResNet10 or ResNet10-AP with the width of its first stage, for example "resnet10-w32";
            "torchvision:NAME"; "package.module:factory"; or a text from `named`.

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
    """Return the factory of a torchvision network with random weights; it takes 3 channels."""
    from torchvision import models

    checks.one_of("model=torchvision:NAME, NAME", name, models.list_models(module=models))
    return lambda channels, classes, size: models.get_model(name, weights=None, num_classes=classes)


def shape_of(data: Any) -> tuple[int, int, int]:
    """Return channels, classes and size of an `ImageData` or `CondensedSet`, for a factory."""
    return data.channels, len(data.classes), data.size


def check_takes(name: str, *shape: int) -> None:
    """Raise ValueError or TypeError if a network of the user's own does not accept this shape.

    It must return logits for images of this shape (see `shape_of`).
    """
    if own(name):
        foreign.examined(name, factory(name), *shape)


def layout(name: str, *shape: int) -> dict[str, int | str]:
    """Return what distinguishes a network from others of its name.

    That is the number of its layout if the name stood for another network before; for a network of
    the user's own, a digest of its layers and its weights' shapes; otherwise nothing. shape: of
    `shape_of`.
    """
    if own(name):
        return {"weights": foreign.examined(name, factory(name), *shape).weights}
    number = LAYOUTS.get(name.split("-")[0])
    return {} if number is None else {"layout": number}


def check_matchable(model: str | Factory) -> str:
    """Return a network's text (see `named`) if condensing can use it, else raise ValueError.

    Only what can be told without its shape is checked.
    """
    name = named(model)
    if not own(name) and name.split("-")[0] not in MATCHABLE:
        raise ValueError(
            f"model={name!r} has batch norm, which condensing cannot use; allowed: "
            f"{', '.join(MATCHABLE)}"
        )
    return name


def build_matchable(seed: int, name: str, *shape: int, width: int | None = None) -> nn.Module:
    """As `build_seeded`, for a network that condensing can use.

    Raises ValueError if one of the user's own has batch norm or does not accept this shape.
    """
    norm = foreign.examined(name, factory(name), *shape).batch_norm if own(name) else None
    if norm is not None:
        raise ValueError(
            f"model={name!r} has batch norm ({norm}), which condensing cannot use: its checkpoints "
            "hold no running statistics; use group or instance norm, or track_running_stats=False"
        )
    return build_seeded(seed, name, *shape, width=width)


def head_of(name: str, *shape: int) -> str:
    """Return the name of the layer that turns a network's features into logits.

    It is "head", or the last linear layer of the user's own network. Raises ValueError if there is
    no such layer or more layers follow it. shape: of `shape_of`.
    """
    head = foreign.examined(name, factory(name), *shape).head if own(name) else "head"
    if head is None:
        raise ValueError(
            f"model={name!r} must end in a linear layer, whose input [N, D] holds the features "
            "that are needed here"
        )
    return head


def build(
    name: str, channels: int, classes: int, size: int, *, width: int | None = None
) -> nn.Module:
    """Return a network by name (see `factory`), with weights from torch's global generator.

    width: channels of the ConvNet's layers (None: the paper's 128).

    Raises:
        ValueError: if the name is unknown, size is too small for the network, a count is below 1,
            or width is given for a network whose width cannot be set.
        TypeError: if a value is not a whole number.
    """
    if width is None:
        return factory(name)(channels, classes, size)
    if name.split("-")[0] != "convnet" or "-w" in name:
        raise ValueError(
            f"width={width} requires a ConvNet without a width in its name, got model={name!r}"
        )
    convnet: Callable[..., nn.Module] = factory(name)
    return convnet(channels, classes, size, width=width)


def build_seeded(
    seed: int, name: str, channels: int, classes: int, size: int, *, width: int | None = None
) -> nn.Module:
    """As `build`, with weights determined by `seed`; torch's global generator is left unchanged."""
    with seeds.torch_seeded(seed):
        return build(name, channels, classes, size, width=width)
