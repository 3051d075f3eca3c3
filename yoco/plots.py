"""Figures: each function takes data, draws on `ax` (or a new figure), and returns the Axes, or the Figure where it holds several."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor
from torchvision.utils import make_grid

from yoco import formation
from yoco.charts import (  # noqa: F401  figures are to be had in one place
    accuracy_bars,
    accuracy_by_budget,
    accuracy_by_bytes,
    bars,
    condensations,
    heat,
    imbalance,
    loss_curve,
)
from yoco.condensed import CondensedSet
from yoco.prune import Selection
from yoco.tables import title_of

FADED = 0.2  # weight of what pruning dropped
KEPT, DROPPED = "#0072B2", "#D55E00"  # Okabe-Ito blue and vermilion, which the colour-blind tell apart


def use_style() -> None:
    """The look of all figures: call it once at the top of a notebook."""
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind")
    plt.rcParams.update({"figure.constrained_layout.use": True, "figure.dpi": 80, "savefig.dpi": 150, "savefig.bbox": "tight"})


def save(figure: Figure | Axes, path: str | Path) -> Path:
    """Write a figure (of an Axes: its figure) to `path`, the kind by its ending."""
    figure = figure if isinstance(figure, Figure) else figure.figure
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return Path(path)


def pixels(images: Tensor) -> np.ndarray:
    """Images [C, H, W] in 0..1 (or uint8) -> what imshow takes, [H, W] or [H, W, 3]."""
    array = images.permute(1, 2, 0).squeeze(-1).numpy()
    return array if array.dtype == np.uint8 else array.clip(0, 1)


def _show(ax: Axes, image: Tensor) -> None:
    ax.imshow(pixels(image), cmap="gray", vmin=0, vmax=1 if image.is_floating_point() else 255, interpolation="nearest")
    ax.axis("off")


def panels(count: int, width: float = 2.2) -> tuple[Figure, Sequence[Axes]]:
    """A row of `count` Axes to draw on. Returns the Figure and the Axes."""
    figure, axes = plt.subplots(1, count, figsize=(width * count, width), squeeze=False)
    return figure, list(axes[0])


def images(values: Tensor, columns: int = 10, *, title: str = "", ax: Axes | None = None) -> Axes:
    """A grid of images [N, C, H, W] in 0..1, row after row. Returns the Axes."""
    if ax is None:
        rows = -(-len(values) // columns)
        _, ax = plt.subplots(figsize=(0.7 * columns, 0.7 * rows + 0.3))
    grid = make_grid(values, nrow=columns, padding=max(1, values.shape[-1] // 16), pad_value=1.0)
    _show(ax, grid[: values.shape[1]])
    ax.set_title(title)
    return ax


def condensed_set(condensed: CondensedSet, per_class: int = 10, *, title: str = "", ax: Axes | None = None) -> Axes:
    """A row of condensed images for every class, `per_class` of them at most, with the classes' names. Returns the Axes."""
    shown = min(per_class, condensed.ipc)
    chosen = [k * condensed.ipc + i for k in range(len(condensed.classes)) for i in range(shown)]
    ax = images(condensed.images[chosen], shown, title=title, ax=ax)
    _name_rows(ax, condensed.classes, condensed.size + max(1, condensed.size // 16))
    return ax


def _name_rows(ax: Axes, names: Sequence[str], height: float) -> None:
    for row, name in enumerate(names):
        ax.text(-height * 0.1, (row + 0.5) * height, name, ha="right", va="center", fontsize="small")


def multi_formation(images: Tensor, factor: int) -> Figure:
    """Fig. 1 of the appendix, drawn from factor² real images [factor², C, S, S] in 0..1: pack, store, split, restore."""
    size = images.shape[-1]
    condensed = formation.pack(images, factor, size)
    stages = [
        ("real images", images),
        ("shrunk to cells, packed:\nthe condensed image", condensed),
        ("split into cells", formation.cells(condensed, factor)),
        ("upsampled:\nthe formed images", formation.form(condensed, factor)),
    ]
    figure, axes = plt.subplots(1, len(stages), figsize=(10, 3))
    for ax, (title, values) in zip(axes, stages):
        count = 1 if len(values) == 1 else factor
        grid = make_grid(values, nrow=count, padding=0 if count == 1 else max(1, values.shape[-1] // 8), pad_value=1.0)
        _show(ax, grid[: values.shape[1]])
        ax.set_title(f"{title}\n{len(values)} of {values.shape[-1]}×{values.shape[-1]}", fontsize="small")
    return figure


def before_and_after(start: CondensedSet, condensed: CondensedSet, per_class: int = 5) -> Figure:
    """The uncondensed start and the condensed set, side by side."""
    figure, axes = plt.subplots(1, 2, figsize=(1.1 * per_class + 2.5, 0.55 * len(condensed.classes) + 0.5))
    for ax, shown, title in zip(axes, (start, condensed), ("start: packed real images", "condensed")):
        condensed_set(shown, per_class, title=title, ax=ax)
    return figure


def score_distributions(table: pd.DataFrame, scores: Sequence[str]) -> Figure:
    """The distribution of each score over the formed images, and per class below. `table` from `prune.score_table`."""
    figure, axes = plt.subplots(2, len(scores), figsize=(3 * len(scores), 6), squeeze=False)
    for column, score in enumerate(scores):
        counts = bool((table[score] % 1 == 0).all())
        sns.histplot(table, x=score, bins="auto" if counts else 30, discrete=counts, ax=axes[0, column])
        sns.violinplot(table, x=score, y="class", color="#56B4E9", cut=0, density_norm="width", linewidth=0.8, ax=axes[1, column])
        axes[0, column].set(xlabel="", ylabel="formed images" if column == 0 else "", title=score)
        axes[1, column].set(xlabel=f"{score} ({'low' if score == 'aum' else 'high'} is hard)", ylabel="")
        if column:
            axes[1, column].set_yticklabels([])
    return figure


def rank_correlations(table: pd.DataFrame, scores: Sequence[str], *, ax: Axes | None = None) -> Axes:
    """Spearman correlation of the scores, AUM turned round so that high is hard everywhere. Returns the Axes."""
    ax = ax or plt.subplots(figsize=(5, 4))[1]
    hardness = table[list(scores)].assign(**({"aum": -table["aum"]} if "aum" in scores else {}))
    sns.heatmap(hardness.corr("spearman"), vmin=-1, vmax=1, cmap="vlag", annot=True, fmt=".2f", square=True, ax=ax)
    return ax


def extremes(condensed: CondensedSet, score: Tensor, count: int = 8) -> Figure:
    """The `count` easiest (left) and hardest (right) formed images of every class; score [N], high is hard."""
    formed, labels = condensed.form()
    figure, axes = plt.subplots(1, 2, figsize=(1.2 * count + 2, 0.6 * len(condensed.classes) + 0.5))
    for ax, title, hard in zip(axes, ("easiest", "hardest"), (False, True)):
        rows = []
        for label in range(len(condensed.classes)):
            members = torch.nonzero(labels == label).flatten()
            rows.append(members[score[members].argsort(descending=hard, stable=True)[:count]])
        images(formed[torch.cat(rows)], len(rows[0]), title=f"{title} by this score", ax=ax)
        if not hard:
            _name_rows(ax, condensed.classes, condensed.size + max(1, condensed.size // 16))
    return figure


def trajectories(probability: Tensor, epochs: Tensor, names: Sequence[str], *, ax: Axes | None = None) -> Axes:
    """Probability of the own label over the epochs: [E, n], at `epochs` [E], a line for each of `names` [n]. Returns the Axes."""
    ax = ax or plt.subplots(figsize=(7, 3))[1]
    for line, name in zip(probability.T, names):
        ax.plot(epochs, line, marker="o", ms=3, label=name)
    ax.set(xlabel="epoch", ylabel="probability of the label", ylim=(0, 1))
    ax.legend(frameon=False, fontsize="small")
    return ax


def class_balance(balance: pd.DataFrame, even: int) -> Figure:
    """Bars of what each method keeps of each class at one budget (rows of `study.class_balance`); `even`: a balanced share."""
    methods = list(dict.fromkeys(balance.method))
    rows = -(-len(methods) // 4)
    figure, axes = plt.subplots(rows, 4, figsize=(11, 2.2 * rows + 0.6), sharex=True, sharey=True, squeeze=False)
    for ax, method in zip(axes.flat, methods):
        sns.barplot(balance[balance.method == method], x="class", y="kept", color=KEPT, ax=ax)
        ax.axhline(even, color=DROPPED, lw=1.5, ls="--")
        ax.tick_params(axis="x", rotation=90)
        ax.set(title=title_of(method), xlabel="", ylabel="kept")
    for ax in axes.flat[len(methods) :]:
        ax.axis("off")
    return figure


def kept_and_dropped(condensed: CondensedSet, selection: Selection, per_class: int = 10, *, ax: Axes | None = None) -> Axes:
    """The condensed set with the kept cells framed and the dropped ones faded, a row a class. Returns the Axes."""
    shown, factor, size = min(per_class, condensed.ipc), condensed.factor, condensed.size
    kept = torch.zeros(len(condensed.formed_labels), dtype=torch.bool)
    kept[selection.indices] = True
    if ax is None:
        _, ax = plt.subplots(figsize=(0.7 * shown, 0.7 * len(condensed.classes) + 0.3))
    side, step = formation.cell_size(size, factor), size + max(1, size // 16)
    faded = condensed.images.clone()
    for number in torch.nonzero(~kept).flatten().tolist():
        image, rows, columns = _cell(number, factor, side)
        faded[image, :, rows, columns] = 1 - FADED * (1 - faded[image, :, rows, columns])
    title = f"{title_of(selection.method)}: {condensed.ipc} → {selection.ipc_to} images a class"
    condensed_set(replace(condensed, images=faded), shown, title=title, ax=ax)
    for number in selection.indices.tolist():
        image, rows, columns = _cell(number, factor, side)
        label, position = divmod(image, condensed.ipc)
        if position < shown:
            corner = (position * step + columns.start + step - size - 0.5, label * step + rows.start + step - size - 0.5)
            ax.add_patch(Rectangle(corner, side, side, fill=False, ec=KEPT, lw=1.2))
    return ax


def _cell(number: int, factor: int, side: int) -> tuple[int, slice, slice]:
    image, cell = divmod(number, factor**2)
    row, column = divmod(cell, factor)
    return image, slice(row * side, (row + 1) * side), slice(column * side, (column + 1) * side)


