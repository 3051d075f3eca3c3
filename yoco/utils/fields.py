"""Fields of frozen dataclasses that say in their type what they allow: `epochs: Count = 1000`."""

import dataclasses
from collections.abc import Callable, Iterable
from functools import partial
from typing import Annotated, get_args

from yoco.utils import checks

Count = Annotated[int, partial(checks.whole, low=1)]
Whole = Annotated[int, partial(checks.whole, low=0)]
Seed = Annotated[int, checks.seed]
Rate = Annotated[float, partial(checks.real, low=0)]
Share = Annotated[float, partial(checks.real, low=0, high=1)]
Flag = Annotated[bool, checks.flag]


def among(allowed: Iterable[str]) -> Callable[[str, object], str]:
    """Return the check for one of these names: `Annotated[str, among(KINDS)]`."""
    return partial(checks.one_of, allowed=allowed)


def check(owner: object) -> None:
    """Check the fields of a dataclass, in order, and store what the checks return.

    The check of a type is called with the field's name and value. In a type such as
    `Count | None`, None passes. Types without a check, and types given as text, allow everything.
    """
    for field in dataclasses.fields(owner):  # type: ignore[arg-type]  # it is a dataclass
        value, parts = getattr(owner, field.name), (field.type, *get_args(field.type))
        if value is None and type(None) in parts:
            continue
        for test in (test for part in parts for test in getattr(part, "__metadata__", ())):
            object.__setattr__(owner, field.name, test(field.name, value))
