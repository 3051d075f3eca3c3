"""The widgets: what they show follows the choices; a picture replaces them if none can run."""

import base64
import re
from dataclasses import replace

import ipywidgets as widgets
import matplotlib.pyplot as plt
import pytest
import torch

from yoco import condense, explore, plots, prune
from yoco.experiments import study, tables
from yoco.experiments import tables as tables_module
from yoco.sets.condensed_set import CondensedSet
from yoco.training import resumable


@pytest.fixture(scope="module")
def table(toy_set, toy_dynamics):
    return prune.score_table(toy_set, toy_dynamics)


def test_the_browser_follows_class_score_order_and_rank(toy_set, toy_dynamics, table):
    box = explore.browse(toy_set, table, toy_dynamics)
    (by_class, by_score, order), (rank, words), (page, picture) = (
        row.children for row in box.children
    )
    assert picture.value.startswith('<img alt="the chosen image') and words.value.startswith(
        "rank 1 of 60 by lbpe"
    )
    by_score.value, by_class.value, order.value = "aum", 2, "highest first"
    own = table[table["class"] == "bright"].sort_values("aum", ascending=False, kind="stable")
    assert (
        words.value.startswith(f"rank 1 of 20 by aum: formed image {own['index'].iloc[0]}, bright")
        and rank.max == 20
    )
    before = picture.value
    rank.value = 7
    assert f"formed image {own['index'].iloc[6]}," in words.value and picture.value != before
    with pytest.raises(ValueError, match="score='lpbe' is unknown"):
        explore.browse(toy_set, table, toy_dynamics, score="lpbe")


def test_pressing_chooses_an_image_and_slider_turns_pages(toy_set, toy_dynamics, table):
    box = explore.browse(toy_set, table, toy_dynamics)
    rank, words = box.children[1].children
    sheet, buttons = box.children[2].children[0].children
    order = table.sort_values("lbpe", kind="stable")["index"].tolist()
    buttons.children[4].click()
    assert rank.value == 5 and f"formed image {order[4]}," in words.value
    assert re.findall(r"-(\d+) \{[^}]*box-shadow", sheet.value) == ["4"]
    assert (
        explore._uri(toy_set, order[4]) in sheet.value and "rank 5, " in buttons.children[4].tooltip
    )
    rank.value = 60
    assert (
        explore._uri(toy_set, order[40]) in sheet.value
        and explore._uri(toy_set, order[4]) not in sheet.value
    )
    visible = [button.layout.visibility == "visible" for button in buttons.children]
    assert visible == [True] * 20 + [False] * 20, "the last page holds what is left"


def _source(picture) -> str:
    return re.search('src="[^"]*"', picture.value)[0]


def test_the_budget_s_slider_shows_every_method_s_choice(toy_set, toy_dynamics):
    box = explore.budgets(toy_set, toy_dynamics)
    budget, by_class = box.children[0].children
    words, picture = box.children[1:]
    first = picture.value
    lost = {
        s.method: int((s.per_class_counts == 0).sum())
        for s in study.selections(toy_set, toy_dynamics, [1])
    }
    named = (
        "".join(
            f"{tables_module.title_of(method)} {count}" for method, count in lost.items() if count
        )
        or "none"
    )
    assert "IPC_T 1: 4 of 20" in words.value and words.value.replace(", ", "").endswith(
        f"without images: {named}."
    )
    budget.value = 3
    assert "IPC_T 3: 12 of 20" in words.value and picture.value != first
    second, by_class.value = _source(picture), 0
    assert _source(picture) != second
    with pytest.raises(ValueError, match="ipc_to"):
        explore.budgets(toy_set, toy_dynamics, ipc_to=6)


def test_a_score_is_never_on_both_axes(toy_set, table):
    box = explore.compare(toy_set, table, "lbpe", "aum")
    (x, y, _), picture = box.children[0].children, box.children[1]
    first = _source(picture)
    x.value = "aum"
    assert (x.value, y.value) == ("aum", "lbpe") and _source(picture) != first
    y.value = "aum"
    assert (x.value, y.value) == ("lbpe", "aum") and _source(picture) == first


def test_two_scores_are_chosen(toy_set, table):
    box = explore.compare(toy_set, table)
    (x, _, by_class), picture = box.children[0].children, box.children[1]
    seen = [_source(picture)]
    for control, value in ((x, "el2n"), (by_class, 1)):
        control.value = value
        seen.append(_source(picture))
    assert len(set(seen)) == 3
    with pytest.raises(ValueError, match="x='lpbe' is unknown"):
        explore.compare(toy_set, table, x="lpbe")


def test_where_no_widget_runs_the_figure_stands_in_its_place(toy_set, toy_dynamics, table):
    for box in (
        explore.budgets(toy_set, toy_dynamics),
        explore.browse(toy_set, table, toy_dynamics),
        explore.compare(toy_set, table),
    ):
        shown = box._repr_mimebundle_()
        picture = shown["image/png"]
        assert (picture if isinstance(picture, bytes) else base64.b64decode(picture))[
            :4
        ] == b"\x89PNG"
        assert "application/vnd.jupyter.widget-view+json" in shown
        assert shown["text/plain"].startswith("A still picture of the widget: ")
    assert not plt.get_fignums(), "what is drawn for a widget is closed"


@pytest.mark.parametrize("method", ["idc", "dsa"])
def test_watching_shows_the_set_as_it_is_and_changes_nothing(toy, monkeypatch, method):
    options = {
        "method": method,
        "ipc": 1,
        "preset": "smoke",
        "outer_loops": 2,
        "inner_loops": 3,
        "width": 8,
        "progress": False,
    }
    plain = condense.condense(toy, **options)
    monkeypatch.setattr(resumable, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(resumable, "LOOK_SHARE", 1.0)
    seen = []

    def watch(condensed: CondensedSet) -> None:
        seen.append(replace(condensed, images=condensed.images.clone()))
        condensed.images.zero_()  # of no consequence: it is a copy

    watched = condense.condense(toy, **options, watch=watch)
    assert torch.equal(watched.images, plain.images) and watched.info["loss"] == plain.info["loss"]
    assert [s.info["steps"] for s in seen] == [1, 2, 3, 4, 5, 6, 6]
    assert not torch.equal(seen[0].images, seen[-1].images), "each is the set as it was then"
    assert (
        torch.equal(seen[-1].images, watched.images)
        and seen[1].info["loss"] == plain.info["loss"][:2]
    )


class Clocked(resumable.Stepper):
    """Steps that take a second each, on a clock of their own."""

    now = 0.0

    def step(self, number: int) -> float:
        Clocked.now += 1.0
        return 1.0

    def state(self) -> dict:
        return {}

    def restore(self, state: dict) -> None:
        pass


@pytest.mark.parametrize("seconds", [0.01, 3.0])
def test_looking_takes_little_of_the_time(monkeypatch, seconds):
    Clocked.now, looks = 0.0, []
    monkeypatch.setattr(resumable.time, "monotonic", lambda: Clocked.now)

    def look(losses: list[float]) -> None:
        looks.append(len(losses))
        Clocked.now += seconds

    resumable.run(Clocked(), 600, {}, progress=False, look=look)
    assert looks[0] == 1 and looks[-1] == 600, "the first step is seen, and the last"
    assert min(b - a for a, b in zip(looks[:-2], looks[1:-1])) >= 2, "seconds between looks"
    assert (len(looks) - 2) * seconds <= 0.051 * Clocked.now


def test_the_live_view_draws_into_one_place(toy, monkeypatch):
    placed, drawn = [], []

    class Place:
        update = drawn.append

    monkeypatch.setattr(
        explore, "display", lambda picture, display_id: placed.append(picture) or Place
    )
    monkeypatch.setattr(resumable, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(resumable, "LOOK_SHARE", 1.0)
    condense.condense(
        toy,
        "kip",
        ipc=1,
        preset="smoke",
        iterations=3,
        kernel="fc",
        real_batch=12,
        progress=False,
        watch=explore.Live(),
    )
    assert (len(placed), len(drawn)) == (1, 3) and all(
        picture.data[:4] == b"\x89PNG" for picture in [*placed, *drawn]
    )
    assert placed[0].data != drawn[-1].data


def test_names_of_classes_are_no_markup_and_no_formula(toy_set, toy_dynamics, table):
    """A folder can have any name, and an HTML widget would render it."""
    evil = ("<img src=x onerror=alert(1)>", "$\\frac{1}{2}$ & $x^", "red\x1b[31m\n")
    odd = replace(toy_set, classes=evil)
    named = table.assign(**{"class": [evil[label] for label in table.label]})
    boxes = [
        explore.browse(odd, named, toy_dynamics),
        explore.budgets(odd, toy_dynamics),
        explore.compare(odd, named),
    ]
    boxes[0].children[0].children[0].value = 0  # images of the first class
    todo, seen = list(boxes), []
    while todo:
        widget = todo.pop()
        todo += getattr(widget, "children", ())
        if isinstance(widget, widgets.HTML):
            assert "<img src" not in widget.value and "\x1b" not in widget.value
            seen.append(widget.value)
    assert any("&lt;img src=x onerror=alert(1)&gt;" in value for value in seen)
    ax = plots.condensed_set(odd)
    ax.figure.canvas.draw()  # a broken formula is an error here
    assert [text.get_text() for text in ax.texts] == [
        evil[0],
        "\\$\\frac{1}{2}\\$ & \\$x^",
        "red\\x1b[31m\\n",
    ]
    assert not any(text._preprocess_math(text.get_text())[1] for text in ax.texts)
    for figure in (
        plots.class_balance(
            tables.class_balance(odd, [prune.prune(odd, toy_dynamics, "yoco", 1)]), 4
        ),
        plots.score_distributions(named, ["lbpe"]),
        plots.sample(odd, toy_dynamics, 25),
    ):
        figure.canvas.draw()
