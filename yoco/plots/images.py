"""Figures of images: a grid, a condensed set, and what pruning keeps of it.

Each draws on `ax` (or a new figure) and returns the Axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from yoco import formation
from yoco.experiments.tables import title_of
from yoco.plots import style
from yoco.prune.select import Selection
from yoco.sets.condensed_set import CondensedSet
from yoco.utils import checks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FADED = 0.2  # weight of what pruning dropped


def pixels(images: Tensor) -> np.ndarray:
    """Images [C, H, W] in 0..1 (or uint8) -> what imshow takes, [H, W] or [H, W, 3]."""
    array = images.permute(1, 2, 0).squeeze(-1).numpy()
    return array if array.dtype == np.uint8 else array.clip(0, 1)


def show(ax: Axes, image: Tensor) -> None:
    """Draw one image [C, H, W] in 0..1 (or uint8), its pixels as squares and without axes."""
    ax.imshow(
        pixels(image),
        cmap="gray",
        vmin=0,
        vmax=1 if image.is_floating_point() else 255,
        interpolation="nearest",
    )
    ax.axis("off")


def gap(size: int) -> int:
    """Pixels between images of that side in a grid."""
    return max(1, size // 16)


def tiled(values: Tensor, columns: int, padding: int) -> Tensor:
    """Images [N, C, H, W] in 0..1 as one, row after row, with `padding` white pixels around each:
    [C, height, width].
    """
    columns = min(columns, len(values))
    rows = -(-len(values) // columns)
    padded = F.pad(values, (padding, 0, padding, 0), value=1.0)
    full = F.pad(padded, (0, 0, 0, 0, 0, 0, 0, rows * columns - len(values)), value=1.0)
    joined = full.unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)
    return F.pad(joined, (0, padding, 0, padding), value=1.0)


def images(values: Tensor, columns: int = 10, *, title: str = "", ax: Axes | None = None) -> Axes:
    """A grid of images [N, C, H, W] in 0..1, row after row. Returns the Axes."""
    ax = ax or style.axes(0.7 * columns, 0.7 * -(-len(values) // columns) + 0.3)
    show(ax, tiled(values, columns, gap(values.shape[-1])))
    ax.set_title(title)
    return ax


def name_rows(ax: Axes, names: Sequence[str], size: int) -> None:
    """Names to the left of the rows of a grid of images of side `size`."""
    step = size + gap(size)
    for row, name in enumerate(names):
        ax.text(
            -step * 0.1,
            (row + 0.5) * step,
            style.literal(name),
            ha="right",
            va="center",
            fontsize="small",
        )


def condensed_set(
    condensed: CondensedSet, per_class: int = 10, *, title: str = "", ax: Axes | None = None
) -> Axes:
    """A row of condensed images for every class, `per_class` of them at most, with the classes'
    names. Returns the Axes.
    """
    shown = min(per_class, condensed.ipc)
    rows = [of_class(condensed, label, shown) for label in range(len(condensed.classes))]
    ax = images(torch.cat(rows), shown, title=title, ax=ax)
    name_rows(ax, condensed.classes, condensed.size)
    return ax


def of_class(condensed: CondensedSet, label: int, count: int) -> Tensor:
    """The first `count` condensed images of a class as pictures in 0..1, white if it has fewer:
    [count, C, S, S].
    """
    shown = condensed.pictures(condensed.images[condensed.members(label)[:count]])
    return F.pad(shown, (0, 0, 0, 0, 0, 0, 0, count - len(shown)), value=1.0)


def kept_and_dropped(
    condensed: CondensedSet,
    selection: Selection,
    per_class: int = 10,
    *,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """The condensed set with the kept cells framed and the dropped ones faded, a row a class,
    `per_class` images of each at most. title: None tells the method and the budgets. Returns the
    Axes.
    """
    title = (
        f"{title_of(selection.method)}: {condensed.ipc} → {selection.ipc_to} images a class"
        if title is None
        else title
    )
    rows = [(selection, label, name) for label, name in enumerate(condensed.classes)]
    return _marked(condensed, rows, per_class, title, ax)


def cross_out(ax: Axes, condensed: CondensedSet, which: Tensor, per_class: int = 10) -> None:
    """Crosses on some cells, `which` bool [N * factor²], of a set that `condensed_set` or
    `kept_and_dropped` drew on `ax` with as many images a class. Raises ValueError where `which` is
    not of that shape.
    """
    if list(which.shape) != [len(condensed.formed_labels)]:
        raise ValueError(
            f"which must have shape [{len(condensed.formed_labels)}], a value a formed image, got "
            f"{list(which.shape)}"
        )
    marked = which.view(-1, condensed.factor**2)
    rows = [
        marked[condensed.members(label)[: min(per_class, condensed.ipc)]]
        for label in range(len(condensed.classes))
    ]
    frames = [
        frame
        for row, cells in enumerate(rows)
        for frame in _frames(cells, row, condensed.size, condensed.factor)
    ]
    centres = np.array([frame.mean(0) for frame in frames]).reshape(-1, 2)
    ax.plot(*centres.T, "x", color=style.DROPPED, ms=style.scaled(5), mew=style.scaled(1.5))


def kept_of_class(
    condensed: CondensedSet,
    selections: Sequence[Selection],
    label: int,
    per_class: int = 10,
    *,
    ax: Axes | None = None,
) -> Axes:
    """One class, a row a method: the cells that it keeps framed, those that it drops faded; how
    many it keeps stands before.

    label: number of the class, 0..K-1. Returns the Axes. Raises ValueError or TypeError at a label
    that is none.
    """
    checks.whole("label", label, 0, len(condensed.classes) - 1)
    cells = len(condensed.members(label)) * condensed.factor**2
    rows = [
        (s, label, f"{title_of(s.method)}: {s.per_class_counts[label]} of {cells}")
        for s in selections
    ]
    return _marked(condensed, rows, per_class, style.literal(condensed.classes[label]), ax)


def _marked(
    condensed: CondensedSet,
    rows: Sequence[tuple[Selection, int, str]],
    per_class: int,
    title: str,
    ax: Axes | None,
) -> Axes:
    """Rows of (selection, class, name): that class's images, marked by that selection."""
    from matplotlib.collections import PolyCollection

    shown = min(per_class, condensed.ipc)
    ax = ax or style.axes(0.7 * shown, 0.7 * len(rows) + 0.3)
    strips, frames = [], []
    for row, (selection, label, _) in enumerate(rows):
        kept = _kept(condensed, selection)[condensed.members(label)[:shown]]
        held = F.pad(kept, (0, 0, 0, shown - len(kept)))  # of a class with fewer
        strips.append(_faded(of_class(condensed, label, shown), held, condensed.factor))
        frames += _frames(kept, row, condensed.size, condensed.factor)
    images(torch.cat(strips), shown, title=title, ax=ax)
    name_rows(ax, [name for _, _, name in rows], condensed.size)
    ax.add_collection(
        PolyCollection(
            frames,
            closed=True,
            facecolors="none",
            edgecolors=style.KEPT,
            linewidths=style.scaled(1.2),
        ),
        autolim=False,
    )
    return ax


def _kept(condensed: CondensedSet, selection: Selection) -> Tensor:
    """Which cells stay, bool [N, factor²]."""
    kept = torch.zeros(len(condensed.formed_labels), dtype=torch.bool)
    kept[selection.indices] = True
    return kept.view(-1, condensed.factor**2)


def _faded(shown: Tensor, kept: Tensor, factor: int) -> Tensor:
    """Images [n, C, S, S], the cells that are not kept [n, factor²] towards white."""
    side = formation.cell_size(shown.shape[-1], factor)
    weight = torch.where(kept, 1.0, FADED).view(-1, 1, factor, factor)
    weight = weight.repeat_interleave(side, 2).repeat_interleave(side, 3)[
        ..., : shown.shape[-1], : shown.shape[-1]
    ]
    return 1 - weight * (1 - shown)


def _frames(kept: Tensor, row: int, size: int, factor: int) -> list[np.ndarray]:
    """Corners [4, 2] in pixels of the grid of each kept cell, kept bool [n, factor²], of images in
    that row.
    """
    side, step = formation.cell_size(size, factor), size + gap(size)
    frames = []
    for position, cell in torch.nonzero(kept).tolist():
        top, left = (cell // factor) * side, (cell % factor) * side
        bottom, right = min(top + side, size), min(left + side, size)
        corner = np.array([position * step, row * step]) + gap(size) - 0.5
        frames.append(
            corner + np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
        )
    return frames
