"""Fields whose types say what they allow."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pytest

from yoco.utils import fields


@dataclass(frozen=True)
class Toy:
    """A dataclass with a field of each kind."""

    count: fields.Count = 1
    width: fields.Count | None = None
    share: fields.Share = 0.5
    kind: Annotated[str, fields.among(("a", "b"))] = "a"
    free: object = None

    def __post_init__(self) -> None:
        fields.check(self)


def test_values_within_their_types_are_kept():
    toy = Toy(np.int64(3), width=2, kind="b", free="anything")
    assert type(toy.count) is int and (toy.count, toy.width, toy.kind) == (3, 2, "b")


@pytest.mark.parametrize(
    "given, named",
    [
        ({"count": 0}, "count must be at least 1"),
        ({"count": None}, "count must be a whole number"),
        ({"width": -1}, "width must be at least 1"),
        ({"share": 1.5}, "share must be between 0 and 1"),
        ({"kind": "c"}, "kind='c' is unknown"),
    ],
)
def test_other_values_are_named(given, named):
    with pytest.raises((TypeError, ValueError), match=named):
        Toy(**given)
