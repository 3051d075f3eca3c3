"""Notebook widgets (ipywidgets) over the figures of `plots`.

They browse a condensed set, change the budget, compare scores and watch a condensation. Each works
by mouse or keyboard (Tab from control to control, arrows along a slider, Enter on an image). If no
widget can run (papermill, GitHub's viewer), the figure in its initial state takes its place.
"""

import base64
import functools
import html
import io
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets
import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Image as Picture
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image

from yoco import plots
from yoco.dynamics.dynamics import Dynamics
from yoco.experiments import study, tables
from yoco.plots import style
from yoco.plots.figures import other_score
from yoco.plots.images import formed_image, pixels
from yoco.prune.ranking import score_names
from yoco.sets.condensed_set import CondensedSet
from yoco.utils import checks

COLUMNS, SHOWN = 10, 40  # images per row and per page of the browser
SIDE = 44  # pixels of an image on the screen
# widths in pixels of pictures on the screen: all fit into 1280 × 800
WIDTHS = {"methods": 1100, "class": 700, "scores": 640, "sample": 520}
ALL = -1  # stands for all classes; None would mean that nothing is selected
DPI, WIDE_DPI = 80, 110  # of pictures; of pictures shown wider than they are drawn


class Explorer(widgets.VBox):
    """Controls over a picture; if no widget can run, the figure that `still` draws.

    The caption of the still picture is what `picture` says to a reader who cannot see it.
    """

    def __init__(
        self, children: Sequence[widgets.Widget], still: Callable[[], Figure], picture: "_Picture"
    ) -> None:
        super().__init__(children, layout=widgets.Layout(max_width="1180px"))
        self._still, self._picture = still, picture

    def _repr_mimebundle_(self, **kwargs: object) -> dict[str, object]:
        caption = f"A still picture of the widget: {self._picture.says}"
        bundle = super()._repr_mimebundle_(**kwargs)
        return {**bundle, "text/plain": caption, "image/png": png(self._still())}


def png(figure: Figure, dpi: int = DPI) -> bytes:
    """Return a figure as a PNG file in its own size, and close the figure."""
    buffer = io.BytesIO()
    # cropped to its content, it would change its size with every choice
    with plt.rc_context({"savefig.bbox": "standard"}):
        figure.savefig(buffer, format="png", dpi=dpi)
    plt.close(figure)
    return buffer.getvalue()


def _text(words: str) -> str:
    """Return text for HTML: nothing in it is markup, class names in particular."""
    return html.escape(checks.printable(words))


class _Picture(widgets.HTML):
    """A figure with a text alternative."""

    def __init__(self) -> None:
        super().__init__(layout=widgets.Layout(max_width="100%", height="auto"))

    def show(self, file: bytes, width: int, says: str) -> None:
        """width: pixels on the screen, or all there are if there are fewer."""
        self.says = says
        self.value = (
            f'<img alt="{_text(says)}" src="{_data(file)}" style="width: {width}px; max-width: '
            '100%; height: auto">'
        )


def _data(file: bytes) -> str:
    """Return the data: URI of a PNG file."""
    return f"data:image/png;base64,{base64.b64encode(file).decode()}"


def _slider(name: str, most: int, value: int = 1) -> widgets.IntSlider:
    return widgets.IntSlider(
        value=value,
        min=1,
        max=most,
        description=name,
        continuous_update=False,
        layout=widgets.Layout(width="420px"),
    )


def _row(*children: widgets.Widget) -> widgets.HBox:
    return widgets.HBox(
        children, layout=widgets.Layout(flex_flow="row wrap", align_items="flex-start")
    )


def _classes(condensed: CondensedSet) -> widgets.Dropdown:
    """Return a choice among all classes and each that has images."""
    present = condensed.formed_labels.unique().tolist()
    options = [
        ("all", ALL),
        *((checks.printable(condensed.classes[label]), label) for label in present),
    ]
    return widgets.Dropdown(options=options, description="class")


def _follow(update: Callable[[], None], *controls: widgets.Widget) -> None:
    """Draw now, and again whenever the value of one of the controls changes."""
    for control in controls:
        control.observe(lambda _: update(), "value")
    update()


def budgets(
    condensed: CondensedSet, dynamics: Dynamics, *, ipc_to: int = 1, **options: object
) -> Explorer:
    """Return a slider for the budget IPC_T over what each method keeps (framed) and drops (faded).

    All methods are shown at once: one panel per method for all classes, or one row per method for a
    single class. Methods that need more than the dynamics hold are left out.

    ipc_to: initial value of the slider. options: of `prune.prune` except the budget, for example
    balanced=True. Raises TypeError or ValueError for a bad budget or dynamics of another set.
    """
    checks.whole("ipc_to", ipc_to, 1, condensed.ipc)
    budget, by_class = _slider("IPC_T", condensed.ipc, ipc_to), _classes(condensed)
    picture, words = _Picture(), widgets.HTML()
    chosen = functools.cache(
        lambda budget: study.selections(condensed, dynamics, [budget], **options)
    )

    def draw() -> Figure:
        if by_class.value == ALL:
            return plots.kept_by_method(condensed, chosen(budget.value))
        return style.figure_of(plots.kept_of_class(condensed, chosen(budget.value), by_class.value))

    drawn = functools.cache(lambda budget, label: png(draw(), WIDE_DPI))

    def update() -> None:
        cells, cell_count = budget.value * condensed.factor**2, condensed.ipc * condensed.factor**2
        lost = {s.method: int((s.per_class_counts == 0).sum()) for s in chosen(budget.value)}
        without = (
            ", ".join(
                f"{tables.title_of(method)} {count}" for method, count in lost.items() if count
            )
            or "none"
        )
        text = (
            f"IPC_T {budget.value}: {cells} of {cell_count} formed images per class; unbalanced "
            f"methods keep the same total. Classes without images: {without}."
        )
        words.value = _text(text)
        picture.show(
            drawn(budget.value, by_class.value),
            WIDTHS["methods" if by_class.value == ALL else "class"],
            f"what each method keeps and drops. {text}",
        )

    _follow(update, budget, by_class)
    return Explorer([_row(budget, by_class), words, picture], draw, picture)


def compare(
    condensed: CondensedSet, table: pd.DataFrame, x: str = "lbpe", y: str | None = None
) -> Explorer:
    """Return a plot of two scores against each other, with the images at the extremes.

    Controls choose the scores and a class to highlight.

    table: from `prune.score_table`. y: None as in `plots.two_scores`. Raises ValueError if a score
    is unknown.
    """
    names, y = score_names(table), other_score(table, x) if y is None else y
    across, up = (
        widgets.Dropdown(options=names, value=checks.one_of(axis, value, names), description=axis)
        for axis, value in (("x", x), ("y", y))
    )
    by_class, picture = _classes(condensed), _Picture()

    def draw() -> Figure:
        label = None if by_class.value == ALL else by_class.value
        return style.figure_of(
            plots.two_scores(condensed, table, across.value, up.value, label=label)
        )

    def update() -> None:
        picture.show(
            png(draw(), WIDE_DPI),
            WIDTHS["scores"],
            f"{up.value} against {across.value}, classes: {by_class.label}",
        )

    # a score that is chosen for one axis gives its place to the other's
    for axis, other in ((across, up), (up, across)):
        axis.observe(functools.partial(_exchange, other), "value")
    _follow(update, across, up, by_class)
    return Explorer([_row(across, up, by_class), picture], draw, picture)


def _exchange(other: widgets.Dropdown, change: Any) -> None:
    """Give a menu the value that another one had before it took this menu's."""
    if other.value == change.new:
        other.value = change.old


def browse(
    condensed: CondensedSet, table: pd.DataFrame, dynamics: Dynamics, *, score: str = "lbpe"
) -> Explorer:
    """Return a browser of the formed images by class, score and rank.

    The slider moves along the ranks and turns the pages. The selected image is shown large, with
    how it fared over the epochs.

    table: from `prune.score_table`. Raises ValueError if the score is unknown or the dynamics are
    of another set.
    """
    names = score_names(table)
    by_class = _classes(condensed)
    by_score = widgets.Dropdown(
        options=names, value=checks.one_of("score", score, names), description="score"
    )
    order = widgets.Dropdown(options=["lowest first", "highest first"], description="order")
    rank, words, page = _slider("rank", len(table)), widgets.HTML(), _Page(condensed)
    picture = _Picture()

    def ranked() -> pd.DataFrame:
        rows = table if by_class.value == ALL else table[table["label"] == by_class.value]
        return rows.sort_values(
            by_score.value, ascending=order.value == "lowest first", kind="stable"
        )

    def draw() -> Figure:
        return plots.sample(condensed, dynamics, int(ranked()["index"].iloc[rank.value - 1]))

    def update() -> None:
        rows = ranked()
        rank.max = len(rows)  # also lowers a larger value
        first = (rank.value - 1) // SHOWN * SHOWN
        page.show(rows.iloc[first : first + SHOWN], by_score.value, first, rank.value)
        one = rows.iloc[rank.value - 1]
        values = ", ".join(f"{name} {one[name]:.3g}" for name in names)
        text = (
            f"rank {rank.value} of {len(rows)} by {by_score.value}: formed image {one['index']}, "
            f"{one['class']}; {values}"
        )
        words.value = _text(text)
        picture.show(png(draw()), WIDTHS["sample"], f"the chosen image over the epochs. {text}")

    def press(place: int) -> None:
        rank.value = (rank.value - 1) // SHOWN * SHOWN + place + 1

    page.pressed = press
    _follow(update, by_class, by_score, order, rank)
    return Explorer(
        [_row(by_class, by_score, order), _row(rank, words), _row(page.box, picture)], draw, picture
    )


class _Page:
    """A page of images as buttons (Tab moves, Enter selects), drawn by a style sheet."""

    pressed: Callable[[int], None]

    def __init__(self, condensed: CondensedSet) -> None:
        self._uris = functools.cache(lambda index: _uri(condensed, index))
        size = {"width": f"{SIDE}px", "height": f"{SIDE}px", "padding": "0", "margin": "1px"}
        self._buttons = [widgets.Button(layout=widgets.Layout(**size)) for _ in range(SHOWN)]
        self._sheet, self._name = widgets.HTML(), f"yoco-{id(self):x}"
        for place, button in enumerate(self._buttons):
            button.add_class(f"{self._name}-{place}")
            button.on_click(lambda _, place=place: self.pressed(place))
        columns = " ".join([f"{SIDE + 2}px"] * COLUMNS)
        self.box = widgets.VBox(
            [
                self._sheet,
                widgets.GridBox(
                    self._buttons, layout=widgets.Layout(grid_template_columns=columns)
                ),
            ]
        )

    def show(self, rows: pd.DataFrame, score: str, first: int, chosen: int) -> None:
        """Show one page.

        rows: rows of the score table for the images of this page. first: number of ranks before
        them. chosen: the rank to frame.
        """
        rules = [
            f"[class*={self._name}]:focus-visible {{ outline: 3px dashed {style.DROPPED} "
            "!important; z-index: 2; }"
        ]
        for place, button in enumerate(self._buttons):
            button.layout.visibility = "visible" if place < len(rows) else "hidden"
            if place < len(rows):
                one = rows.iloc[place]
                button.tooltip = (
                    f"rank {first + place + 1}, {one['class']}, {score} {one[score]:.3g}"
                )
                frame = (
                    f"box-shadow: 0 0 0 3px {style.KEPT} !important; position: relative; "
                    "z-index: 1;"
                    if first + place + 1 == chosen
                    else ""
                )
                image = (
                    f"background: url({self._uris(int(one['index']))}) center/cover; "
                    "image-rendering: pixelated;"
                )
                rules.append(f".{self._name}-{place} {{ {image} {frame} }}")
        self._sheet.value = f"<style>{' '.join(rules)}</style>"


def _uri(condensed: CondensedSet, index: int) -> str:
    """Return a formed image as the data: URI of a PNG file."""
    image, buffer = pixels(formed_image(condensed, index)), io.BytesIO()
    Image.fromarray((image * 255).round().astype("uint8")).save(buffer, "PNG")
    return _data(buffer.getvalue())


class Live:
    """What `condense(..., watch=Live())` draws while it works: the images and the loss.

    The last picture stays in the notebook and needs no widget.
    """

    def __init__(self, per_class: int = 5) -> None:
        self._per_class, self._place = per_class, None

    def __call__(self, condensed: CondensedSet) -> None:
        drawn = Picture(png(plots.progress(condensed, self._per_class)))
        if self._place is None:
            self._place = display(drawn, display_id=True)
        else:
            self._place.update(drawn)
