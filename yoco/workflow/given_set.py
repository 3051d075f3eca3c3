"""A run's condensed set that the user names: an author's file, one of yoco's, or one of the zoo."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from yoco import zoo
from yoco.data.image_data import ImageData
from yoco.sets.condensed_set import CondensedSet
from yoco.sets.fits import check_fits
from yoco.sets.published_space import known_dataset
from yoco.utils import checks, digests, owned
from yoco.workflow import found_set
from yoco.workflow.run_folder import CHECKPOINT, load_set, project

SHAPE = ("ipc", "factor", "size")


def take(
    kept: Path, name: str, data: ImageData, *, explicit: Mapping[str, Any] | None = None
) -> CondensedSet:
    """Read a set and keep a copy in the run's folder.

    Args:
        kept: where the run keeps its set.
        name: a set of yoco by a name for `load_set`, or the path of an author's set (see
            `CondensedSet.from_published`). The latter takes its classes from `data`, and also mean
            and std if the authors' for such data are not known.
        data: the real images on which it will be tested.
        explicit: what was given by name; IPC, factor and size must be those of the set.

    Raises:
        FileNotFoundError, ValueError: if it cannot be read or does not fit `data`, or the run holds
            another set.
    """
    own = name.startswith(zoo.PREFIX) or name.endswith(".safetensors")
    made = load_set(name) if own else _published(project() / checks.path("set_path", name), data)
    told = f"set_path={name!r}"
    check_fits(made, data, told)
    asked = {name: value for name, value in (explicit or {}).items() if name in SHAPE}
    found_set.check_asked(made, told, None, asked)
    if kept.exists():
        there = CondensedSet.load(kept)
        if there.fingerprint != made.fingerprint:
            raise ValueError(f"{kept} holds another set than {told}: {digests.HOW}")
        return there
    if (kept.parent / CHECKPOINT).exists():
        raise ValueError(
            f"{kept.parent} holds the unfinished condensation of another set ({CHECKPOINT}) than "
            f"{told}: {digests.HOW}"
        )
    # the images that it was made from may be others than `data`
    made = replace(made, info={"source": Path(name).name, **made.info})
    with owned.used(kept.parent):
        made.save(kept)
    return made


def _published(path: Path, data: ImageData) -> CondensedSet:
    known = known_dataset(data.name, data.channels)
    own: dict[str, Any] = {} if known else {"mean": data.mean, "std": data.std}
    return CondensedSet.from_published(path, classes=data.classes, dataset=data.name, **own)
