"""Charts of scores over images, and of what an image showed over the epochs.

Each function draws on `ax` (or a new figure) and returns the Axes, or the Figure if it holds
several.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Bool, Float, Int
from torch import Tensor

from yoco.plots import style
from yoco.prune.ranking import score_names
from yoco.scores import SCORES
from yoco.utils import checks
from yoco.utils.lazy import pd, plt, sns

VIOLINS = 20  # most classes whose distributions are drawn


def score_label(score: str) -> str:
    """Return a score's axis label: name or unit, and direction."""
    known = SCORES.get(score)  # the user's own columns are not registered
    return f"{known.unit} ({known.direction} is hard)" if known else f"{score} (high is hard)"


def _known(table: pd.DataFrame, scores: Sequence[str]) -> list[str]:
    named = checks.sequence("scores", scores)
    return [checks.one_of("scores", score, score_names(table)) for score in named]


def score_distributions(table: pd.DataFrame, scores: Sequence[str]) -> plt.Figure:
    """Plot the distribution of each score over the formed images, and below it per class.

    `table` comes from `prune.score_table`. Of more than `VIOLINS` classes, as many are drawn.
    Returns the Figure. Raises TypeError or ValueError if a score is unknown.
    """
    scores = _known(table, scores)
    classes = list(dict.fromkeys(table["class"]))
    names = [classes[number] for number in style.spread(len(classes), VIOLINS)]
    some = f"{len(names)} of {len(classes)} classes" if len(names) < len(classes) else ""
    below = max(3, 0.22 * len(names) + 0.5)
    width = max(5, min(11, 3 * len(scores)))
    figure, axes = style.subplots(
        2, len(scores), width, 3 + below, squeeze=False, height_ratios=(3, below)
    )
    for column, score in enumerate(scores):
        counts = bool((table[score] % 1 == 0).all())
        sns.histplot(
            table, x=score, bins="auto" if counts else 30, discrete=counts, ax=axes[0, column]
        )
        sns.violinplot(
            table[table["class"].isin(names)],
            x=score,
            y="class",
            order=names,
            color="#56B4E9",
            cut=0,
            density_norm="width",
            linewidth=style.scaled(0.8),
            ax=axes[1, column],
        )
        axes[0, column].set(xlabel="", ylabel="formed images" if column == 0 else "")
        axes[1, column].set(xlabel=score_label(score).replace(" (", "\n("))
        axes[1, column].set_ylabel("" if column else some)
        axes[1, column].set_yticks(
            range(len(names)), [""] * len(names) if column else map(style.literal, names)
        )
    return figure


def rank_correlations(
    table: pd.DataFrame, scores: Sequence[str], *, ax: plt.Axes | None = None
) -> plt.Axes:
    """Plot the Spearman correlations of the scores, negating those whose low end is hard.

    Returns the Axes. Raises TypeError or ValueError if a score is unknown.
    """
    scores = _known(table, scores)
    ax = ax or style.axes(6.2, 5)
    low = [name for name in scores if name in SCORES and SCORES[name].direction == "low"]
    named = (
        table[list(scores)]
        .assign(**{name: -table[name] for name in low})
        .rename(columns={name: f"−{name}" for name in low})
    )
    sns.heatmap(
        named.corr("spearman"),
        vmin=-1,
        vmax=1,
        cmap="vlag",
        annot=True,
        fmt=".2f",
        square=True,
        cbar_kws={"label": "Spearman correlation"},
        ax=ax,
    )
    ax.tick_params(axis="x", rotation=30)
    ax.tick_params(axis="y", rotation=0)
    return ax


def trajectories(
    probability: Float[Tensor, "epochs images"],
    epochs: Int[Tensor, "epochs"],
    names: Sequence[str] = (),
    *,
    ax: plt.Axes | None = None,
) -> plt.Axes:
    """Plot the probability of an image's label over the epochs.

    Args:
        probability: of each image, in 0..1.
        epochs: numbers of the epochs.
        names: one per image; a single one needs none.
        ax: Axes to draw on (None: a new figure).

    Returns:
        The Axes.
    """
    ax = _over_epochs(probability, epochs, names, ax)
    ax.set(ylabel="probability\nof the label", ylim=(-0.03, 1.03))
    return ax


def margins(
    margin: Float[Tensor, "epochs images"],
    epochs: Int[Tensor, "epochs"],
    names: Sequence[str] = (),
    *,
    ax: plt.Axes | None = None,
) -> plt.Axes:
    """Plot the margin over the epochs, with arguments as `trajectories`. Returns the Axes.

    The margin is the logit of the label minus the largest other logit: below 0 if the network is
    wrong.
    """
    ax = _over_epochs(margin, epochs, names, ax)
    ax.axhline(0, color="0.4", lw=style.scaled(1))
    ax.set_ylabel("margin\n(logits)")
    return ax


def _over_epochs(
    values: Tensor, epochs: Tensor, names: Sequence[str], ax: plt.Axes | None
) -> plt.Axes:
    ax = ax or style.axes(7, 3)
    for number, line in enumerate(values.T):
        ax.plot(
            epochs,
            line,
            ms=style.scaled(5),
            lw=style.scaled(0.8),
            label=names[number] if names else None,
            marker=style.MARKERS[number % len(style.MARKERS)],
            ls=("-", "--", ":", "-.")[number % 4],
        )
    ax.set_xlabel("epoch (marks: epochs whose logits were kept)")
    if names:
        style.legend_above(ax, len(names))
    return ax


def right_and_wrong(correct: Bool[Tensor, "epochs"], *, ax: plt.Axes | None = None) -> plt.Axes:
    """Draw when one image was right and when wrong: one light or dark stripe per epoch.

    A mark shows each epoch in which it was forgotten (right before, wrong now). Returns the Axes.
    """
    ax = ax or style.axes(7, 1)
    ax.imshow(
        correct[None].numpy(),
        aspect="auto",
        cmap="gray",
        vmin=-0.6,
        vmax=1.1,
        extent=(0.5, len(correct) + 0.5, 0, 1),
        interpolation="nearest",
    )
    at = (correct[:-1] & ~correct[1:]).nonzero().flatten() + 2  # epochs are counted from 1
    (marks,) = ax.plot(
        at, [1.25] * len(at), "v", ms=style.scaled(3), color=style.DROPPED, clip_on=False
    )
    marks.set_in_layout(len(at) > 0)  # without points it would take room up to the figure's corner
    ax.grid(False)
    ax.set(
        xlabel=f"epoch (light: right, dark: wrong, ▾: forgotten, {len(at)}×)",
        yticks=[],
        xlim=(0.5, len(correct) + 0.5),
    )
    return ax
