"""Figures that combine images and numbers, or several charts.

Each function takes data, draws on `ax` (or a new figure) and returns the Axes, or the Figure if it
holds several. `charts` and `score_charts` draw numbers, `images` draws images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Num
from torch import Tensor

from yoco import formation
from yoco.dynamics.dynamics import Dynamics, margin
from yoco.experiments.tables import title_of
from yoco.plots import style
from yoco.plots.charts import loss_curve
from yoco.plots.images import (
    condensed_set,
    filled,
    formed_image,
    images,
    kept_and_dropped,
    name_rows,
    show,
    shown_classes,
    some_of,
    tiled,
)
from yoco.plots.score_charts import margins, right_and_wrong, score_label, trajectories
from yoco.plots.style import DROPPED, KEPT
from yoco.prune.ranking import score_names
from yoco.prune.select import Selection
from yoco.scores import check_dynamics
from yoco.sets.condensed_set import CondensedSet
from yoco.sets.fits import check_condensed
from yoco.utils import checks
from yoco.utils.lazy import pd, plt

CELL = 0.45  # inches: most of an image's side in a panel


def panels(count: int, width: float = 2.2) -> tuple[plt.Figure, Sequence[plt.Axes]]:
    """Return a new Figure and its row of `count` Axes to draw on."""
    figure, axes = style.subplots(1, count, width * count, width, squeeze=False)
    return figure, list(axes[0])


def multi_formation(images: Float[Tensor, "cells channels size size"], factor: int) -> plt.Figure:
    """Draw Fig. 1 of the appendix: pack, store, split and upsample factor² real images in 0..1."""
    size = images.shape[-1]
    condensed = formation.pack(images, factor, size)
    stages = [
        ("real images", images),
        ("shrunk to cells, packed:\nthe condensed image", condensed),
        ("split into cells", formation.cells(condensed, factor)),
        ("upsampled:\nthe formed images", formation.form(condensed, factor)),
    ]
    figure, axes = style.subplots(1, len(stages), 10, 3)
    for ax, (title, values) in zip(axes, stages):
        count = 1 if len(values) == 1 else factor
        show(ax, tiled(values, count, 0 if count == 1 else max(1, values.shape[-1] // 8)))
        ax.set_title(
            f"{title}\n{len(values)} of {values.shape[-1]}×{values.shape[-1]}", fontsize="small"
        )
    return figure


def before_and_after(
    start: CondensedSet, condensed: CondensedSet, per_class: int = 5
) -> plt.Figure:
    """Draw the start, not yet condensed, and the condensed set side by side."""
    rows = len(shown_classes(condensed))
    figure, axes = style.subplots(1, 2, 1.1 * per_class + 2.5, 0.55 * rows + 0.5)
    for ax, shown, title in zip(
        axes, (start, condensed), ("start: packed real images", "condensed")
    ):
        condensed_set(shown, per_class, title=title, ax=ax)
    return figure


def extremes(condensed: CondensedSet, score: Num[Tensor, "images"], count: int = 8) -> plt.Figure:
    """Draw the `count` easiest (left) and hardest (right) formed images of every class.

    score: one value per formed image; higher is harder. Returns the Figure. Raises TypeError or
    ValueError if it is anything else.
    """
    if checks.tensor("score", score, "[N]").shape != condensed.formed_labels.shape:
        raise ValueError(
            f"score must have shape {list(condensed.formed_labels.shape)}, one value per formed "
            f"image, got {list(score.shape)}"
        )
    formed, labels = condensed.pictures(condensed.form()[0]), condensed.formed_labels
    shown = shown_classes(condensed)
    count = min(count, int(labels.bincount().max()))
    figure, axes = style.subplots(1, 2, max(7, 1.2 * count + 2), 0.6 * len(shown) + 0.5)
    for ax, title, hard in zip(axes, ("easiest", "hardest"), (False, True)):
        rows = []
        for label in shown:
            members = torch.nonzero(labels == label).flatten()
            own = members[score[members].argsort(descending=hard, stable=True)[:count]]
            rows.append(filled(formed[own], count))
        title = f"{title} by this score{some_of(condensed)}"
        images(torch.cat(rows), count, title=title, ax=ax)
        if not hard:
            name_rows(ax, [condensed.classes[label] for label in shown], condensed.size)
    return figure


def progress(condensed: CondensedSet, per_class: int = 5) -> plt.Figure:
    """Draw the state of a condensation: its images and its loss so far (`.info` of the set).

    At most `per_class` images of each class are drawn. Returns the Figure. Raises ValueError if the
    set was not condensed.
    """
    check_condensed(condensed)
    figure, (left, right) = style.subplots(
        1, 2, 9.5, max(4, 0.25 * len(shown_classes(condensed)) + 0.5), width_ratios=(1, 1.4)
    )
    condensed_set(
        condensed,
        per_class,
        title=f"step {condensed.info['steps']} of {condensed.info['planned_steps']}",
        ax=left,
    )
    loss_curve(condensed, ax=right)
    return figure


def kept_by_method(
    condensed: CondensedSet, selections: Sequence[Selection], per_class: int = 10
) -> plt.Figure:
    """Draw each method's selection in its own panel: kept cells framed, dropped ones faded.

    Each panel has one row per class. The selections are of several methods, all from this set.
    """
    selections = checks.sequence("selections", selections)
    (rows, columns), shown = style.panels(len(selections)), min(per_class, condensed.ipc)
    height = min(11 / columns / shown, CELL) * len(shown_classes(condensed)) + 0.3
    budgets = " and ".join(
        str(budget) for budget in sorted({selection.ipc_to for selection in selections})
    )
    figure, axes = style.subplots(rows, columns, 11, rows * height + 0.3, squeeze=False)
    for ax, selection in zip(axes.flat, selections):
        empty = int((selection.per_class_counts == 0).sum())
        lost = f": {empty} {'class' if empty == 1 else 'classes'} lost" if empty else ""
        kept_and_dropped(
            condensed, selection, per_class, title=title_of(selection.method) + lost, ax=ax
        )
        for text in ax.texts if ax not in axes[:, 0] else ():
            text.set_visible(False)
    for ax in axes.flat[len(selections) :]:
        ax.axis("off")
    figure.suptitle(f"{condensed.ipc} → {budgets} images per class{some_of(condensed)}")
    return figure


def sample(condensed: CondensedSet, dynamics: Dynamics, index: int) -> plt.Figure:
    """Draw one formed image and how it fared over the training run.

    The charts show the probability of its label and its margin at the epochs whose logits were
    kept, and for every epoch whether it was classified correctly or was forgotten.

    Args:
        condensed: the set.
        dynamics: recorded on this set.
        index: index of the formed image, 0..N-1.

    Raises:
        TypeError, ValueError: if the index is invalid or the dynamics are of another set.
    """
    checks.whole("index", index, 0, len(condensed.formed_labels) - 1)
    check_dynamics(condensed, dynamics, "early", "a sample's course")
    figure = plt.figure(figsize=style.sized(7, 4.6))
    grid = figure.add_gridspec(3, 2, width_ratios=(1, 2.2), height_ratios=(4, 4, 1.2))
    picture = figure.add_subplot(grid[:, 0])
    image, cell = divmod(index, condensed.factor**2)
    row, column = divmod(cell, condensed.factor)
    show(picture, formed_image(condensed, index))
    name = style.literal(condensed.classes[condensed.formed_labels[index]])
    picture.set_title(
        (f"{name}\nformed image {index}:\ncondensed image {image},\nrow {row}, column {column}"),
        fontsize="small",
    )
    top, middle, bottom = (figure.add_subplot(grid[number, 1]) for number in range(3))
    epochs = dynamics.kept + 1
    trajectories(dynamics.label_probability([index]), epochs, ax=top)
    margins(margin(dynamics.logits[:, [index]], dynamics.labels[[index]]), epochs, ax=middle)
    right_and_wrong(dynamics.correct[:, index], ax=bottom)
    for ax in (top, middle):
        ax.set(xlabel="", xlim=bottom.get_xlim())
        ax.tick_params(labelbottom=False)
    return figure


def other_score(table: pd.DataFrame, x: str) -> str:
    """Return a score to plot against `x`: "aum" if the table has it, else the first other one."""
    others = [name for name in score_names(table) if name != x]
    return "aum" if "aum" in others else others[0] if others else x


def two_scores(
    condensed: CondensedSet,
    table: pd.DataFrame,
    x: str = "lbpe",
    y: str | None = None,
    *,
    label: int | None = None,
    count: int = 3,
    ax: plt.Axes | None = None,
) -> plt.Axes:
    """Plot two scores of the formed images against each other, with `count` images at each corner.

    The corner images are lowest or highest in both scores, or differ most between them by rank.

    Args:
        condensed: the set.
        table: from `prune.score_table`.
        x, y: columns of the table. y=None: "aum" if it is there, else another one than x.
        label: class whose points are filled and whose images stand in the corners (None: all
            classes).
        count: images per corner.
        ax: Axes to draw on (None: a new figure).

    Returns:
        The Axes.

    Raises:
        TypeError, ValueError: if a score or the class is unknown, or x and y are the same.
    """
    y = other_score(table, x) if y is None else y
    for name, value in (("x", x), ("y", y)):
        checks.one_of(name, value, score_names(table))
    if x == y:
        raise ValueError(f"x and y must be different scores, got {x!r} twice")
    if label is not None:
        checks.whole("label", label, 0, len(condensed.classes) - 1)
    ax = ax or style.axes(7, 5)
    chosen = table if label is None else table[table["label"] == label]
    named = "all classes" if label is None else style.literal(condensed.classes[label])
    ax.scatter(
        table[x],
        table[y],
        s=style.scaled(3.5) ** 2,
        facecolors="none",
        edgecolors="0.75",
        linewidths=style.scaled(0.8),
        label="other classes",
    )
    ax.scatter(chosen[x], chosen[y], s=style.scaled(3.8) ** 2, color=KEPT, marker="o", label=named)
    ax.margins(0.22)
    ax.set(xlabel=score_label(x), ylabel=score_label(y))
    _corners(ax, condensed, chosen[["index", x, y]], count)
    if label is not None:
        ax.legend(
            frameon=False, fontsize="small", loc="upper center", ncols=2, bbox_to_anchor=(0.5, 1.12)
        )
    return ax


def _corners(ax: plt.Axes, condensed: CondensedSet, points: pd.DataFrame, count: int) -> None:
    """Draw in each corner of `ax` the images farthest towards it by rank, joined to their points.

    points: columns index, x, y.
    """
    from matplotlib.patches import ConnectionPatch

    formed = condensed.pictures(condensed.form()[0])
    rank = points.iloc[:, 1:].rank()
    side = 0.07
    for right in (-1, 1):
        for up in (-1, 1):
            towards = right * rank.iloc[:, 0] + up * rank.iloc[:, 1]
            far = points.loc[
                towards.sort_values(ascending=False, kind="stable").index[:count]
            ].sort_values(points.columns[1])
            for place, (index, a, b) in enumerate(far.itertuples(index=False)):
                left = (
                    0.01 + place * side * 1.1
                    if right < 0
                    else 0.99 - (len(far) - place) * side * 1.1 + side * 0.1
                )
                box = ax.inset_axes((left, 0.01 if up < 0 else 0.99 - side * 1.4, side, side * 1.4))
                show(box, formed[int(index)])
                corner = (0.5, 1 if up < 0 else 0)
                line = ConnectionPatch(
                    corner,
                    (a, b),
                    "axes fraction",
                    "data",
                    axesA=box,
                    axesB=ax,
                    lw=style.scaled(0.6),
                    color=DROPPED,
                )
                ax.add_artist(line).set_in_layout(False)
