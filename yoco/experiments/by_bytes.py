"""Pruning methods at equal bytes: networks are trained on what is read back from their files."""

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
from yoco.sets.fits import check_fits
from yoco.sets.ranked_set import RankedSet
from yoco.utils import checks
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
    """Return the accuracy of each method's balanced choices against their bytes.

    Choices are stored as uint8 cells, or as float32 if the set is unbounded. A method whose choices
    nest stores them as prefixes of one file, `ranked-<method>.safetensors` in `folder`. SSP and CCS
    are not nested, so their selections are recomputed for each budget and also rounded to uint8.
    YOCO's prefixes are also taken as float32, at four times the bytes.

    Args:
        condensed, data, dynamics: the set, the real data to test on, and a training run on the set.
        folder: where the ranked files are written.
        methods: as in `study.run`.
        ipc_to: budgets (None: IPC 1, 2, 5 and all).
        seeds, progress, training: as for `evaluate_many`.

    Returns:
        A table with columns method, stored, per_class (cells), bytes (of cells), seed, last_batch,
            augmentation, precision, accuracy (%).
    """
    check_fits(condensed, data)
    methods = compared(condensed) if methods is None else checks.sequence("methods", methods)
    for method in methods:
        checks.one_of("method", method, METHODS)
    budgets = ipc_to or sorted({min(ipc, condensed.ipc) for ipc in (1, 2, 5, condensed.ipc)})
    cell_bytes = (
        formation.cell_size(condensed.size, condensed.factor) ** 2
        * condensed.channels
        * len(condensed.classes)
    )
    cells = condensed.factor**2
    subsets = {
        (method, stored, ipc * cells, ipc * cells * cell_bytes * width): subset
        for method in methods
        for stored, width, ipc, subset in _stored(
            condensed, dynamics, method, budgets, Path(folder)
        )
    }
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
    """Yield what a method keeps at each budget, as read back from bytes.

    That is (stored as, bytes per value, ipc, images and labels).
    """
    stored = ("uint8", 1) if condensed.bounded else ("float32", 4)
    if not METHODS[method].nests:
        rounded = (
            replace(condensed, images=(condensed.images * 255).round() / 255)
            if condensed.bounded
            else condensed
        )
        images, labels = rounded.form()
        for ipc in budgets:
            kept = prune(condensed, dynamics, method, ipc, balanced=True).indices
            yield *stored, ipc, (images[kept], labels[kept])
        return
    exact = condensed.rank(dynamics, method)
    file = RankedSet.open(exact.save(folder / f"ranked-{method}.safetensors"))
    yield from ((*stored, ipc, file.take(ipc=ipc)) for ipc in budgets)
    if method == OURS and condensed.bounded:
        yield from (("float32", 4, ipc, exact.take(ipc=ipc)) for ipc in budgets)
