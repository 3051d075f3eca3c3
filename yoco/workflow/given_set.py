"""A run's condensed set from a file that the user names: an author's, or one of yoco's."""

from pathlib import Path
from typing import Any

from yoco.data.image_data import ImageData
from yoco.sets.condensed_set import CondensedSet
from yoco.sets.published_space import known_dataset
from yoco.utils import owned
from yoco.workflow.run_folder import CHECKPOINT


def take(kept: Path, path: Path, data: ImageData) -> CondensedSet:
    """Read a set and keep a copy in the run's folder.

    Args:
        kept: where the run keeps its set.
        path: a file of `CondensedSet.save`, or an author's set (see `CondensedSet.from_published`).
            The latter takes its classes from `data`, and also mean and std if the authors' for such
            data are not known.
        data: the real images on which it will be tested.

    Raises:
        FileNotFoundError, ValueError: if it cannot be read or does not fit `data`, or the run holds
            another set.
    """
    made = CondensedSet.load(path) if path.suffix == ".safetensors" else _published(path, data)
    found, wanted = ((x.channels, x.size, len(x.classes)) for x in (made, data))
    if found != wanted:
        raise ValueError(
            f"set_path={str(path)!r} holds a set of (channels, size, classes) {found}, but "
            f"{data.name} has {wanted}"
        )
    if kept.exists() and CondensedSet.load(kept).fingerprint != made.fingerprint:
        raise ValueError(
            f"{kept} holds another set than set_path={str(path)!r}: choose another run_dir or "
            "remove that file"
        )
    if not kept.exists() and (kept.parent / CHECKPOINT).exists():
        raise ValueError(
            f"{kept.parent} holds the unfinished condensation of another set ({CHECKPOINT}): "
            f"choose another run_dir for set_path={str(path)!r}, or remove that file"
        )
    with owned.used(kept.parent):
        made.save(kept)
    return made


def _published(path: Path, data: ImageData) -> CondensedSet:
    known = known_dataset(data.name, data.channels)
    own: dict[str, Any] = {} if known else {"mean": data.mean, "std": data.std}
    return CondensedSet.from_published(path, classes=data.classes, dataset=data.name, **own)
