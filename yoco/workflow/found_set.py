"""Checks that the condensed set in a run's folder is the one that was asked for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yoco import zoo
from yoco.condense.nested import budgets
from yoco.data.datasets import name_of
from yoco.data.image_data import ImageData
from yoco.sets.condensed_set import CondensedSet
from yoco.sets.fits import check_fits
from yoco.utils import digests

# what a set of the zoo must match: it is not condensed here, so all other parameters concern only
# what else a run does
OF_THE_ZOO = ("method", "ipc", "factor", "size", "nested")
# training has these parameters as well as condensing
OF_TRAININGS = ("start", "model", "width", "precision")


def check_asked(
    found: CondensedSet,
    path: Path | str,
    dataset: str | None,
    explicit: Mapping[str, Any],
    arguments: Mapping[str, Any] | None = None,
    go_on: bool = False,
) -> None:
    """Check that a set has what was asked for.

    Args:
        found, path: the set, and where it is.
        dataset: the name that was asked for; None: any.
        explicit: the parameters that were given, with their values.
        arguments: of `condense`.
        go_on: whether the set will be condensed further: method, IPC, factor, nested and start must
            then be those of `arguments`.

    Raises:
        ValueError: if a value differs; the message names both values and says what to do.
    """
    differ = differing(found, dataset, explicit, arguments, go_on)
    if differ:
        holds, wanted = (
            ", ".join(f"{name}={pair[place]!r}" for name, pair in differ.items())
            for place in (0, 1)
        )
        raise ValueError(
            f"{path} holds a set with {holds}, but {wanted} was asked for: {digests.HOW}"
        )


def differing(
    found: CondensedSet,
    dataset: str | None,
    explicit: Mapping[str, Any],
    arguments: Mapping[str, Any] | None = None,
    go_on: bool = False,
) -> dict[str, tuple[Any, Any]]:
    """Return what a set has and what was asked for, by the names of parameters that differ.

    Arguments are those of `check_asked`.
    """
    there, asked = _told(found), _asked(found, dataset, explicit, arguments or {}, go_on)
    return {
        name: (there[name], value)
        for name, value in asked.items()
        if name in there and there[name] != value
    }


def _asked(
    found: CondensedSet,
    dataset: str | None,
    explicit: Mapping[str, Any],
    arguments: Mapping[str, Any],
    go_on: bool,
) -> dict[str, Any]:
    """Return what a set must have, by the names of parameters."""
    from_zoo = dataset is not None and dataset.startswith(zoo.PREFIX)
    left_out = ("start",) if go_on else OF_TRAININGS
    of_set = OF_THE_ZOO if from_zoo else tuple(explicit)
    asked = {name: explicit[name] for name in explicit if name in of_set and name not in left_out}
    if go_on:
        names = ("method", "ipc", "factor", "nested")
        asked |= {name: arguments[name] for name in names if name in arguments}
    if asked.get("precision") == "auto":
        del asked["precision"]
    if "nested" in asked:
        asked["nested"] = budgets(asked["nested"], arguments.get("ipc", found.ipc))
    if "start" in arguments and (go_on or "start" in explicit):
        asked["start"] = arguments["start"].fingerprint
    if dataset is not None and not from_zoo:
        asked["dataset"] = name_of(dataset)
    return asked


def _told(found: CondensedSet) -> dict[str, Any]:
    """Return what a set says about itself, by the names of parameters."""
    info = found.info
    return {
        **info.get("settings", {}),
        **{name: info[name] for name in ("dataset", "seed", "preset", "precision") if name in info},
        **{name: getattr(found, name) for name in ("method", "ipc", "factor", "size")},
        **{name: info.get(name) for name in ("nested", "start")},
    }


def is_of(found: CondensedSet, data: ImageData) -> bool:
    """Return whether a set says that it was made from these images.

    Digests that it lacks are not compared: those of CIFAR-10's images and labels are not in the
    zoo's sets, which were made from the same images in another order.
    """
    told = {
        "dataset": (found.info.get("dataset"), data.name),
        "images": (found.info.get("images"), len(data.train_images)),
    }
    made_from = found.info.get(digests.MADE_FROM) or {}
    told |= {part: (digest, data.made_from.get(part)) for part, digest in made_from.items()}
    return all(stored == own for stored, own in told.values())


def check_made_from(found: CondensedSet, path: Path, dataset: str, real: ImageData | None) -> None:
    """Check that a set was made from the current real images, and fits them.

    Args:
        found, path: the set, and where it is.
        dataset: the name that was asked for.
        real: the images, if available; for a set of the zoo there are none, and the set must be
            that one.

    Raises:
        ValueError: if either is not the case; the message says what differs.
    """
    if real is not None:
        check_fits(found, real, str(path))
        if found.info.get("source") is None:  # unknown for an author's file
            digests.check(str(path), found.info.get(digests.MADE_FROM), real.made_from)
    elif (
        dataset.startswith(zoo.PREFIX)
        and found.fingerprint != zoo.load(dataset.removeprefix(zoo.PREFIX)).fingerprint
    ):
        raise ValueError(f"{path} holds another set than {dataset}: {digests.HOW}")
