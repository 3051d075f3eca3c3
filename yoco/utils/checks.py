"""Argument checks at the public edge.

Each error names the argument, what came and what is allowed.
"""

import math
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # torch computes in these
MOST_SEED = 2**32 - 1  # the largest that NumPy and scikit-learn accept
LEAST_STD = 1e-9
Kind = TypeVar("Kind")


def shown(value: object) -> str:
    """Return `value` for an error message: its repr, at most 200 characters of it, and its type."""
    try:
        text = repr(value)
    except Exception:  # an int of more than 4,300 digits has no repr
        text = "a value that cannot be printed"
    return f"{text if len(text) <= 200 else text[:200] + '…'} of type {type(value).__name__}"


def printable(text: str) -> str:
    """Return `text` with unprintable characters escaped, so that it cannot upset a terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def one_of(name: str, value: object, allowed: Iterable[str]) -> str:
    """Return `value` if it is one of `allowed`.

    Raises:
        TypeError: if it is not a string.
        ValueError: if it is another string; the message lists `allowed` and suggests the nearest.
    """
    allowed = list(allowed)
    if not isinstance(value, str):
        raise TypeError(
            f"{name} must be a string, got {shown(value)}; allowed: {', '.join(allowed)}"
        )
    if value in allowed:
        return value
    hint = _nearest(value, allowed)
    raise ValueError(f"{name}={value[:200]!r} is unknown{hint}; allowed: {', '.join(allowed)}")


def options(what: str, given: Mapping[str, Any], known: Collection[str]) -> Mapping[str, Any]:
    """Return the options given to `what` if all names are known.

    Raises TypeError otherwise; the message lists the known names and suggests the nearest.
    """
    for name in given:
        if name not in known:
            raise TypeError(
                f"option {name!r} is unknown to {what}{_nearest(name, known)}; allowed: "
                f"{', '.join(known) or 'none'}"
            )
    return given


def _nearest(value: str, allowed: Iterable[str]) -> str:
    """Suggest the nearest of some names, if one is near."""
    spelt = {name.lower(): name for name in allowed}
    near = get_close_matches(value[:200].lower(), spelt, n=1)
    return f" (did you mean {spelt[near[0]]!r}?)" if near else ""


def whole(name: str, value: object, low: int, high: int | None = None) -> int:
    """Return `value` as an int in low..high. NumPy integers are accepted, bools are not.

    Raises:
        TypeError: if it is not a whole number.
        ValueError: if it is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, got {shown(value)}")
    value = int(value)
    if value < low or (high is not None and value > high):
        allowed = f"at least {low}" if high is None else f"between {low} and {high}"
        raise ValueError(
            f"{name} must be {allowed}, got {shown(value).removesuffix(' of type int')}"
        )
    return value


def real(name: str, value: object, low: float, high: float = math.inf) -> float:
    """Return `value` as a finite float in low..high.

    Raises:
        TypeError: if it is not a number.
        ValueError: if it is out of range, NaN or infinite.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {shown(value)}")
    try:
        number = float(value)
    except OverflowError:  # an int larger than any float
        number = math.inf
    if not (low <= number <= high and math.isfinite(number)):
        allowed = f"finite and at least {low}" if high == math.inf else f"between {low} and {high}"
        raise ValueError(f"{name} must be {allowed}, got {number}")
    return number


def plain(value: object) -> object:
    """Return a NumPy scalar as a Python number, for JSON; anything else unchanged."""
    return value.item() if isinstance(value, np.generic) else value


def flag(name: str, value: object) -> bool:
    """Return `value` if it is True or False; anything else, "no" and 0 included, is a TypeError."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
    return value


def seed(name: str, value: object) -> int:
    """Return `value` as an int in 0..2**32-1. Raises the errors of `whole`."""
    return whole(name, value, 0, MOST_SEED)


def instance(name: str, value: object, kind: type[Kind]) -> Kind:
    """Return `value` if it is an instance of `kind`, else raise TypeError."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be of type {kind.__name__}, got {shown(value)}")
    return value


def path(name: str, value: object) -> Path:
    """Return `value` as a path with ~ expanded.

    Raises:
        TypeError: if it is not a string or a path.
        ValueError: if it holds a null character or the home directory is unknown.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} must be a path, got {shown(value)}")
    if "\0" in os.fsdecode(value):
        raise ValueError(f"{name} must be a path, got {shown(value)}, which holds a null character")
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{name}={str(value)!r} starts in an unknown home directory: {error}"
        ) from error


def sequence(name: str, values: object) -> list[Any]:
    """Return `values` as a list with at least one element.

    Raises:
        TypeError: if it is not a sequence; strings and mappings do not count as one.
        ValueError: if it is empty.
    """
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a sequence, got {shown(values)}")
    listed = list(values)
    if not listed:
        raise ValueError(f"{name} must hold at least one value, got none")
    return listed


def different(name: str, values: Sequence[Any]) -> Sequence[Any]:
    """Return `values` if they all differ, else raise a ValueError that names a repeated one."""
    if twice := [value for value, times in Counter(values).items() if times > 1]:
        raise ValueError(f"{name} must all differ, got {twice[0]!r} more than once")
    return values


def class_names(name: str, values: object) -> tuple[str, ...]:
    """Return `values` as a tuple of at least two different strings.

    Raises TypeError or ValueError.
    """
    names = tuple(sequence(name, values))
    if strange := [value for value in names if not isinstance(value, str)]:
        raise TypeError(f"{name} must be strings, got {shown(strange[0])}")
    if len(names) < 2:
        raise ValueError(f"{name}: at least 2 classes are needed, got {len(names)}")
    return tuple(different(name, names))


def per_channel(name: str, values: object, channels: int, low: float) -> tuple[float, ...]:
    """Return `values` as a tuple of floats in low..1, one per channel.

    Raises TypeError or ValueError.
    """
    listed = sequence(name, values)
    if len(listed) != channels:
        raise ValueError(f"{name} must hold {channels} values, one per channel, got {len(listed)}")
    return tuple(real(f"{name}[{number}]", value, low, 1) for number, value in enumerate(listed))


def statistics(mean: object, std: object, channels: int) -> dict[str, tuple[float, ...]]:
    """Return mean (0..1) and std (above 0, at most 1) by name, as tuples of one float per channel.

    Raises TypeError or ValueError.
    """
    return {
        "mean": per_channel("mean", mean, channels, 0),
        "std": per_channel("std", std, channels, LEAST_STD),
    }


def tensor(name: str, values: object, what: str) -> Shaped[Tensor, "..."]:
    """Return `values` if it is a dense tensor that holds numbers.

    Raises:
        TypeError: if it is not a tensor.
        ValueError: if it is sparse, nested, quantized or on the "meta" device.
    """
    if not isinstance(values, Tensor):
        raise TypeError(f"{name} must be a tensor {what}, got {type(values).__name__}")
    if values.is_nested or values.is_quantized:
        raise ValueError(f"{name} must be a plain tensor, got a nested or quantized one")
    if values.device.type == "meta" or values.layout != torch.strided:
        raise ValueError(
            f"{name} must be dense, on a device that holds its values, got {values.layout} on "
            f"{values.device}"
        )
    return values


def floats(name: str, values: object, *dimensions: str) -> Float[Tensor, "..."]:
    """Return `values` if it is a floating point tensor with these dimensions, for example "N", "K".

    No dimension may be 0. The values are not read.
    """
    what = f"[{', '.join(dimensions)}]"
    found = tensor(name, values, what)
    if found.dtype not in FLOATS:
        raise TypeError(f"{name} must be floating point, got {found.dtype}")
    if found.ndim != len(dimensions) or 0 in found.shape:
        raise ValueError(
            f"{name} must have shape {what} with no empty dimension, got {list(found.shape)}"
        )
    return found


def wide(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return half-precision values as float32, other floats unchanged.

    torch implements every operation in float32, and sums do not overflow there.
    """
    return values.float() if values.dtype.itemsize < 4 else values


def finite(name: str, values: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """Return `values` if all are finite, else raise a ValueError that counts those that are not."""
    bad = (~torch.isfinite(values)).sum().item()
    if bad:
        raise ValueError(f"{name} holds {bad} NaN or infinite values out of {values.numel()}")
    return values


def square(name: str, values: object) -> Shaped[Tensor, "images channels size size"]:
    """Return `values` if it is a batch of square images of any dtype.

    No dimension may be 0. The values are not read.
    """
    found = tensor(name, values, "[N, C, S, S]")
    shape = found.shape
    if len(shape) != 4 or shape[2] != shape[3] or 0 in shape:
        raise ValueError(
            f"{name} must be square images [N, C, S, S] with no empty dimension, got {list(shape)}"
        )
    return found


def float_images(name: str, values: object) -> Float[Tensor, "images channels size size"]:
    """Return `values` if it is a batch of square images in floating point.

    The values are not read.
    """
    return floats(name, square(name, values), "N", "C", "S", "S")


def images(
    name: str, values: object
) -> UInt8[Tensor, "images channels size size"] | Float[Tensor, "images channels size size"]:
    """Return `values` if it is a batch of square images, uint8 or floats in 0..1."""
    found = square(name, values)
    if found.dtype == torch.uint8:
        return found
    if found.dtype not in FLOATS:
        raise TypeError(f"{name} must be uint8, or floating point in 0..1, got {found.dtype}")
    finite(name, found)
    low, high = found.min().item(), found.max().item()
    if low < 0 or high > 1:
        raise ValueError(f"{name} must lie in 0..1, got {low:.3g}..{high:.3g}")
    return found


def labels(
    name: str, values: object, count: int, classes: int | None = None
) -> Int64[Tensor, "{count}"]:
    """Return `values` if it is int64 with every label in 0..classes-1 (None: any label)."""
    if not isinstance(values, Tensor) or values.dtype != torch.int64:
        raise TypeError(
            f"{name} must be an int64 tensor, got {getattr(values, 'dtype', type(values).__name__)}"
        )
    if list(tensor(name, values, "[N]").shape) != [count]:
        raise ValueError(
            f"{name} must have shape [{count}], one label per image, got {list(values.shape)}"
        )
    if classes is not None and count and (values.min() < 0 or values.max() >= classes):
        raise ValueError(f"{name} must lie in 0..{classes - 1}, got {values.min()}..{values.max()}")
    return values


def targets(
    name: str, values: object, count: int, classes: int
) -> Int64[Tensor, "{count}"] | Float[Tensor, "{count} {classes}"]:
    """Return `values` if they are labels (see `labels`) or soft targets.

    Soft targets are non-negative, each row with sum 1.
    """
    if not isinstance(values, Tensor) or not values.is_floating_point() or values.ndim != 2:
        return labels(name, values, count, classes)
    if list(finite(name, floats(name, values, "N", "K")).shape) != [count, classes]:
        raise ValueError(
            f"{name} must have shape [{count}] or [{count}, {classes}], one row per image, got "
            f"{list(values.shape)}"
        )
    if values.min() < 0 or (values.sum(1) - 1).abs().max() > 1e-3:
        low, worst = values.min().item(), (values.sum(1) - 1).abs().max().item()
        raise ValueError(
            f"{name} must be soft targets, rows non-negative with sum 1; the lowest value is "
            f"{low:.3g}, a sum is off by {worst:.3g}"
        )
    return values
