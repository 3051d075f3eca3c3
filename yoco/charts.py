"""Charts of numbers: losses, accuracies, agreement. Each draws on `ax` (or a new figure) and returns the Axes."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from yoco.condensed import CondensedSet
from yoco.tables import title_of


def loss_curve(condensed: CondensedSet, *, ax: Axes | None = None) -> Axes:
    """The loss over the steps of a condensation, with its running mean over one network's life. Returns the Axes."""
    ax = ax or plt.subplots(figsize=(7, 3))[1]
    every, loss = condensed.info["loss_every"], pd.Series(condensed.info["loss"])
    steps = (np.arange(len(loss)) + 1) * every
    window = max(1, round(condensed.info["settings"]["inner_loops"] / every))
    ax.plot(steps, loss, lw=0.8, alpha=0.5, label="each step")
    ax.plot(steps, loss.rolling(window, min_periods=1).mean(), lw=2, label="mean over a network's life")
    ax.set(xlabel="image step", ylabel="distance of gradients", ylim=(0, None))
    ax.legend(frameon=False)
    return ax


def accuracy_bars(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Accuracy of each subset over its seeds; `table` as `evaluate_many` returns it. Returns the Axes."""
    ax = ax or plt.subplots(figsize=(4, 3))[1]
    sns.barplot(table, x="subset", y="accuracy", hue="subset", errorbar="sd", capsize=0.1, ax=ax)
    sns.stripplot(table, x="subset", y="accuracy", color="black", size=4, ax=ax)
    ax.set(xlabel="", ylabel="test accuracy (%)")
    return ax


def condensations(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Accuracy of condensation methods beside their starts; `table` of `study.condensations`. Returns the Axes."""
    ax = ax or plt.subplots(figsize=(6, 3))[1]
    sns.barplot(table, x="method", y="accuracy", hue="subset", errorbar="sd", capsize=0.1, ax=ax)
    ax.set(xlabel="", ylabel="test accuracy (%)", ylim=(max(0, table.accuracy.min() - 10), None))
    ax.legend(title=None, frameon=False, fontsize="small", ncols=2)
    return ax


def imbalance(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """How uneven each method's classes are, against the budget: columns method, ipc_to, missing. Returns the Axes."""
    ax = ax or plt.subplots(figsize=(6, 3.5))[1]
    named = table.assign(method=table.method.map(title_of))
    sns.lineplot(named, x="ipc_to", y="missing", hue="method", style="method", markers=True, dashes=False, ax=ax)
    ax.set(xlabel="IPC_T", ylabel="classes left without\nany image", xticks=sorted(table.ipc_to.unique()))
    ax.legend(frameon=False, fontsize="x-small", ncols=2)
    return ax


def accuracy_by_budget(summary: pd.DataFrame, published: pd.DataFrame | None = None, *, ax: Axes | None = None) -> Axes:
    """Accuracy of each method against the budget with standard deviations; the paper's in outline, where it has them.

    summary: of `tables.summary`; published: of `paper.beside`. Returns the Axes.
    """
    ax = ax or plt.subplots(figsize=(7, 4.5))[1]
    methods = list(dict.fromkeys(summary.method))
    for offset, (method, colour) in enumerate(zip(methods, sns.color_palette("colorblind", len(methods)))):
        rows = summary[summary.method == method]
        x = rows.ipc_to + (offset - len(methods) / 2) * 0.03
        colour, style = ("black", {"lw": 3, "zorder": 3}) if method == "yoco" else (colour, {"lw": 1.2})
        ax.errorbar(x, rows["mean"], rows["std"].fillna(0), marker="o", capsize=2, color=colour, label=title_of(method), **style)
        if published is not None:
            theirs = published[published.method == method]
            ax.plot(theirs.ipc_to + (offset - len(methods) / 2) * 0.03, theirs["mean"], "D", mfc="none", mec=colour, ms=5)
    if published is not None:
        ax.plot([], [], "D", mfc="none", mec="black", label="paper")
    ax.set(xlabel="IPC_T (images a class)", ylabel="test accuracy (%)", xticks=sorted(summary.ipc_to.unique()))
    ax.legend(frameon=False, fontsize="small", ncols=2)
    return ax


def accuracy_by_bytes(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Accuracy of each method's prefixes against their bytes, log scale; float32 cells dashed. `table` of `study.by_bytes`. Returns the Axes."""
    ax = ax or plt.subplots(figsize=(7, 4))[1]
    methods = list(dict.fromkeys(table["method"]))
    colours = dict(zip(map(title_of, methods), sns.color_palette("colorblind", len(methods)))) | {title_of("yoco"): "black"}
    titled = table.assign(method=table["method"].map(title_of))
    sns.lineplot(titled, x="bytes", y="accuracy", hue="method", palette=colours, style="stored", markers=True, errorbar="sd", ax=ax)
    ax.set(xscale="log", xlabel="bytes of cells (log scale)", ylabel="test accuracy (%)")
    ax.legend(frameon=False, fontsize="small", ncols=2)
    return ax


def bars(
    table: pd.DataFrame, x: str, hue: str | None = None, *, y: str = "accuracy", label: str = "test accuracy (%)", ax: Axes | None = None
) -> Axes:
    """Means of column `y` by column `x` (and `hue`), standard deviations as whiskers, each run as a dot. Returns the Axes.

    Names of pruning methods are shown by their titles.
    """
    ax = ax or plt.subplots(figsize=(min(11, 2 + 1.1 * table[x].nunique()), 3.2))[1]
    shown = table.assign(**{name: table[name].map(lambda value: title_of(str(value))) for name in (x, hue) if name})
    options = {"data": shown, "x": x, "y": y, "hue": hue, "ax": ax}
    sns.barplot(**options, errorbar="sd", capsize=0.15, err_kws={"lw": 1.2})
    sns.stripplot(**{**options, "hue": hue or x}, dodge=hue is not None, palette="dark:black", size=2.5, legend=False)
    ax.set(xlabel="", ylabel=label)
    if hue is not None:
        ax.legend(title=None, frameon=False, fontsize="small", ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return ax


def heat(table: pd.DataFrame, index: str, columns: str, *, y: str = "accuracy", label: str = "test accuracy (%)", ax: Axes | None = None) -> Axes:
    """Means of column `y` over a grid of two columns, the numbers in the squares. Returns the Axes."""
    ax = ax or plt.subplots(figsize=(5, 3.2))[1]
    means = table.pivot_table(index=index, columns=columns, values=y, sort=False)
    sns.heatmap(means, annot=True, fmt=".1f", cmap="cividis", cbar_kws={"label": label}, ax=ax)
    return ax
