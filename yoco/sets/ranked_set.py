"""`RankedSet`: cells ordered best first, so that every prefix is a good balanced subset.

Only the requested prefix is read from its file.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from yoco import formation
from yoco.data.arrays import MOST_SIZE
from yoco.data.spaces import Space
from yoco.utils import checks, tensor_files

KIND = "ranked"
# safetensors' names of the dtypes that cells can be stored in
DTYPES = {"U8": torch.uint8, "F32": torch.float32}
Cells = (
    UInt8[Tensor, "ranks classes channels side side"]
    | Float[Tensor, "ranks classes channels side side"]
)
Pixels = UInt8[Tensor, "..."] | Float[Tensor, "..."]  # as a file holds them
FIELDS = ("factor", "size", "classes", "mean", "std", "method")


@dataclass(frozen=True)
class StoredCells:
    """Cells in a safetensors file; slicing reads only the ranks that are asked for.

    Attributes:
        path: the file.
        shape: [ranks, classes, C, side, side].
        dtype: uint8 or float32.
        written: the cells' header entry (None in a file from before checksums).
    """

    path: Path
    shape: tuple[int, ...]
    dtype: torch.dtype
    written: Mapping[str, Any] | None = None

    def __getitem__(self, prefix: slice) -> Cells:
        """Return the first ranks, as in `cells[:k]`.

        Raises ValueError if the file has changed; the checksum is verified if all ranks are read.
        """
        with tensor_files.open_tensors(self.path) as file:
            cells = file.get_slice("cells")[prefix]
        if cells.shape[1:] != self.shape[1:] or cells.dtype != self.dtype:
            raise ValueError(f"{self.path} was changed after it was opened")
        if len(cells) == self.shape[0] and self.written is not None:
            tensor_files.check_tensor(self.path, "cells", cells, self.written)
        return cells


@dataclass(frozen=True, eq=False)
class RankedSet:
    """Formed images of a condensed set, best first within each class; made by `CondensedSet.rank`.

    Attributes:
        cells: in memory or in a file: rank r holds the r-th best cell of every class, in 0..1 if
            bounded.
        factor: cells along a condensed image's side.
        size: side of a condensed image in pixels.
        classes, mean, std, method: those of the set.
        info: what it is ranked by, the set's fingerprint and dataset.
        targets: soft labels of the cells; None if every cell has one class.
        bounded, whitening: those of the set.

    Raises:
        TypeError, ValueError: if these do not fit each other.
    """

    cells: Cells | StoredCells
    factor: int
    size: int
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    method: str
    info: Mapping[str, Any] = field(default_factory=dict)
    targets: Float[Tensor, "ranks classes classes"] | None = None
    bounded: bool = True
    whitening: str | None = None

    def __post_init__(self) -> None:
        checks.whole("size", self.size, 1, MOST_SIZE)
        checks.flag("bounded", self.bounded)
        checks.instance("method", self.method, str)
        checks.instance("info", self.info, Mapping)  # type: ignore[type-abstract]
        side = formation.cell_size(self.size, self.factor)
        classes = checks.class_names("classes", self.classes)
        if not isinstance(self.cells, StoredCells):
            checks.tensor("cells", self.cells, "[ranks, classes, C, side, side]")
        shape = list(self.cells.shape)
        if len(shape) != 5 or 0 in shape or shape[1] != len(classes) or shape[3:] != [side, side]:
            raise ValueError(
                f"cells must have shape [ranks, {len(classes)}, C, {side}, {side}] with no empty "
                f"dimension, got {shape}"
            )
        if self.cells.dtype not in DTYPES.values():
            raise TypeError(f"cells must be uint8 or float32, got {self.cells.dtype}")
        if shape[0] < self.factor**2:  # cells of one image: fewer are enlarged without bound
            raise ValueError(
                f"cells must hold at least factor²={self.factor**2} ranks, got {shape[0]}"
            )
        if self.targets is not None:
            targets = checks.floats("targets", self.targets, "ranks", "classes", "K")
            checks.targets("targets", targets.flatten(0, 1), shape[0] * shape[1], len(classes))
        held = {
            "factor": int(self.factor),
            "size": int(self.size),
            "classes": classes,
            **checks.statistics(self.mean, self.std, shape[2]),
        }
        for name, value in held.items():
            object.__setattr__(self, name, value)  # frozen from here on

    def __repr__(self) -> str:
        return described(self, self.cells.shape[2], f"{self.ranks} cells per class")

    @property
    def ranks(self) -> int:
        """Cells per class."""
        return self.cells.shape[0]

    @property
    def rank_bytes(self) -> int:
        """Bytes of one cell of every class as stored.

        A value has 4 bytes in memory and in a float32 file, 1 in a uint8 file.
        """
        return math.prod(self.cells.shape[1:]) * self.cells.dtype.itemsize

    def take(
        self, *, per_class: int | None = None, ipc: int | None = None, bytes: int | None = None
    ) -> tuple[
        Float[Tensor, "images channels size size"],
        Int[Tensor, "images"] | Float[Tensor, "images classes"],
    ]:
        """Return the best cells, formed, and their labels, ordered by class and best first.

        Exactly one budget must be given. Only the ranks that it needs are read from a file.

        Args:
            per_class: k formed images of each class.
            ipc: k = ipc · factor².
            bytes: as many whole ranks as fit into this many bytes of cell data (see `rank_bytes`),
                at most all.

        Returns:
            Images and labels, k of each class.

        Raises:
            TypeError, ValueError: if not exactly one budget is given, it exceeds the set or is
                below one rank, the file is corrupted, or enlarging takes too much memory (see
                `formation.upsampled`).
        """
        k = self._count(
            {
                name: value
                for name, value in (("per_class", per_class), ("ipc", ipc), ("bytes", bytes))
                if value is not None
            }
        )
        classes, channels = len(self.classes), self.cells.shape[2]
        cells = (
            self._floats(k).transpose(0, 1).reshape(classes * k, channels, *self.cells.shape[3:])
        )
        labels = (
            torch.arange(classes).repeat_interleave(k)
            if self.targets is None
            else self.targets[:k].transpose(0, 1).flatten(0, 1)
        )
        return formation.upsampled(cells, self.size), labels

    @property
    def space(self) -> Space:
        """As `CondensedSet.space`."""
        return Space(self.mean, self.std, self.whitening, self.bounded)

    def _count(self, given: Mapping[str, int]) -> int:
        if len(given) != 1:
            raise ValueError(
                "take needs exactly one of per_class, ipc and bytes, got "
                f"{', '.join(given) or 'none'}"
            )
        [(name, value)] = given.items()
        if name == "bytes":
            return min(checks.whole("bytes", value, self.rank_bytes) // self.rank_bytes, self.ranks)
        cells = self.factor**2 if name == "ipc" else 1
        return checks.whole(name, value, 1, self.ranks // cells) * cells

    def _floats(self, k: int) -> Tensor:
        cells = self.cells[:k]
        if cells.dtype == torch.uint8:
            return floats(cells)
        name = f"{self.cells.path}: cells" if isinstance(self.cells, StoredCells) else "cells"
        (checks.images if self.bounded else checks.finite)(name, cells.flatten(0, 1))
        return cells

    def save(self, path: str | Path, dtype: torch.dtype | None = None) -> Path:
        """Write one safetensors file, atomically, with the cells rank by rank.

        Args:
            path: the file.
            dtype: uint8 (round(x · 255), off by at most 1/510) or float32 (four times as large,
                exact); None: uint8, or float32 if unbounded.

        Returns:
            The path.

        Raises:
            ValueError: for another dtype, or uint8 if the cells are unbounded.
            OSError: if it cannot be written.
        """
        dtype = dtype or (torch.uint8 if self.bounded else torch.float32)
        cells = stored(self._floats(self.ranks), dtype, self.bounded)
        values = {name: getattr(self, name) for name in FIELDS}
        tensors = {"cells": cells} | ({} if self.targets is None else {"targets": self.targets})
        space = {} if self.bounded else {"bounded": False, "whitening": self.whitening}
        return tensor_files.save_tensors(
            path, KIND, tensors, {**values, "info": dict(self.info), **space}
        )

    @classmethod
    def open(cls, path: str | Path) -> "RankedSet":
        """Read the header of a file written by `save`, but no cells.

        Raises FileNotFoundError, or ValueError if the file is corrupted, truncated, of another kind
        or version, or inconsistent.
        """
        path = Path(path)
        with tensor_files.open_tensors(path) as file:
            values, written = tensor_files.read_header(path, file.metadata() or {}, KIND)
            stored = file.get_slice("cells") if "cells" in set(file.keys()) else None
            # small beside the cells
            targets = file.get_tensor("targets") if "targets" in set(file.keys()) else None
        try:
            if stored is None or stored.get_dtype() not in DTYPES:
                raise ValueError(
                    f"cells must be stored as {' or '.join(DTYPES)}, got "
                    f"{stored and stored.get_dtype()}"
                )
            cells = StoredCells(
                path,
                tuple(stored.get_shape()),
                DTYPES[stored.get_dtype()],
                written and written["cells"],
            )
            sequences: dict[str, Any] = {
                name: tuple(values[name]) for name in ("classes", "mean", "std")
            }
            space = {name: values[name] for name in ("bounded", "whitening") if name in values}
            if targets is not None:
                tensor_files.check_tensor(path, "targets", targets, (written or {})["targets"])
            return cls(
                cells,
                values["factor"],
                values["size"],
                method=values["method"],
                info=values["info"],
                targets=targets,
                **sequences,
                **space,
            )
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not a valid ranked set: {error}") from error


def stored(values: Float[Tensor, "..."], dtype: torch.dtype, bounded: bool) -> Pixels:
    """Return pixels as a file holds them: float32, or uint8 if they are in 0..1.

    Raises ValueError for another dtype, or uint8 if they are unbounded.
    """
    if dtype not in DTYPES.values():
        raise ValueError(f"dtype must be torch.uint8 or torch.float32, got {dtype}")
    if dtype == torch.float32:
        return values.float()
    if not bounded:
        raise ValueError(
            "dtype=torch.uint8 holds values in 0..1, but these are unbounded; allowed: "
            "torch.float32"
        )
    return (values * 255).round().to(torch.uint8)


def floats(values: Pixels) -> Float[Tensor, "..."]:
    """Return pixels from a file as floats: uint8 in 0..1, others unchanged."""
    return values.float() / 255 if values.dtype == torch.uint8 else values


def described(held: Any, channels: int, amount: str) -> str:
    """Return the repr of a set, condensed or ranked: one line, without its images."""
    source = held.info.get("source") or held.info.get("dataset")
    return (
        f"{type(held).__name__}({len(held.classes)} classes, {amount}, factor {held.factor}, "
        f"{channels}x{held.size}x{held.size}, method={held.method!r}, source={source!r})"
    )


def ordered(
    condensed: Any, order: Int[Tensor, "classes cells"], how: Mapping[str, Any]
) -> RankedSet:
    """Return a set with its formed images in a given order.

    Args:
        condensed: a `CondensedSet` (which imports this file).
        order: indices of the formed images of each class, best first.
        how: what they are ranked by, for the info.
    """
    cells = formation.cells(condensed.images.float(), condensed.factor)[order]
    targets = condensed.formed_targets[order].transpose(0, 1) if condensed.soft else None
    made = ("dataset", "preset", "steps", "seed", "precision")
    info = {"set": condensed.fingerprint, **{name: condensed.info.get(name) for name in made}}
    return RankedSet(
        cells.transpose(0, 1).contiguous(),
        **{name: getattr(condensed, name) for name in (*FIELDS, "bounded", "whitening")},
        info={**how, **info},
        targets=None if targets is None else targets.contiguous(),
    )


def nested(condensed: Any) -> RankedSet:
    """Return a nested `CondensedSet` in the order that its formed images have.

    Raises ValueError if it is not nested.
    """
    if not condensed.info.get("nested"):
        raise ValueError(
            "dynamics of this set are needed, got None: only a set condensed with nested= can be "
            "ranked without them"
        )
    if len(set(torch.bincount(condensed.formed_labels).tolist())) > 1:
        raise ValueError("classes of a nested set must have equally many images, these differ")
    order = torch.arange(len(condensed.formed_labels)).view(len(condensed.classes), -1)
    return ordered(condensed, order, {"ranked_by": "nested", "budgets": condensed.info["nested"]})
