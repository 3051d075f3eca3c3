"""Checks of condensed sets: that one fits real images, and that one has a history."""

from typing import Any

from yoco.data.image_data import ImageData
from yoco.utils import checks


def check_fits(condensed: Any, data: ImageData, what: str = "the condensed set") -> None:
    """Check that a set has the image shape of the real data and the same classes in the same order.

    Args:
        condensed: a `CondensedSet`. Classes called "0", "1", … count as unnamed and fit any names.
        data: the real images.
        what: the set, for the error.

    Raises:
        TypeError: if these are no real images.
        ValueError: if they differ; it names the differences, with both values.
    """
    checks.instance("data", data, ImageData)
    pairs = {name: (getattr(condensed, name), getattr(data, name)) for name in ("channels", "size")}
    pairs["number of classes"] = len(condensed.classes), len(data.classes)
    unnamed = tuple(map(str, range(len(condensed.classes))))
    if len(condensed.classes) == len(data.classes) and condensed.classes != unnamed:
        for number, names in enumerate(zip(condensed.classes, data.classes)):
            pairs[f"class {number}"] = names
    differ = [f"{name} {own!r}, not {real!r}" for name, (own, real) in pairs.items() if own != real]
    if differ:
        more = f" and {len(differ) - 5} more" if len(differ) > 5 else ""
        raise ValueError(f"{what} does not fit {data.name}: it has {'; '.join(differ[:5])}{more}")


def check_condensed(condensed: Any) -> None:
    """Raise ValueError unless a `CondensedSet` was condensed by yoco and so has a history."""
    if "loss_every" not in condensed.info:
        raise ValueError(
            f"condensed must have the history of a condensation in its info, got {condensed!r}"
        )
