"""The look of all figures: colours that the colour-blind tell apart, sizes for a notebook, a paper
column and a slide, and files.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import matplotlib

from yoco.prune.methods import METHODS, OURS
from yoco.utils import checks, tensor_files
from yoco.utils.lazy import plt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe-Ito blue and vermilion, which the colour-blind tell apart
KEPT, DROPPED = "#0072B2", "#D55E00"
MARKERS = "oXs^vDPpd*h><"
# seaborn's "colorblind"
PALETTE = (
    "#0173b2",
    "#de8f05",
    "#029e73",
    "#d55e00",
    "#cc78bc",
    "#ca9161",
    "#fbafe4",
    "#949494",
    "#ece133",
    "#56b4e9",
)
UNIT = 7.0  # inches: the width of a plain figure in a notebook; the widest are 11


@dataclass(frozen=True)
class Medium:
    """Where a figure is shown. width: inches of a plain figure; lines: factor for the sizes in
    `LINES`; font: points.
    """

    width: float
    lines: float
    font: float
    dpi: int


MEDIA = {
    "notebook": Medium(UNIT, 1.0, 12, 150),
    # one of two columns of a paper; the widest figures take 5.2 inches
    "column": Medium(3.3, 0.8, 7, 300),
    # of the 13.33 inches of a 16:9 slide, which the widest figures fill
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
    """The look of all figures, for "notebook", a paper's "column" or a "slide": call it once,
    before drawing.

    It sets matplotlib's rcParams, and no random state. Raises ValueError at an unknown medium.
    """
    chosen = MEDIA[checks.one_of("medium", medium, MEDIA)]
    look: dict[Any, Any] = {
        **THEME,
        **{name: size * chosen.lines for name, size in LINES.items()},
        **_fonts(chosen.font),
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


def _fonts(size: float) -> dict[str, float]:
    plain = dict.fromkeys(
        ("font.size", "axes.labelsize", "axes.titlesize", "legend.title_fontsize"), size
    )
    return {
        **plain,
        **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 0.92 * size),
    }


def scaled(points: float) -> float:
    """Of a line or a marker: its size in the medium that `use_style` set, where it has `points` in
    a notebook.
    """
    return points * matplotlib.rcParams["figure.figsize"][0] / UNIT


def sized(width: float, height: float) -> tuple[float, float]:
    """Of a figure: its size in inches in the medium that `use_style` set, where it is `width` ×
    `height` inches in a notebook.
    """
    return scaled(width), scaled(height)


def literal(text: str) -> str:
    """A text of somebody else's for a figure: no formula, though it holds dollar signs, and on one
    line.
    """
    return checks.printable(text).replace("$", r"\$")


def axes(width: float, height: float) -> Axes:
    """The Axes of a new figure of `sized(width, height)`."""
    return subplots(1, 1, width, height)[1]


def subplots(
    rows: int, columns: int, width: float, height: float, **options: Any
) -> tuple[Figure, Any]:
    """A new figure of `sized(width, height)` and its rows × columns Axes; options: of matplotlib's
    `subplots`.
    """
    return plt.subplots(rows, columns, figsize=sized(width, height), **options)


def figure(width: float, height: float) -> Figure:
    """A new, empty figure of `sized(width, height)`."""
    return plt.figure(figsize=sized(width, height))


def looks(methods: Iterable[str]) -> dict[str, dict]:
    """Colour, marker and sizes of the line of each method, the same in every figure: pruning
    methods have theirs by their place in `prune.METHODS`, YOCO black and thick; others come after
    them. Methods for nested sets alone have the last look.
    """
    known = [name for name, method in METHODS.items() if not method.nested]
    others = [name for name in dict.fromkeys(methods) if name not in METHODS]
    # the first is free, as YOCO is black
    colours = [*PALETTE, PALETTE[known.index(OURS)], "#5B2C83", "#117733"]
    found = {}
    for name in dict.fromkeys(methods):
        number = -1 if name in METHODS and METHODS[name].nested else [*known, *others].index(name)
        strong = name == OURS
        sizes = {"lw": scaled(2.5 if strong else 1.2), "ms": scaled(6)}
        found[name] = {
            "color": "black" if strong else colours[number % len(colours)],
            "marker": MARKERS[number % len(MARKERS)],
            **sizes,
        }
    return found


def figure_of(drawn: Figure | Axes) -> Figure:
    """The Figure, of an Axes the one that it is in."""
    # no Axes of ours is in a SubFigure
    return cast("Figure", drawn if hasattr(drawn, "savefig") else drawn.figure)


def save(drawn: Figure | Axes, path: str | Path) -> Path:
    """Write a figure (of an Axes: its figure) to `path`, the kind by its ending: .png, or .pdf and
    .svg for vectors.

    Without an ending both are written, PNG and PDF. Returns the path, of the PNG where there are
    two. Raises ValueError at an ending that matplotlib does not know, OSError if there is no room
    to write.
    """
    path = Path(path)
    made = [path] if path.suffix else [path.with_suffix(".png"), path.with_suffix(".pdf")]
    for file in made:
        # the same figure gives the same file
        undated = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(file.suffix)
        kind = {"format": file.suffix.removeprefix("."), "metadata": undated}
        tensor_files.write_whole(file, functools.partial(figure_of(drawn).savefig, **kind))
    return made[0]
