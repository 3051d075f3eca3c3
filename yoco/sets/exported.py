"""Condensed sets for other programs: folders of pictures, torch files, NumPy archives, a `Dataset`.

`CondensedSet` imports this file, so sets are annotated as Any here.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from yoco.utils import checks, tensor_files

FORMATS = ("images", "pt", "npz")
EXACT = "set.safetensors"  # beside the pictures of a folder, with the values before rounding
MARK = "yoco"  # the key that marks an export; its value is the version
FIELDS = ("factor", "classes", "mean", "std", "method", "info", "bounded", "whitening")


def write(condensed: Any, path: str | Path, format: str) -> Path:
    """Write a set as `CondensedSet.export` describes. Raises as it does."""
    path = checks.path("path", path)
    if checks.one_of("format", format, FORMATS) == "images":
        return _write_images(condensed, path)
    held = {name: getattr(condensed, name) for name in FIELDS}
    header = json.dumps({MARK: 1, **held, "info": dict(condensed.info)})
    tensors = {"images": condensed.images, "labels": condensed.labels}
    if format == "pt":
        return tensor_files.write_whole(
            path, lambda part: torch.save({**tensors, MARK: header}, part)
        )
    arrays = {**{name: tensor.numpy() for name, tensor in tensors.items()}, MARK: np.array(header)}

    def save(part: Path) -> None:
        with open(part, "wb") as file:  # an open file, since NumPy would add .npz to a path
            np.savez(file, **arrays)

    return tensor_files.write_whole(path, save)


def fields(header: object) -> dict[str, Any]:
    """Return the fields of a set, except images and labels, from a header of `write`.

    Raises ValueError if it is not such a header.
    """
    try:
        held = json.loads(str(header))
        return {
            name: tuple(held[name]) if isinstance(held[name], list) else held[name]
            for name in FIELDS
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"its {MARK} header is not valid: {error!r}") from error


def _write_images(condensed: Any, folder: Path) -> Path:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"path={str(folder)!r} must be a new or empty folder")
    shown = (condensed.pictures(condensed.images) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    for label, name in enumerate(folder_names(condensed.classes)):
        inside = folder / name
        inside.mkdir(parents=True)
        for number, image in enumerate(shown[condensed.members(label)].squeeze(-1).numpy()):
            Image.fromarray(image).save(inside / f"{number:04}.png")
    condensed.save(folder / EXACT)  # last: a folder without it is incomplete
    return folder


def folder_names(classes: tuple[str, ...]) -> list[str]:
    """Return names for the folders of the classes.

    They are the classes' own names if these are safe and differ in more than case, else numbered.
    """
    safe = [re.sub(r"[^\w .-]", "_", name).strip(" .")[:100] for name in classes]
    if all(safe) and len({name.lower() for name in safe}) == len(safe):
        return safe
    return [f"{number:03}_{name}" for number, name in enumerate(safe)]


class Formed(Dataset):
    """The formed images of a set, for a `DataLoader`.

    Items are (image, label): an image as in `CondensedSet.form`, and an int or a soft target.
    """

    def __init__(self, condensed: Any) -> None:
        self.images, self.targets = condensed.form()
        self.classes, self.mean, self.std = condensed.classes, condensed.mean, condensed.std

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(
        self, index: int
    ) -> tuple[Float[Tensor, "channels size size"], int | Float[Tensor, "classes"]]:
        target = self.targets[index]
        return self.images[index], target if target.ndim else int(target)
