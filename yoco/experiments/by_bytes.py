"""Pruning methods at equal bytes: networks are trained on what comes back from each one's file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from yoco import formation
from yoco.data.image_data import ImageData
from yoco.dynamics.dynamics import Dynamics
from yoco.evaluate import evaluate_many
from yoco.prune.methods import METHODS, OURS, compared, prune
from yoco.sets.condensed_set import CondensedSet
from yoco.sets.ranked_set import RankedSet
from yoco.utils.lazy import pd


def by_bytes(
    condensed: CondensedSet,
    data: ImageData,
    dynamics: Dynamics,
    folder: str | Path,
    *,
    methods: Sequence[str] | None = None,
    ipc_to: Sequence[int] | None = None,
    seeds: Sequence[int] = (0,),
    progress: bool = True,
    **training: Any,
) -> pd.DataFrame:
    """Accuracy of balanced choices of each method (None: of all) against their bytes, stored as
    uint8 cells (of an unbounded set as float32 alone).

    A method whose choices nest has them as prefixes of one file, `ranked-<method>.safetensors` in
    `folder`; SSP and CCS choose anew for each budget, and their cells are rounded to bytes alike.
    methods: as of `run`. ipc_to: budgets (None: IPC 1, 2, 5 and all). YOCO's prefixes are also
    taken as float32, four times the bytes. training: of `evaluate_many`. Returns a table with
    columns method, stored, per_class (cells), bytes (of cells), seed, last_batch, augmentation,
    precision, accuracy (%).
    """
    budgets = ipc_to or sorted({min(ipc, condensed.ipc) for ipc in (1, 2, 5, condensed.ipc)})
    cell_bytes = (
        formation.cell_size(condensed.size, condensed.factor) ** 2
        * condensed.channels
        * len(condensed.classes)
    )
    subsets = {}
    for method in compared(condensed) if methods is None else methods:
        for stored, width, ipc, subset in _stored(
            condensed, dynamics, method, budgets, Path(folder)
        ):
            subsets[
                method,
                stored,
                ipc * condensed.factor**2,
                ipc * condensed.factor**2 * cell_bytes * width,
            ] = subset
    table = evaluate_many(
        subsets, data, seeds=seeds, progress=progress, space=condensed.space, **training
    )
    names = pd.DataFrame(
        table.pop("subset").tolist(), columns=["method", "stored", "per_class", "bytes"]
    )
    return pd.concat([names, table], axis=1)


def _stored(
    condensed: CondensedSet, dynamics: Dynamics, method: str, budgets: Sequence[int], folder: Path
) -> Iterator[tuple[str, int, int, tuple[Tensor, Tensor]]]:
    """What a method keeps at each budget as it comes back from bytes: (stored as, bytes a value,
    ipc, images and labels).
    """
    stored = ("uint8", 1) if condensed.bounded else ("float32", 4)
    if not METHODS[method].nests:
        rounded = (
            replace(condensed, images=(condensed.images * 255).round() / 255)
            if condensed.bounded
            else condensed
        )
        yield from (
            (*stored, ipc, prune(condensed, dynamics, method, ipc, balanced=True).subset(rounded))
            for ipc in budgets
        )
        return
    exact = condensed.rank(dynamics, method)
    file = RankedSet.open(exact.save(folder / f"ranked-{method}.safetensors"))
    yield from ((*stored, ipc, file.take(ipc=ipc)) for ipc in budgets)
    if method == OURS and condensed.bounded:
        yield from (("float32", 4, ipc, exact.take(ipc=ipc)) for ipc in budgets)
