"""Figures of images: a grid, a condensed set, and what pruning keeps of it.

Each function draws on `ax` (or a new figure) and returns the Axes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Num
from torch import Tensor

from yoco import formation
from yoco.data.image_data import ImageData
from yoco.data.normalise import to_floats
from yoco.experiments.tables import title_of
from yoco.plots import style
from yoco.prune.select import Selection
from yoco.sets.condensed_set import CondensedSet
from yoco.utils import checks
from yoco.utils.lazy import plt

FADED = 0.2  # weight of dropped cells
ROWS = 20  # most classes that a figure has a row for
Images = Num[Tensor, "images channels height width"]  # in 0..1, or uint8
NARROW = 3.5  # inches that a grid has at least, however few its columns: names and titles need them


def pixels(images: Num[Tensor, "channels height width"]) -> Num[np.ndarray, "height width *colour"]:
    """Convert an image in 0..1 (or uint8) for imshow; a grey one has no axis of colours."""
    array = images.permute(1, 2, 0).squeeze(-1).numpy()
    return array if array.dtype == np.uint8 else array.clip(0, 1)


def show(ax: plt.Axes, image: Num[Tensor, "channels height width"]) -> None:
    """Draw one image in 0..1 (or uint8) with square pixels and without axes."""
    ax.imshow(
        pixels(image),
        cmap="gray",
        vmin=0,
        vmax=1 if image.is_floating_point() else 255,
        interpolation="nearest",
    )
    ax.axis("off")


def gap(size: int) -> int:
    """Return the pixels between images of that side in a grid."""
    return max(1, size // 16)


def tiled(values: Images, columns: int, padding: int) -> Num[Tensor, "channels rows columns"]:
    """Join images into one, row by row.

    Each image is surrounded by `padding` white pixels. Without images, it is white.
    """
    white = 1.0 if values.is_floating_point() else 255
    columns = max(1, min(columns, len(values)))
    rows = max(1, -(-len(values) // columns))
    padded = F.pad(values, (padding, 0, padding, 0), value=white)
    full = F.pad(padded, (0, 0, 0, 0, 0, 0, 0, rows * columns - len(values)), value=white)
    joined = rearrange(full, "(row column) c h w -> c (row h) (column w)", column=columns)
    return F.pad(joined, (0, padding, 0, padding), value=white)


def _grid_axes(count: int, columns: int) -> plt.Axes:
    """Return the Axes of a new figure for a grid of that many images."""
    width = 0.7 * max(1, min(columns, count))
    return style.axes(max(NARROW, width), 0.7 * max(1, -(-count // columns)) + 0.3)


def images(
    values: Images, columns: int = 10, *, title: str = "", ax: plt.Axes | None = None
) -> plt.Axes:
    """Draw a grid of images, row by row. Returns the Axes."""
    ax = ax or _grid_axes(len(values), columns)
    show(ax, tiled(values, columns, gap(values.shape[-1])))
    ax.set_title(title)
    return ax


def heat_map(
    values: Float[Tensor, "images channels height width"],
    columns: int = 10,
    *,
    title: str = "",
    ax: plt.Axes | None = None,
) -> plt.Axes:
    """Draw signed images, summed over their channels, red above 0 and blue below.

    A gradient in the pixels, for example: blue pixels get brighter by a step against it. Returns
    the Axes.
    """
    ax = ax or _grid_axes(len(values), columns)
    summed = values.detach().sum(1, keepdim=True)
    most = summed.abs().max().item() or 1.0
    centred, between = (
        tiled(part, columns, gap(values.shape[-1]))[0]
        for part in (summed / (2 * most) + 0.5, torch.zeros_like(summed))
    )
    shown = centred.masked_fill(between == 1, torch.nan).cpu().numpy()
    ax.imshow(shown, cmap="RdBu_r", vmin=0, vmax=1, interpolation="nearest")
    ax.axis("off")
    ax.set_title(title)
    return ax


def name_rows(ax: plt.Axes, names: Sequence[str], size: int) -> None:
    """Write names to the left of the rows of a grid of images of side `size`."""
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


def real_images(
    data: ImageData, per_class: int = 4, classes: int = 10, *, ax: plt.Axes | None = None
) -> plt.Axes:
    """Draw the first training images of the first classes, one column per class. Returns the Axes.

    per_class, classes: most images and classes; a class with fewer images leaves white places.
    """
    shown = min(classes, len(data.classes))
    rows = min(per_class, max(data.counts()[:shown]))
    members = [(data.train_labels == label).nonzero().flatten()[:rows] for label in range(shown)]
    columns = torch.stack([filled(to_floats(data.train_images[own]), rows) for own in members])
    return images(columns.transpose(0, 1).flatten(0, 1), shown, ax=ax)


def shown_classes(condensed: CondensedSet) -> list[int]:
    """Return the classes that have a row in a figure: all, or `ROWS` of them, evenly spread."""
    return style.spread(len(condensed.classes), ROWS)


def some_of(condensed: CondensedSet) -> str:
    """Return a line for a title: how many classes are shown, or nothing if all are."""
    shown, count = len(shown_classes(condensed)), len(condensed.classes)
    return f"\n{shown} of {count} classes" if shown < count else ""


def condensed_set(
    condensed: CondensedSet, per_class: int = 10, *, title: str = "", ax: plt.Axes | None = None
) -> plt.Axes:
    """Draw one row of condensed images per class, with the classes' names. Returns the Axes.

    Each row holds at most `per_class` images. Of more than `ROWS` classes, as many are drawn.
    """
    shown = min(checks.whole("per_class", per_class, 1), condensed.ipc)
    labels = shown_classes(condensed)
    rows = [of_class(condensed, label, shown) for label in labels]
    ax = images(torch.cat(rows), shown, title=title + some_of(condensed), ax=ax)
    name_rows(ax, [condensed.classes[label] for label in labels], condensed.size)
    return ax


def of_class(
    condensed: CondensedSet, label: int, count: int
) -> Float[Tensor, "{count} channels size size"]:
    """Return the first `count` condensed images of a class as pictures in 0..1.

    White images fill up a class that has fewer.
    """
    return filled(condensed.pictures(condensed.images[condensed.members(label)[:count]]), count)


def formed_image(condensed: CondensedSet, index: int) -> Float[Tensor, "channels size size"]:
    """Return one formed image as a picture in 0..1."""
    image, cell = divmod(index, condensed.factor**2)
    formed = formation.form(condensed.images[image : image + 1], condensed.factor)
    return condensed.pictures(formed)[cell]


def filled(
    shown: Float[Tensor, "images channels size size"], count: int
) -> Float[Tensor, "{count} channels size size"]:
    """Return images in 0..1 followed by white ones, `count` in all."""
    return F.pad(shown, (0, 0, 0, 0, 0, 0, 0, count - len(shown)), value=1.0)


def kept_and_dropped(
    condensed: CondensedSet,
    selection: Selection,
    per_class: int = 10,
    *,
    title: str | None = None,
    ax: plt.Axes | None = None,
) -> plt.Axes:
    """Draw the condensed set with kept cells framed and dropped cells faded, one row per class.

    Of more than `ROWS` classes, as many are drawn.

    Args:
        condensed: the set.
        selection: what is kept of it.
        per_class: maximum number of condensed images per class.
        title: None names the method and the budgets.
        ax: Axes to draw on (None: a new figure).

    Returns:
        The Axes.
    """
    if title is None:
        budgets = f"{condensed.ipc} → {selection.ipc_to} images per class"
        title = f"{title_of(selection.method)}: {budgets}{some_of(condensed)}"
    rows = [(selection, label, condensed.classes[label]) for label in shown_classes(condensed)]
    return _marked(condensed, rows, per_class, title, ax)


def cross_out(
    ax: plt.Axes, condensed: CondensedSet, which: Bool[Tensor, "images"], per_class: int = 10
) -> None:
    """Draw crosses on some cells of a set that is drawn on `ax`.

    Args:
        ax: Axes that `condensed_set` or `kept_and_dropped` drew on, with the same `per_class`.
        condensed: the set.
        which: cells to cross out, one value per formed image.
        per_class: condensed images drawn of each class.

    Raises:
        ValueError: if `which` has another shape.
    """
    if list(which.shape) != [len(condensed.formed_labels)]:
        raise ValueError(
            f"which must have shape [{len(condensed.formed_labels)}], one value per formed image, "
            f"got {list(which.shape)}"
        )
    marked = which.view(-1, condensed.factor**2)
    rows = [
        marked[condensed.members(label)[: min(per_class, condensed.ipc)]]
        for label in shown_classes(condensed)
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
    ax: plt.Axes | None = None,
) -> plt.Axes:
    """Draw one class with one row per method: kept cells framed, dropped cells faded.

    The row names the method and says how many cells it keeps.

    Args:
        condensed: the set.
        selections: one per row.
        label: number of the class, 0..K-1.
        per_class: maximum number of condensed images.
        ax: Axes to draw on (None: a new figure).

    Returns:
        The Axes.

    Raises:
        TypeError, ValueError: if there is no such class.
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
    ax: plt.Axes | None,
) -> plt.Axes:
    """Draw rows of (selection, class, name): that class's images, marked by that selection."""
    from matplotlib.collections import PolyCollection

    shown = min(checks.whole("per_class", per_class, 1), condensed.ipc)
    strips, frames = [], []
    for row, (selection, label, _) in enumerate(rows):
        kept = _kept(condensed, selection)[condensed.members(label)[:shown]]
        held = F.pad(kept, (0, 0, 0, shown - len(kept)))  # if the class has fewer images
        strips.append(_faded(of_class(condensed, label, shown), held, condensed.factor))
        frames += _frames(kept, row, condensed.size, condensed.factor)
    ax = images(torch.cat(strips), shown, title=title, ax=ax)
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
    """Return which cells are kept, bool [N, factor²]. Raises ValueError if of another set."""
    selection.check_of(condensed)
    kept = torch.zeros(len(condensed.formed_labels), dtype=torch.bool)
    kept[selection.indices] = True
    return kept.view(-1, condensed.factor**2)


def _faded(shown: Tensor, kept: Tensor, factor: int) -> Tensor:
    """Fade towards white the cells of images [n, C, S, S] that are not kept, bool [n, factor²]."""
    side = formation.cell_size(shown.shape[-1], factor)
    weight = torch.where(kept, 1.0, FADED).view(-1, 1, factor, factor)
    weight = weight.repeat_interleave(side, 2).repeat_interleave(side, 3)[
        ..., : shown.shape[-1], : shown.shape[-1]
    ]
    return 1 - weight * (1 - shown)


def _frames(kept: Tensor, row: int, size: int, factor: int) -> list[np.ndarray]:
    """Return the corners [4, 2], in pixels of the grid, of each kept cell, bool [n, factor²].

    row: the row of the grid that the images are in.
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
