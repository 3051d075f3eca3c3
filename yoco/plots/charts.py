"""Charts of studies: losses, what is kept of each class, accuracies.

Each function draws on `ax` (or a new figure) and returns the Axes, or the Figure if it holds
several.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from yoco.condense.methods import METHODS as CONDENSATIONS
from yoco.experiments.noise import CLEAN
from yoco.experiments.tables import title_of
from yoco.plots import style
from yoco.sets.condensed_set import CondensedSet
from yoco.sets.fits import check_condensed
from yoco.utils.lazy import pd, plt, sns

NAMES = 12  # names that fit under the bars of a panel


def _dots(ax: plt.Axes, **options: Any) -> None:
    """Draw Seaborn's stripplot with our own jitter; the global random state stays unchanged."""
    before, source, drawn = len(ax.collections), np.random.default_rng(0), np.random.get_state()
    sns.stripplot(**options, jitter=False, ax=ax)
    np.random.set_state(drawn)  # seaborn draws its jitter even if the width is 0
    for dots in ax.collections[before:]:
        x, y = np.asarray(dots.get_offsets(), dtype=float).reshape(-1, 2).T
        dots.set_offsets(np.stack([x + source.uniform(-0.08, 0.08, len(x)), y], axis=1))


def _asides(count: int) -> list[float]:
    """Return how far each of `count` lines is moved along x, so that equal values can be seen."""
    return [(number - (count - 1) / 2) * 0.03 for number in range(count)]


def loss_curve(condensed: CondensedSet, *, ax: plt.Axes | None = None) -> plt.Axes:
    """Plot the loss over the steps of a condensation. Returns the Axes.

    A method that trains networks in turn also gets the running mean over one network's life. Raises
    ValueError if the set was not condensed.
    """
    check_condensed(condensed)
    ax = ax or style.axes(7, 3)
    every, loss = condensed.info["loss_every"], pd.Series(condensed.info["loss"])
    steps = (np.arange(len(loss)) + 1) * every
    alone = "o" if len(loss) == 1 else ""  # a line needs two points
    ax.plot(steps, loss, marker=alone, lw=style.scaled(0.8), alpha=0.5, label="each step")
    method = CONDENSATIONS.get(condensed.method)  # None if it is no longer registered
    life = condensed.info["settings"].get("inner_loops")
    if life:
        ax.plot(
            steps,
            loss.rolling(max(1, round(life / every)), min_periods=1).mean(),
            lw=style.scaled(2),
            label="mean over a network's life",
        )
        ax.legend(frameon=False)
    ax.set(xlabel="image step", ylabel=method.loss if method else "loss", ylim=(0, None))
    return ax


def class_balance(balance: pd.DataFrame, even: int) -> plt.Figure:
    """Draw bars of what each method keeps of each class at one budget. Returns the Figure.

    balance: rows of `tables.class_balance`. even: the share per class of a balanced selection, in
    formed images. Of many classes, every bar is drawn but not every name is written.
    """
    methods, names = list(dict.fromkeys(balance.method)), list(dict.fromkeys(balance["class"]))
    named = style.spread(len(names), NAMES)
    rows, columns = style.panels(len(methods))
    figure, axes = style.subplots(
        rows, columns, 11, 2.2 * rows + 0.6, sharex=True, sharey=True, squeeze=False
    )
    for ax, method in zip(axes.flat, methods):
        kept = balance[balance.method == method].groupby("class")["kept"].mean().reindex(names)
        ax.bar(range(len(names)), kept, color=sns.desaturate(style.KEPT, 0.75))
        ax.set_xticks(named, [style.literal(names[number]) for number in named])
        ax.grid(False, axis="x")
        ax.axhline(even, color=style.DROPPED, lw=style.scaled(1.5), ls="--")
        ax.tick_params(axis="x", rotation=90)
        ax.set(title=title_of(method), xlim=(-0.5, len(names) - 0.5))
    for ax in axes.flat[len(methods) :]:
        ax.axis("off")
    axes[0, 0].yaxis.get_major_locator().set_params(integer=True)  # they share it
    figure.supylabel("formed images kept")
    return figure


def accuracy_bars(table: pd.DataFrame, *, ax: plt.Axes | None = None) -> plt.Axes:
    """Draw the accuracy of each subset over its seeds; `table` as `evaluate_many` returns it.

    Returns the Axes.
    """
    ax = ax or style.axes(4, 3)
    sns.barplot(table, x="subset", y="accuracy", hue="subset", errorbar="sd", capsize=0.1, ax=ax)
    _dots(ax, data=table, x="subset", y="accuracy", color="black", size=style.scaled(4))
    ax.set(xlabel="", ylabel="test accuracy (%)")
    return ax


def condensations(table: pd.DataFrame, *, ax: plt.Axes | None = None) -> plt.Axes:
    """Draw the accuracy of condensation methods next to the accuracy of their starts.

    `table` comes from `study.condensations`. Returns the Axes.
    """
    ax = ax or style.axes(6, 3)
    spread = {"errorbar": "sd", "capsize": 0.1, "dodge": 0.3, "linestyle": "none"}
    sns.pointplot(
        table, x="method", y="accuracy", hue="subset", markers=["o", "D"], ax=ax, **spread
    )
    ax.set(xlabel="", ylabel="test accuracy (%)")
    ax.legend(title=None, frameon=False, fontsize="small", ncols=2)
    return ax


def imbalance(table: pd.DataFrame, *, ax: plt.Axes | None = None) -> plt.Axes:
    """Plot how many classes each method leaves without images, against the budget.

    `table` has the columns method, ipc_to, missing. Returns the Axes.
    """
    ax = ax or style.axes(6, 3.5)
    found = style.looks(table.method)
    for aside, (method, look) in zip(_asides(len(found)), found.items()):
        rows = table[table.method == method]
        ax.plot(rows.ipc_to + aside, rows.missing, label=title_of(method), **look)
    ax.set(
        xlabel="IPC_T (images per class)",
        ylabel="classes left without\nany image",
        xticks=sorted(table.ipc_to.unique()),
    )
    ax.locator_params("y", integer=True)
    ax.legend(frameon=False, fontsize="x-small", ncols=2)
    return ax


def accuracy_by_budget(
    summary: pd.DataFrame, published: pd.DataFrame | None = None, *, ax: plt.Axes | None = None
) -> plt.Axes:
    """Plot each method's accuracy with standard deviations against the budget.

    The paper's values are drawn in outline if it has them.

    Args:
        summary: from `tables.summary`.
        published: from `paper.beside`.
        ax: Axes to draw on (None: a new figure).

    Returns:
        The Axes.
    """
    ax = ax or style.axes(7, 4.5)
    found = style.looks(summary.method)
    for aside, (method, look) in zip(_asides(len(found)), found.items()):
        rows = summary[summary.method == method]
        ax.errorbar(
            rows.ipc_to + aside,
            rows["mean"],
            rows["std"].fillna(0),
            capsize=2,
            label=title_of(method),
            **look,
        )
        if published is not None:
            theirs = published[published.method == method]
            ax.plot(
                theirs.ipc_to + aside,
                theirs["mean"],
                look["marker"],
                mfc="none",
                mec=look["color"],
                ms=style.scaled(9),
            )
    if published is not None:
        ax.plot([], [], "o", mfc="none", mec="black", ms=style.scaled(9), label="paper")
    budgets = sorted(summary.ipc_to.unique())
    ax.set(
        xlabel="IPC_T (images per class)",
        ylabel="test accuracy (%)",
        xticks=budgets,
        xlim=(budgets[0] - 0.5, budgets[-1] + 0.5),
    )
    style.legend_above(ax, 4)
    return ax


def accuracy_by_bytes(table: pd.DataFrame, *, ax: plt.Axes | None = None) -> plt.Axes:
    """Plot each method's accuracy against the bytes of its prefixes on a log scale.

    Lines of float32 cells are dashed. `table` comes from `study.by_bytes`. Returns the Axes.
    """
    ax = ax or style.axes(7, 4)
    for method, look in style.looks(table["method"]).items():
        for stored, rows in table[table["method"] == method].groupby("stored", sort=False):
            accuracy = rows.groupby("bytes")["accuracy"].agg(["mean", "std"])
            name, line = (
                (title_of(method), "-")
                if stored == "uint8"
                else ((f"{title_of(method)}, {stored}"), "--")
            )
            ax.errorbar(
                accuracy.index,
                accuracy["mean"],
                accuracy["std"].fillna(0),
                capsize=2,
                ls=line,
                label=name,
                **look,
            )
    ax.set(xscale="log", xlabel="bytes of cells (log scale)", ylabel="test accuracy (%)")
    ax.locator_params("x", subs=(1, 2, 5))
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.minorticks_off()
    style.legend_above(ax, 4)
    return ax


def bars(
    table: pd.DataFrame,
    x: str,
    hue: str | None = None,
    *,
    y: str = "accuracy",
    label: str = "test accuracy (%)",
    ax: plt.Axes | None = None,
) -> plt.Axes:
    """Draw means of column `y` by column `x` (and `hue`), with one dot per run. Returns the Axes.

    Whiskers are standard deviations. Pruning methods are shown by their titles.
    """
    least = 3.5 if hue is None else 6  # inches that a legend of two columns needs
    ax = ax or style.axes(max(least, min(11, 2 + 1.1 * table[x].nunique())), 3.2)
    shown = table.assign(
        **{name: table[name].map(lambda value: title_of(str(value))) for name in (x, hue) if name}
    )
    options = {"data": shown, "x": x, "y": y}
    sns.barplot(
        **options, hue=hue, errorbar="sd", capsize=0.15, err_kws={"lw": style.scaled(1.2)}, ax=ax
    )
    _dots(
        ax,
        **options,
        hue=hue or x,
        dodge=hue is not None,
        palette="dark:black",
        size=style.scaled(2.5),
        legend=False,
    )
    ax.set(xlabel="", ylabel=label)
    if hue is not None:
        style.legend_above(ax, 2)
    return ax


def by_damage(
    table: pd.DataFrame,
    y: str = "accuracy",
    label: str = "test accuracy (%)",
    *,
    chance: bool = False,
) -> plt.Figure:
    """Plot means of column `y` against the percentage of damaged images.

    There is one panel per kind of damage and one line per rule; each line starts from the rows
    without damage.

    Args:
        table: rows of one place and budget of `noise.compare`.
        y: column of the table.
        label: label of the y axis.
        chance: also draw what a random choice gives: the damaged share of the set.

    Returns:
        The Figure.
    """
    kinds = [kind for kind in table["kind"].unique() if kind != CLEAN]
    columns = min(3, len(kinds) + 1)  # the legend takes the last panel
    rows = -(-(len(kinds) + 1) // columns)
    figure, axes = style.subplots(
        rows, columns, 3.4 * columns, 3 * rows, sharey=True, squeeze=False
    )
    for ax, kind in zip(axes.flat, kinds):
        part = table[table["kind"].isin([CLEAN, kind])]
        for rule, look in style.looks(part["method"]).items():
            means = part[part["method"] == rule].groupby("percent")[y].mean().dropna()
            ax.plot(means.index, means, label=title_of(rule), **look)
        if chance:
            ax.plot(
                [0, part["percent"].max()],
                [0, part["percent"].max()],
                ls="--",
                color="0.4",
                lw=style.scaled(1.5),
                label="random choice (expected)",
            )
        ax.set(
            title=kind.replace("_", "-"),
            xlabel="damaged (%)",
            xticks=sorted(part["percent"].unique()),
        )
    for ax in axes[:, 0]:
        ax.set_ylabel(label)
    for ax in axes.flat[len(kinds) :]:
        ax.axis("off")
    axes.flat[len(kinds)].legend(
        *axes[0, 0].get_legend_handles_labels(),
        frameon=False,
        fontsize="small",
        loc="center",
        ncols=2,
    )
    return figure


def heat(
    table: pd.DataFrame,
    index: str,
    columns: str,
    *,
    y: str = "accuracy",
    label: str = "test accuracy (%)",
    digits: int = 1,
    ax: plt.Axes | None = None,
) -> plt.Axes:
    """Draw means of column `y` over a grid of two columns, with their values in the squares.

    digits: decimals of the values. Returns the Axes, which say so if there is no value.
    """
    means = table.pivot_table(index=index, columns=columns, values=y, sort=False)
    if means.empty:
        ax = ax or style.axes(5, 1)
        ax.text(0.5, 0.5, f"no {label}", ha="center", va="center", transform=ax.transAxes)
        ax.axis("off")
        return ax
    names = max(len(str(name)) for name in means.index)
    ax = ax or style.axes(
        max(5, 0.9 * means.shape[1] + 0.1 * names + 1.3), max(3.2, 0.35 * means.shape[0] + 1.2)
    )
    signed = {"cmap": "vlag", "center": 0} if (means < 0).any(axis=None) else {"cmap": "cividis"}
    sns.heatmap(means, annot=True, fmt=f".{digits}f", cbar_kws={"label": label}, ax=ax, **signed)
    ax.tick_params(axis="y", rotation=0)
    return ax
