"""Functions of higher layers that a lower one calls; the package's root, above both, adds them."""

from collections.abc import Callable
from typing import Any

FUNCTIONS: dict[str, Callable[..., Any]] = {}  # by name
