"""Checks of arguments at the public edge: each error names the argument, what came and what is
allowed.
"""

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # what torch computes in
MOST_SEED = 2**32 - 1  # numpy and scikit-learn take no larger one
LEAST_STD = 1e-9
Kind = TypeVar("Kind")


def shown(value: object) -> str:
    """`value` as an error message shows it: its repr, cut to 200 characters, and its type."""
    try:
        text = repr(value)
    except Exception:  # an int of more than 4,300 digits has none
        text = "one that cannot be printed"
    return f"{text if len(text) <= 200 else text[:200] + '…'} of type {type(value).__name__}"


def printable(text: str) -> str:
    """`text` with control characters and others that cannot be shown escaped, so that it changes no
    terminal and no line.
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def one_of(name: str, value: object, allowed: Iterable[str]) -> str:
    """`value` if it is one of `allowed`, else an error that lists them: TypeError if it is no
    string, else ValueError, which suggests the nearest.
    """
    allowed = list(allowed)
    if not isinstance(value, str):
        raise TypeError(
            f"{name} must be a string, got {shown(value)}; allowed: {', '.join(allowed)}"
        )
    if value in allowed:
        return value
    near = get_close_matches(value[:200], allowed, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise ValueError(f"{name}={value[:200]!r} is unknown{hint}; allowed: {', '.join(allowed)}")


def whole(name: str, value: object, low: int, high: int | None = None) -> int:
    """`value` as an int in low..high; TypeError for another type, ValueError out of range. numpy's
    integers are whole numbers.
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
    """`value` as a finite float in low..high; TypeError for another type, ValueError out of range,
    at NaN and at infinity.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {shown(value)}")
    try:
        number = float(value)
    except OverflowError:  # a whole number, larger than any float
        number = math.inf
    if not (low <= number <= high and math.isfinite(number)):
        allowed = f"finite and at least {low}" if high == math.inf else f"between {low} and {high}"
        raise ValueError(f"{name} must be {allowed}, got {number}")
    return number


def plain(value: object) -> object:
    """A numpy number as Python's own, which JSON can hold; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def flag(name: str, value: object) -> bool:
    """`value` if it is True or False, else a TypeError: "no" and 0 are neither."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
    return value


def seed(name: str, value: object) -> int:
    """`value` as an int in 0..2**32-1. Raises as `whole`."""
    return whole(name, value, 0, MOST_SEED)


def instance(name: str, value: object, kind: type[Kind]) -> Kind:
    """`value` if it is of the class `kind`, else a TypeError."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be of type {kind.__name__}, got {shown(value)}")
    return value


def path(name: str, value: object) -> Path:
    """`value` as a path, ~ filled in; TypeError for another type, ValueError at a null character,
    or a home that is not known.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} must be a path, got {shown(value)}")
    if "\0" in os.fsdecode(value):
        raise ValueError(f"{name} must be a path, got {shown(value)}, which holds a null character")
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{name}={str(value)!r} starts in a home that is not known: {error}"
        ) from error


def sequence(name: str, values: object) -> list[Any]:
    """`values` as a list of at least one; TypeError if it is no sequence (text is none), ValueError
    if it is empty.
    """
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a sequence, got {shown(values)}")
    listed = list(values)
    if not listed:
        raise ValueError(f"{name} must hold at least one, got none")
    return listed


def different(name: str, values: Sequence[Any]) -> Sequence[Any]:
    """`values` if none of them stands there twice, else a ValueError that names one."""
    if twice := [value for value, times in Counter(values).items() if times > 1]:
        raise ValueError(f"{name} must all differ, got {twice[0]!r} more than once")
    return values


def class_names(name: str, values: object) -> tuple[str, ...]:
    """`values` as a tuple of at least two different strings. Raises TypeError or ValueError."""
    names = tuple(sequence(name, values))
    if strange := [value for value in names if not isinstance(value, str)]:
        raise TypeError(f"{name} must be strings, got {shown(strange[0])}")
    if len(names) < 2:
        raise ValueError(f"{name}: at least 2 classes are needed, got {len(names)}")
    return tuple(different(name, names))


def per_channel(name: str, values: object, channels: int, low: float) -> tuple[float, ...]:
    """`values` as a tuple of floats in low..1, one a channel. Raises TypeError or ValueError."""
    listed = sequence(name, values)
    if len(listed) != channels:
        raise ValueError(f"{name} must hold {channels} values, one a channel, got {len(listed)}")
    return tuple(real(f"{name}[{number}]", value, low, 1) for number, value in enumerate(listed))


def statistics(mean: object, std: object, channels: int) -> dict[str, tuple[float, ...]]:
    """Mean (0..1) and std (above 0, at most 1) as tuples of floats, one a channel, by name.

    Raises TypeError or ValueError.
    """
    return {
        "mean": per_channel("mean", mean, channels, 0),
        "std": per_channel("std", std, channels, LEAST_STD),
    }


def tensor(name: str, values: object, what: str) -> Tensor:
    """`values` if it is a dense tensor that holds numbers; TypeError if it is no tensor, ValueError
    if sparse or "meta".
    """
    if not isinstance(values, Tensor):
        raise TypeError(f"{name} must be a tensor {what}, got {type(values).__name__}")
    if values.device.type == "meta" or values.layout != torch.strided:
        raise ValueError(
            f"{name} must be dense, on a device that holds its values, got {values.layout} on "
            f"{values.device}"
        )
    return values


def floats(name: str, values: object, *dimensions: str) -> Tensor:
    """`values` if it is a floating point tensor with these dimensions ("E", "N", "K"), none of them
    0. Its values are not read.
    """
    what = f"[{', '.join(dimensions)}]"
    found = tensor(name, values, what)
    if found.dtype not in FLOATS:
        raise TypeError(f"{name} must be floating point, got {found.dtype}")
    if found.ndim != len(dimensions) or 0 in found.shape:
        raise ValueError(f"{name} must have shape {what}, none of them 0, got {list(found.shape)}")
    return found


def wide(values: Tensor) -> Tensor:
    """Half precision as float32, which torch computes all in and sums do not overflow; other floats
    as they are.
    """
    return values.float() if values.dtype.itemsize < 4 else values


def finite(name: str, values: Tensor) -> Tensor:
    """`values` if none of them is NaN or infinite, else a ValueError that counts the bad ones."""
    bad = (~torch.isfinite(values)).sum().item()
    if bad:
        raise ValueError(f"{name} holds {bad} NaN or infinite values out of {values.numel()}")
    return values


def square(name: str, values: object) -> Tensor:
    """`values` if it is a batch of square images [N, C, S, S], none of them 0, of any type.

    Its values are not read.
    """
    found = tensor(name, values, "[N, C, S, S]")
    shape = found.shape
    if len(shape) != 4 or shape[2] != shape[3] or 0 in shape:
        raise ValueError(
            f"{name} must be square images [N, C, S, S], none of them 0, got {list(shape)}"
        )
    return found


def float_images(name: str, values: object) -> Tensor:
    """`values` if it is a batch of square images [N, C, S, S] in floating point.

    Its values are not read.
    """
    return floats(name, square(name, values), "N", "C", "S", "S")


def images(name: str, values: object) -> Tensor:
    """`values` if it is a square image batch [N, C, S, S], uint8 or floating point in 0..1."""
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


def labels(name: str, values: object, count: int, classes: int | None = None) -> Tensor:
    """`values` if it is int64 [count] with every label in 0..classes-1 (None: any)."""
    if not isinstance(values, Tensor) or values.dtype != torch.int64:
        raise TypeError(
            f"{name} must be an int64 tensor, got {getattr(values, 'dtype', type(values).__name__)}"
        )
    if list(tensor(name, values, "[N]").shape) != [count]:
        raise ValueError(
            f"{name} must have shape [{count}], one label an image, got {list(values.shape)}"
        )
    if classes is not None and count and (values.min() < 0 or values.max() >= classes):
        raise ValueError(f"{name} must lie in 0..{classes - 1}, got {values.min()}..{values.max()}")
    return values


def targets(name: str, values: object, count: int, classes: int) -> Tensor:
    """`values` if they are labels (see `labels`) or soft targets: float [count, classes], rows
    non-negative with sum 1.
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
            f"{name} must be soft targets, rows non-negative with sum 1; the lowest is {low:.3g}, "
            f"a sum is off by {worst:.3g}"
        )
    return values
