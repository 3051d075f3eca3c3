import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from yoco import condense, explore, paper, plots, prune, study, tables


def test_kept_cells_are_framed_and_dropped_ones_faded(toy_set, toy_dynamics):
    kept = prune.prune(toy_set, toy_dynamics, "yoco", 1)
    ax = plots.kept_and_dropped(toy_set, kept)
    assert len(ax.patches) == 12
    picture = ax.images[0].get_array()
    number = kept.indices[0].item()
    frame = ax.patches[0]
    x, y = (int(v + 0.5) for v in frame.get_xy())
    cell = picture[y : y + 8, x : x + 8]
    image, position = divmod(number, 4)
    row, column = divmod(position, 2)
    expected = toy_set.images[image, :, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8].permute(1, 2, 0).numpy()
    assert np.allclose(cell, expected) and frame.get_edgecolor() == to_rgba(plots.KEPT)


def test_condensed_set_has_a_named_row_for_each_class(toy_set):
    ax = plots.condensed_set(toy_set, 4)
    assert [text.get_text() for text in ax.texts] == ["dark", "middle", "bright"]
    assert ax.images[0].get_array().shape == (1 + 3 * 17, 1 + 4 * 17, 3)


def test_loss_curve_draws_the_history(toy):
    made = condense.condense(toy, ipc=1, preset="smoke", outer_loops=2, inner_loops=3, width=8, progress=False)
    ax = plots.loss_curve(made)
    assert ax.lines[0].get_ydata().tolist() == made.info["loss"] and ax.lines[0].get_xdata().tolist() == [1, 2, 3, 4, 5, 6]
    assert ax.get_xlabel() == "image step"


def test_bars_are_means_with_titles_and_heat_holds_numbers():
    table = pd.DataFrame({"method": ["yoco", "yoco", "dream"], "rule": ["a", "a", "b"], "accuracy": [10.0, 20.0, 30.0]})
    ax = plots.bars(table, "method", "rule")
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["YOCO", "DREAM"] and ax.get_ylabel() == "test accuracy (%)"
    assert sorted(bar.get_height() for bar in ax.patches if bar.get_height() > 0) == [15, 30]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
    assert plots.bars(table, "rule").get_legend() is None
    assert sorted(text.get_text() for text in plots.heat(table, "method", "rule").texts if text.get_text()) == ["15.0", "30.0"]


def test_accuracy_by_budget_shows_ours_and_the_paper_s():
    published = paper.beside("cifar10", 10)
    ax = plots.accuracy_by_budget(published.assign(n=3), published)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "YOCO" in labels and "paper" in labels and len(labels) == 10


def test_every_figure_is_drawn_and_saved(toy, toy_set, toy_dynamics, tmp_path):
    table = prune.score_table(toy_set, toy_dynamics)
    names = ["lbpe", "el2n", "aum"]
    balance = tables.class_balance(toy_set, study.selections(toy_set, toy_dynamics, [1]))
    missing = balance.assign(missing=balance.kept == 0).groupby(["method", "ipc_to"])["missing"].sum().reset_index()
    figures = [
        plots.multi_formation(toy_set.images[:9], 3),
        plots.before_and_after(toy_set, toy_set),
        plots.score_distributions(table, names),
        plots.rank_correlations(table, names),
        plots.extremes(toy_set, torch.tensor(table["lbpe"].to_numpy()), 4),
        plots.trajectories(torch.rand(4, 2), torch.arange(4), ["a", "b"]),
        plots.class_balance(balance, 4),
        plots.imbalance(missing),
    ]
    for number, figure in enumerate(figures):
        assert isinstance(figure, (Axes, Figure))
        assert plots.save(figure, tmp_path / f"{number}.png").stat().st_size > 1000


def test_correlations_turn_aum_round(toy_set, toy_dynamics):
    table = prune.score_table(toy_set, toy_dynamics).assign(lbpe=lambda t: -t["aum"])
    ax = plots.rank_correlations(table, ["lbpe", "aum"])
    assert [text.get_text() for text in ax.texts] == ["1.00"] * 4


def test_browser_shows_what_is_chosen(toy_set, toy_dynamics):
    table = prune.score_table(toy_set, toy_dynamics)
    box = explore.browse(toy_set, table)
    (by_class, by_score, order), picture, numbers = box.children[0].children, box.children[1], box.children[2]
    first = picture.value
    assert first[:4] == b"\x89PNG" and "40 formed images" in numbers.value
    by_class.value = "bright"
    assert picture.value != first and "20 formed images" in numbers.value
    by_score.value, order.value = "aum", "highest first"
    highest = table[table["class"] == "bright"]["aum"].max()
    assert f"{highest:.3g}" in numbers.value
    with pytest.raises(ValueError, match="score='lpbe' is unknown"):
        explore.browse(toy_set, table, score="lpbe")


def test_condensations_and_bytes_are_drawn_from_their_tables():
    rows = [(m, s, a) for m, (a0, a1) in {"idc": (30, 50), "dsa": (20, 40)}.items() for s, a in (("start", a0), ("condensed", a1))]
    ax = plots.condensations(pd.DataFrame(rows, columns=["method", "subset", "accuracy"]))
    assert [round(bar.get_height()) for bar in ax.patches if bar.get_height()] == [30, 20, 50, 40]
    rows = [("yoco", stored, b, a) for stored, b, a in (("uint8", 10, 40), ("uint8", 20, 50), ("float32", 40, 41), ("float32", 80, 51))]
    ax = plots.accuracy_by_bytes(pd.DataFrame(rows, columns=["method", "stored", "bytes", "accuracy"]))
    assert ax.get_xscale() == "log" and [line.get_xdata().tolist() for line in ax.lines if len(line.get_xdata()) == 2] == [[10, 20], [40, 80]]
    figure, axes = plots.panels(3)
    assert len(axes) == 3 and axes[0].figure is figure
