"""The look of all figures: colours, sizes for a notebook, a paper column and a slide, and files.

The colours can be told apart by colour-blind readers.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import matplotlib

from yoco.prune.methods import METHODS, OURS
from yoco.utils import checks, tensor_files
from yoco.utils.lazy import plt

# Okabe-Ito blue and vermilion, which colour-blind readers can tell apart
KEPT, DROPPED = "#0072B2", "#D55E00"
MARKERS = "oXs^vDPpd*h><"
# seaborn's "colorblind", its yellow last: on white it is hard to see
PALETTE = (
    "#0173b2",
    "#de8f05",
    "#029e73",
    "#d55e00",
    "#cc78bc",
    "#ca9161",
    "#fbafe4",
    "#949494",
    "#56b4e9",
    "#ece133",
)
MOST_NAME = 30  # characters of a name in a figure
UNIT = 7.0  # inches: width of a plain figure in a notebook; the widest figures have 11


@dataclass(frozen=True)
class Medium:
    """Where a figure is shown.

    Attributes:
        width: width of a plain figure in inches.
        lines: factor for the sizes in `LINES`.
        font: font size in points.
        dpi: resolution of saved figures.
    """

    width: float
    lines: float
    font: float
    dpi: int


MEDIA = {
    "notebook": Medium(UNIT, 1.0, 12, 150),
    # one of the two columns of a paper; the widest figures are 5.2 inches wide
    "column": Medium(3.3, 0.8, 7, 300),
    # the widest figures fill the 13.33 inches of a 16:9 slide
    "slide": Medium(8.5, 1.5, 16, 150),
}

# seaborn's "whitegrid" theme, written out: importing seaborn takes a second or two, and only
# drawing needs it
THEME = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.edgecolor": ".8",
    "grid.color": ".8",
    "axes.labelcolor": ".15",
    "text.color": ".15",
    "xtick.color": ".15",
    "ytick.color": ".15",
    "xtick.bottom": False,
    "ytick.left": False,
    "lines.solid_capstyle": "round",
    "patch.edgecolor": "w",
    "patch.force_edgecolor": True,
    "font.sans-serif": [
        "Arial",
        "DejaVu Sans",
        "Liberation Sans",
        "Bitstream Vera Sans",
        "sans-serif",
    ],
}
FONTS = ("font.size", "axes.labelsize", "axes.titlesize", "legend.title_fontsize")
SMALLER_FONTS = ("xtick.labelsize", "ytick.labelsize", "legend.fontsize")
LINES = {  # points, in a notebook
    "axes.linewidth": 1.25,
    "grid.linewidth": 1,
    "lines.linewidth": 1.5,
    "lines.markersize": 6,
    "patch.linewidth": 1,
    "xtick.major.width": 1.25,
    "ytick.major.width": 1.25,
    "xtick.minor.width": 1,
    "ytick.minor.width": 1,
    "xtick.major.size": 6,
    "ytick.major.size": 6,
    "xtick.minor.size": 4,
    "ytick.minor.size": 4,
}


def use_style(medium: str = "notebook") -> None:
    """Set the look of all figures; call it once, before drawing.

    It changes matplotlib's rcParams and no random state.

    Args:
        medium: "notebook", "column" (of a paper) or "slide".

    Raises:
        ValueError: if the medium is unknown.
    """
    chosen = MEDIA[checks.one_of("medium", medium, MEDIA)]
    look: dict[Any, Any] = {
        **THEME,
        **{name: size * chosen.lines for name, size in LINES.items()},
        **dict.fromkeys(FONTS, chosen.font),
        **dict.fromkeys(SMALLER_FONTS, 0.92 * chosen.font),
        "axes.prop_cycle": matplotlib.rcsetup.cycler("color", PALETTE),
        "figure.constrained_layout.use": True,
        "figure.figsize": (chosen.width, chosen.width * 0.45),
        "figure.dpi": 80,
        "savefig.dpi": chosen.dpi,
        "savefig.bbox": "tight",
        "pdf.fonttype": 42,
        "svg.fonttype": "none",
        "svg.hashsalt": "yoco",
    }
    matplotlib.rcParams.update(look)


def scaled(points: float) -> float:
    """Return the size, in the current medium, of a line or marker of `points` in a notebook."""
    return points * matplotlib.rcParams["figure.figsize"][0] / UNIT


def sized(width: float, height: float) -> tuple[float, float]:
    """Return the size in inches, in the current medium, of a width × height notebook figure."""
    return scaled(width), scaled(height)


def literal(text: str) -> str:
    """Return a user's name for a figure: on one line, shortened, with dollar signs escaped."""
    shown = checks.printable(text)
    if len(shown) > MOST_NAME:
        shown = f"{shown[: MOST_NAME // 2]}…{shown[-(MOST_NAME // 2 - 1) :]}"
    return shown.replace("$", r"\$")


def spread(count: int, most: int) -> list[int]:
    """Return at most `most` of the numbers 0..count-1, evenly spread, from the first to the last.

    most: at least 2.
    """
    shown = min(count, most)
    return [number * (count - 1) // max(1, shown - 1) for number in range(shown)]


def axes(width: float, height: float) -> plt.Axes:
    """Return the Axes of a new figure of `sized(width, height)`."""
    return subplots(1, 1, width, height)[1]


def subplots(
    rows: int, columns: int, width: float, height: float, **options: Any
) -> tuple[plt.Figure, Any]:
    """Return a new figure of `sized(width, height)` and its rows × columns Axes.

    options: passed on to matplotlib's `subplots`.
    """
    return plt.subplots(rows, columns, figsize=sized(width, height), **options)


def panels(count: int) -> tuple[int, int]:
    """Return the rows and columns, at most five, in which `count` panels leave least room empty."""
    rows = -(-count // 5)
    return rows, -(-count // rows)


def looks(methods: Iterable[str]) -> dict[str, dict]:
    """Return the colour, marker and sizes of each method's line, the same in every figure.

    The look of a pruning method follows from its position in `prune.METHODS`; YOCO is black and
    thick. Other names follow; methods for nested sets share the last look.
    """
    known = [name for name, method in METHODS.items() if not method.nested]
    others = [name for name in dict.fromkeys(methods) if name not in METHODS]
    # the colour of YOCO's position is free, as YOCO is black
    colours = [*PALETTE[:-1], "#5B2C83", PALETTE[known.index(OURS)], "#117733", PALETTE[-1]]
    found = {}
    for name in dict.fromkeys(methods):
        number = -1 if name in METHODS and METHODS[name].nested else [*known, *others].index(name)
        strong = name == OURS
        found[name] = {
            "color": "black" if strong else colours[number % len(colours)],
            "marker": MARKERS[number % len(MARKERS)],
            "lw": scaled(2.5 if strong else 1.2),
            "ms": scaled(6),
        }
    return found


def legend_above(ax: plt.Axes, columns: int) -> None:
    """Put the legend above the Axes, where no line or bar can cross it."""
    ax.legend(
        title=None,
        frameon=False,
        fontsize="small",
        ncols=columns,
        loc="lower left",
        bbox_to_anchor=(0, 1),
    )


def figure_of(drawn: plt.Figure | plt.Axes) -> plt.Figure:
    """Return the Figure itself, or the Figure that holds an Axes."""
    # none of our Axes is in a SubFigure
    return cast("plt.Figure", drawn if hasattr(drawn, "savefig") else drawn.figure)


def save(drawn: plt.Figure | plt.Axes, path: str | Path) -> Path:
    """Write a figure, or the figure of an Axes, to `path`.

    Args:
        drawn: the Figure or Axes.
        path: its extension gives the format (.png; .pdf and .svg for vectors). Without one, PNG
            and PDF are both written. The figure keeps the layout that it has then.

    Returns:
        The path that was written; if there are two, the PNG's.

    Raises:
        ValueError: if matplotlib does not know the extension.
        OSError: if the file cannot be written.
    """
    path = checks.path("path", path)
    made = [path] if path.suffix else [path.with_suffix(".png"), path.with_suffix(".pdf")]
    for file in made:
        # the same figure gives the same file
        undated = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(file.suffix)
        kind: dict[str, Any] = {"format": file.suffix.removeprefix("."), "metadata": undated}
        tensor_files.write_whole(file, functools.partial(figure_of(drawn).savefig, **kind))
        # its layout is done: the next file, and the notebook, need not do it again
        figure_of(drawn).set_layout_engine("none")
    return made[0]
