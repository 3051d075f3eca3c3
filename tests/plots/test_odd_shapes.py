"""Figures and widgets of sets with 2 to 200 classes, 1 to 5,000 images of each, grey or colour."""

import re
import warnings

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from matplotlib.transforms import Bbox

from yoco import explore, plots
from yoco.data.image_data import ImageData
from yoco.dynamics.dynamics import Dynamics
from yoco.experiments import study, tables
from yoco.plots import style
from yoco.plots.images import ROWS
from yoco.prune.ranking import score_names, score_table
from yoco.sets.condensed_set import CondensedSet

SIDE, EPOCHS = 4, 3
# classes, condensed images of each, channels, factor
SHAPES = [(2, 1, 1, 1), (200, 3, 1, 2)]
SHAPES += [
    pytest.param(*shape, marks=pytest.mark.slow)
    for shape in ((2, 5000, 1, 1), (30, 1, 3, 2), (200, 1, 3, 1))
]
MOST_INCHES = 20.0  # of a figure's width or height


def a_set(classes: int, ipc: int, channels: int, factor: int) -> CondensedSet:
    """Noise; the names are long, odd, and equal up to their middle."""
    source = torch.Generator().manual_seed(0)
    names = tuple(f"a class with $x$ in its long name, {k} of these" for k in range(classes))
    labels = torch.arange(classes).repeat_interleave(ipc)
    shown = torch.rand(len(labels), channels, SIDE, SIDE, generator=source)
    info = {"loss": [1.0], "loss_every": 1, "steps": 1, "planned_steps": 1, "settings": {}}
    statistics = ((0.5,) * channels, (0.25,) * channels)
    return CondensedSet(shown, labels, factor, names, *statistics, "idc", info)


def a_course(condensed: CondensedSet) -> Dynamics:
    """Random logits in place of a training run."""
    source = torch.Generator().manual_seed(1)
    labels, classes = condensed.formed_labels, len(condensed.classes)
    logits = torch.randn(EPOCHS, len(labels), classes, generator=source)
    correct, aum = logits.argmax(-1) == labels, torch.rand(len(labels), generator=source)
    features = torch.randn(len(labels), 2, generator=source)
    return Dynamics(logits, torch.arange(EPOCHS), correct, aum, labels, logits[-1], features)


@pytest.fixture(autouse=True)
def the_look():
    with plt.rc_context():
        plots.use_style()
        yield


def fits(drawn) -> None:
    """A figure of a size that can be looked at, whose images and bars have room."""
    figure = style.figure_of(drawn)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # matplotlib: no room for the axes
        figure.draw_without_rendering()
    assert max(figure.get_size_inches()) <= MOST_INCHES
    for ax in figure.axes:
        box: Bbox = ax.get_position()
        assert ax.get_title() == "" or box.width * figure.get_figwidth() > 0.2, ax.get_title()
    plt.close(figure)


@pytest.mark.parametrize("classes, ipc, channels, factor", SHAPES)
def test_every_figure_of_a_set_fits(classes, ipc, channels, factor):
    condensed = a_set(classes, ipc, channels, factor)
    dynamics = a_course(condensed)
    table = score_table(condensed, dynamics, top_k=1)
    names = [name for name in score_names(table) if name in ("lbpe", "el2n", "aum")]
    kept = study.selections(condensed, dynamics, [1], top_k=1)
    yoco = next(selection for selection in kept if selection.method == "yoco")
    marked = plots.kept_and_dropped(condensed, yoco)
    plots.cross_out(marked, condensed, torch.ones(len(table), dtype=torch.bool))
    rows = min(classes, ROWS)
    assert len(marked.texts) == rows and (f"{rows} of {classes}" in marked.get_title()) == (
        rows < classes
    )
    share = min(10, ipc) * factor**2
    assert len(marked.lines[0].get_xdata()) == rows * share, "the rows that are drawn are crossed"
    fits(marked)
    fits(plots.condensed_set(condensed))
    fits(plots.before_and_after(condensed, condensed))
    fits(plots.progress(condensed))
    fits(plots.extremes(condensed, torch.tensor(table["lbpe"].to_numpy())))
    fits(plots.kept_by_method(condensed, kept))
    fits(plots.kept_of_class(condensed, kept, classes - 1))
    fits(plots.score_distributions(table, names))
    fits(plots.two_scores(condensed, table, "lbpe", "aum", label=0))
    one = plots.sample(condensed, dynamics, len(table) - 1)
    fits(one)
    assert min(ax.get_position().width for ax in one.axes[1:]) > 0.4, "the charts have room"
    fits(plots.multi_formation(condensed.images[:1].repeat(factor**2, 1, 1, 1), factor))
    balance = tables.class_balance(condensed, kept)
    fits(plots.class_balance(balance, factor**2))


@pytest.mark.parametrize("classes, ipc, channels, factor", SHAPES)
def test_every_widget_moves_from_end_to_end(classes, ipc, channels, factor):
    condensed = a_set(classes, ipc, channels, factor)
    dynamics = a_course(condensed)
    table = score_table(condensed, dynamics, top_k=1)
    for made in (
        explore.browse(condensed, table, dynamics),
        explore.budgets(condensed, dynamics, top_k=1),
        explore.compare(condensed, table),
    ):
        by_class = next(
            box
            for row in made.children
            for box in getattr(row, "children", ())
            if getattr(box, "description", "") == "class"
        )
        assert len(by_class.options) == classes + 1
        by_class.value = classes - 1


@pytest.mark.parametrize("classes, channels", [(2, 1), (200, 3)])
@pytest.mark.parametrize("counts", [(1, 1), (2, 1), (1, 5000)])
def test_real_images_of_every_class_stand_below_each_other(classes, channels, counts):
    labels = torch.cat([torch.full((counts[k % 2],), k) for k in (0, 1, *range(2, classes))][:12])
    labels = torch.cat([labels, torch.arange(classes)])[: len(labels) + classes]
    pictures = torch.zeros(len(labels), channels, SIDE, SIDE, dtype=torch.uint8)
    names = tuple(map(str, range(classes)))
    real = ImageData(
        "x", pictures, labels, pictures, labels, names, (0.5,) * channels, (0.25,) * channels
    )
    ax = plots.real_images(real)
    rows, columns = min(4, max(real.counts()[:10])), min(10, classes)
    step = SIDE + plots.gap(SIDE)
    shown = ax.images[0].get_array()
    assert shown.shape[:2] == (rows * step + 1, columns * step + 1)
    dark = (shown.reshape(*shown.shape[:2], -1)[1::step, 1::step, 0] == 0).sum(0)
    assert dark.tolist() == [min(4, count) for count in real.counts()[:10]]
    fits(ax)


def test_empty_grid_and_gaps_between_bytes_are_white():
    assert (plots.tiled(torch.zeros(0, 3, SIDE, SIDE), 10, 1) == 1).all()
    assert plots.tiled(torch.zeros(3, 1, SIDE, SIDE, dtype=torch.uint8), 2, 1)[0, 0, 0] == 255


def test_many_classes_are_spread_from_the_first_to_the_last():
    assert style.spread(3, 20) == [0, 1, 2] and style.spread(1, 2) == [0]
    some = style.spread(200, 20)
    assert len(set(some)) == 20 and some == sorted(some) and (some[0], some[-1]) == (0, 199)


def test_bars_of_equal_shortened_names_stay_apart():
    names = [f"{'a' * 40}{k}{'b' * 40}" for k in range(2)]
    rows = [("yoco", name, count) for name, count in zip(names, (1, 5))]
    figure = plots.class_balance(pd.DataFrame(rows, columns=["method", "class", "kept"]), 3)
    assert [bar.get_height() for bar in figure.axes[0].patches] == [1, 5]
    written = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert all(re.fullmatch("a+…b+", text) and len(text) == style.MOST_NAME for text in written)


def test_a_heat_map_without_values_says_so():
    empty = pd.DataFrame({"a": ["x"], "b": ["y"], "accuracy": [float("nan")]})
    ax = plots.heat(empty, "a", "b")
    assert [text.get_text() for text in ax.texts] == ["no test accuracy (%)"]
