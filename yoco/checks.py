"""Checks of arguments at the public edge: each error names the argument, what came and what is allowed."""

from collections.abc import Iterable
from difflib import get_close_matches

import torch
from torch import Tensor


def one_of(name: str, value: object, allowed: Iterable[str]) -> str:
    """`value` if it is one of `allowed`, else a ValueError that lists them and suggests the nearest."""
    allowed = list(allowed)
    if value in allowed:
        return value
    near = get_close_matches(str(value), allowed, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise ValueError(f"{name}={value!r} is unknown{hint}; allowed: {', '.join(allowed)}")


def whole(name: str, value: object, low: int, high: int | None = None) -> int:
    """`value` as an int in low..high; TypeError for another type, ValueError out of range."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be a whole number, got {value!r} of type {type(value).__name__}")
    value = value.__index__()
    if value < low or (high is not None and value > high):
        allowed = f"at least {low}" if high is None else f"between {low} and {high}"
        raise ValueError(f"{name} must be {allowed}, got {value}")
    return value


def real(name: str, value: object, low: float, high: float = float("inf")) -> float:
    """`value` as a finite float in low..high; TypeError for another type, ValueError out of range."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r} of type {type(value).__name__}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be between {low} and {high}, got {value}")
    return float(value)


def finite(name: str, values: Tensor) -> Tensor:
    """`values` if none of them is NaN or infinite, else a ValueError that counts the bad ones."""
    bad = (~torch.isfinite(values)).sum().item()
    if bad:
        raise ValueError(f"{name} holds {bad} NaN or infinite values out of {values.numel()}")
    return values


def images(name: str, values: Tensor) -> Tensor:
    """`values` if it is a square image batch [N, C, S, S], uint8 or floating point in 0..1."""
    if not isinstance(values, Tensor):
        raise TypeError(f"{name} must be a tensor [N, C, H, W], got {type(values).__name__}")
    if values.ndim != 4 or values.shape[2] != values.shape[3] or 0 in values.shape:
        raise ValueError(f"{name} must be square images [N, C, S, S], none of them 0, got {list(values.shape)}")
    if values.dtype == torch.uint8:
        return values
    if not values.is_floating_point():
        raise TypeError(f"{name} must be uint8, or floating point in 0..1, got {values.dtype}")
    finite(name, values)
    low, high = values.min().item(), values.max().item()
    if low < 0 or high > 1:
        raise ValueError(f"{name} must lie in 0..1, got {low:.3g}..{high:.3g}")
    return values


def labels(name: str, values: Tensor, count: int, classes: int) -> Tensor:
    """`values` if it is int64 [count] with every label in 0..classes-1."""
    if not isinstance(values, Tensor) or values.dtype != torch.int64:
        raise TypeError(f"{name} must be an int64 tensor, got {getattr(values, 'dtype', type(values).__name__)}")
    if list(values.shape) != [count]:
        raise ValueError(f"{name} must have shape [{count}], one label an image, got {list(values.shape)}")
    if count and (values.min() < 0 or values.max() >= classes):
        raise ValueError(f"{name} must lie in 0..{classes - 1}, got {values.min()}..{values.max()}")
    return values
