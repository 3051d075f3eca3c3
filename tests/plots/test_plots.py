import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from yoco import condense, plots, prune
from yoco.experiments import paper, study, tables
from yoco.plots import style


def test_kept_cells_are_framed_and_dropped_ones_faded(toy_set, toy_dynamics):
    kept = prune.prune(toy_set, toy_dynamics, "yoco", 1)
    ax = plots.kept_and_dropped(toy_set, kept)
    frames = ax.collections[0].get_paths()
    assert len(frames) == 12
    picture = ax.images[0].get_array()
    number = kept.indices.sort().values[0].item()
    x, y = (int(v + 0.5) for v in frames[0].vertices[0])
    cell = picture[y : y + 8, x : x + 8]
    image, position = divmod(number, 4)
    row, column = divmod(position, 2)
    expected = (
        toy_set.images[image, :, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8]
        .permute(1, 2, 0)
        .numpy()
    )
    assert np.allclose(cell, expected) and tuple(ax.collections[0].get_edgecolor()[0]) == to_rgba(
        plots.KEPT
    )


def test_condensed_set_has_a_named_row_for_each_class(toy_set):
    ax = plots.condensed_set(toy_set, 4)
    assert [text.get_text() for text in ax.texts] == ["dark", "middle", "bright"]
    assert ax.images[0].get_array().shape == (1 + 3 * 17, 1 + 4 * 17, 3)


def test_loss_curve_draws_the_history(toy):
    made = condense.condense(
        toy, "idc", 1, preset="smoke", outer_loops=2, inner_loops=3, width=8, progress=False
    )
    ax = plots.loss_curve(made)
    assert ax.lines[0].get_ydata().tolist() == made.info["loss"] and ax.lines[
        0
    ].get_xdata().tolist() == [1, 2, 3, 4, 5, 6]
    assert ax.get_xlabel() == "image step"


def test_bars_are_means_with_titles_and_heat_holds_numbers():
    table = pd.DataFrame(
        {
            "method": ["yoco", "yoco", "dream"],
            "rule": ["a", "a", "b"],
            "accuracy": [10.0, 20.0, 30.0],
        }
    )
    ax = plots.bars(table, "method", "rule")
    assert [tick.get_text() for tick in ax.get_xticklabels()] == [
        "YOCO",
        "DREAM",
    ] and ax.get_ylabel() == ("test accuracy (%)")
    assert sorted(bar.get_height() for bar in ax.patches if bar.get_height() > 0) == [15, 30]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
    assert plots.bars(table, "rule").get_legend() is None
    assert sorted(
        text.get_text() for text in plots.heat(table, "method", "rule").texts if text.get_text()
    ) == ["15.0", "30.0"]


def test_accuracy_by_budget_shows_ours_and_the_paper_s():
    published = paper.beside("cifar10", 10)
    ax = plots.accuracy_by_budget(published.assign(n=3), published)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "YOCO" in labels and "paper" in labels and len(labels) == 10


def test_methods_at_a_single_budget_stand_around_it():
    published = paper.beside("cifar10", 10)
    ax = plots.accuracy_by_budget(published[published.ipc_to == 1].assign(n=3))
    x = [container.lines[0].get_xdata()[0] for container in ax.containers]
    assert len(x) == 9 and sum(x) / 9 == pytest.approx(1) and ax.get_xlim() == (0.5, 1.5)


def test_gains_and_losses_have_different_colours():
    found = pd.DataFrame({"damage": ["a", "b"], "method": ["x", "x"], "accuracy": [-3.0, 1.0]})
    mesh = plots.heat(found, "damage", "method").collections[0]
    loss, gain = (mesh.cmap(mesh.norm(value)) for value in (-3, 1))
    assert loss[2] > loss[0] and gain[0] > gain[2]  # blue and red
    found["accuracy"] += 10
    assert plots.heat(found, "damage", "method").collections[0].cmap.name == "cividis"


def test_every_figure_is_drawn_and_saved(toy, toy_set, toy_dynamics, tmp_path):
    table = prune.score_table(toy_set, toy_dynamics)
    names = ["lbpe", "el2n", "aum"]
    balance = tables.class_balance(toy_set, study.selections(toy_set, toy_dynamics, [1]))
    missing = (
        balance.assign(missing=balance.kept == 0)
        .groupby(["method", "ipc_to"])["missing"]
        .sum()
        .reset_index()
    )
    figures = [
        plots.multi_formation(toy_set.images[:9], 3),
        plots.before_and_after(toy_set, toy_set),
        plots.score_distributions(table, names),
        plots.rank_correlations(table, names),
        plots.extremes(toy_set, torch.tensor(table["lbpe"].to_numpy()), 4),
        plots.trajectories(torch.rand(4, 2), torch.arange(4), ["a", "b"]),
        plots.margins(torch.rand(4, 1), torch.arange(4)),
        plots.right_and_wrong(torch.arange(9) % 3 > 0),
        plots.kept_by_method(toy_set, study.selections(toy_set, toy_dynamics, [1])),
        plots.class_balance(balance, 4),
        plots.imbalance(missing),
    ]
    for number, figure in enumerate(figures):
        assert isinstance(figure, (Axes, Figure))
        assert plots.save(figure, tmp_path / f"{number}.png").stat().st_size > 1000


def test_a_heat_map_is_red_above_zero_and_blue_below():
    signed = torch.zeros(2, 3, 4, 4)
    signed[0, :, 0, 0], signed[1, :, 3, 3] = 1.0, -0.5
    ax = plots.heat_map(signed, 2, title="gradient")
    shown = ax.images[0].get_array()
    assert shown.shape == (4 + 2, 2 * 4 + 3) and ax.get_title() == "gradient"
    assert (shown[1, 1], shown[1, 2], shown[4, 9]) == (1.0, 0.5, 0.25)
    assert shown.mask[0].all() and shown.mask[:, 5].all(), "nothing between the images"
    assert plots.heat_map(signed * 0, 2).images[0].get_array()[1, 1] == 0.5


def test_correlations_turn_aum_round(toy_set, toy_dynamics):
    table = prune.score_table(toy_set, toy_dynamics).assign(lbpe=lambda t: -t["aum"])
    ax = plots.rank_correlations(table, ["lbpe", "aum"])
    assert [text.get_text() for text in ax.texts] == ["1.00"] * 4


def test_condensations_and_bytes_are_drawn_from_their_tables():
    rows = [
        (m, s, a)
        for m, (a0, a1) in {"idc": (30, 50), "dsa": (20, 40)}.items()
        for s, a in (("start", a0), ("condensed", a1))
    ]
    ax = plots.condensations(pd.DataFrame(rows, columns=["method", "subset", "accuracy"]))
    means = [line.get_ydata().tolist() for line in ax.lines if len(line.get_xdata()) == 2]
    assert means == [[30, 20], [50, 40]]
    rows = [
        ("yoco", stored, b, a)
        for stored, b, a in (
            ("uint8", 10, 40),
            ("uint8", 20, 50),
            ("float32", 40, 41),
            ("float32", 80, 51),
        )
    ]
    ax = plots.accuracy_by_bytes(
        pd.DataFrame(rows, columns=["method", "stored", "bytes", "accuracy"])
    )
    lines = [container.lines[0] for container in ax.containers]
    assert ax.get_xscale() == "log" and [line.get_xdata().tolist() for line in lines] == [
        [10, 20],
        [40, 80],
    ]
    assert [line.get_linestyle() for line in lines] == ["-", "--"]
    figure, axes = plots.panels(3)
    assert len(axes) == 3 and axes[0].figure is figure


def test_global_random_state_is_left_alone(toy_set, toy_dynamics):
    table = pd.DataFrame(
        {"method": ["a", "a", "b"], "subset": ["a", "a", "b"], "accuracy": [10.0, 20.0, 30.0]}
    )
    before, torch_before = str(np.random.get_state()), torch.get_rng_state()
    first, second = plots.bars(table, "method"), plots.bars(table, "method")
    plots.accuracy_bars(table)
    plots.two_scores(toy_set, prune.score_table(toy_set, toy_dynamics))
    assert str(np.random.get_state()) == before and torch.equal(torch.get_rng_state(), torch_before)
    dots = [np.concatenate([c.get_offsets() for c in ax.collections]) for ax in (first, second)]
    assert np.array_equal(*dots) and len(set(dots[0][:2, 0])) == 2, (
        "jittered, and the same each time"
    )


def test_a_figure_has_the_medium_s_size_and_vectors(toy_set, toy_dynamics, tmp_path):
    table = prune.score_table(toy_set, toy_dynamics)
    widths = {}
    try:
        for medium in style.MEDIA:
            plots.use_style(medium)
            ax = plots.rank_correlations(table, ["lbpe", "el2n"])
            widths[medium] = ax.figure.get_figwidth()
            assert ax.xaxis.get_ticklabels()[0].get_fontsize() == pytest.approx(
                0.92 * style.MEDIA[medium].font
            )
        assert widths["column"] < widths["notebook"] < widths["slide"] and widths["column"] <= 3.3
        made = plots.save(ax, tmp_path / "figure")
        assert made.name == "figure.png" and (tmp_path / "figure.pdf").read_bytes()[:4] == b"%PDF"
        assert b"Spearman" in plots.save(ax, tmp_path / "figure.svg").read_bytes(), (
            "text stays text"
        )
        with pytest.raises(ValueError, match="medium='poster' is unknown"):
            plots.use_style("poster")
    finally:
        matplotlib.rcdefaults()


def test_each_method_has_one_look_of_its_own():
    found = style.looks(prune.METHODS)
    assert found["yoco"] == style.looks(["ssp", "yoco"])["yoco"]
    assert len({look["marker"] for look in found.values()}) == len(found), (
        "colour is not all that tells them apart"
    )


def test_a_sample_s_course_is_the_recorded_one(toy_set, toy_dynamics):
    correct = torch.zeros(12, dtype=torch.bool)
    correct[[2, 3, 7]] = True  # forgotten by epochs 5 and 9, counted from 1
    ax = plots.right_and_wrong(correct)
    assert ax.lines[0].get_xdata().tolist() == [5, 9] and "2×" in ax.get_xlabel()
    number = 30
    picture, probability, margin, course = plots.sample(toy_set, toy_dynamics, number).axes
    assert (
        toy_set.classes[toy_set.formed_labels[number]] in picture.get_title()
        and ("row 1, column 0") in picture.get_title()
    )
    own = toy_dynamics.logits[:, number].softmax(-1)[:, toy_dynamics.labels[number]]
    assert (
        np.allclose(probability.lines[0].get_ydata(), own)
        and probability.lines[0].get_xdata()[0] == 1
    )
    assert (
        np.sign(margin.lines[0].get_ydata())
        == np.sign(toy_dynamics.correct[toy_dynamics.kept, number].numpy() - 0.5)
    ).all()
    assert len(course.lines[0].get_xdata()) == toy_dynamics.forgetting[number]
    with pytest.raises(ValueError, match="index"):
        plots.sample(toy_set, toy_dynamics, 60)


def test_two_scores_show_the_images_at_the_corners(toy_set, toy_dynamics):
    table = prune.score_table(toy_set, toy_dynamics)
    ax = plots.two_scores(toy_set, table, "lbpe", "el2n", label=2, count=1)
    formed, _ = toy_set.form()
    own = table[table["label"] == 2].reset_index(drop=True)
    hardest = (own["lbpe"].rank() + own["el2n"].rank()).idxmax()
    corners = {
        (round(box.get_position().x0, 1), round(box.get_position().y0, 1)): box.images[
            0
        ].get_array()
        for box in ax.child_axes
    }
    assert np.allclose(corners[max(corners)], plots.pixels(formed[own["index"][hardest]]))
    assert len(ax.child_axes) == 4 and ax.get_xlabel() == "LBPE (high is hard)"
    with pytest.raises(ValueError, match="y='lpbe' is unknown"):
        plots.two_scores(toy_set, table, y="lpbe")


def test_one_class_has_a_row_for_each_method(toy_set, toy_dynamics):
    kept = study.selections(toy_set, toy_dynamics, [1])
    ax = plots.kept_of_class(toy_set, kept, 1)
    assert [text.get_text() for text in ax.texts][-1] == "YOCO+: 4 of 20"
    assert len(ax.collections[0].get_paths()) == sum(int(s.per_class_counts[1]) for s in kept)
    figure = plots.kept_by_method(toy_set, kept)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles[8].startswith("YOCO+") and titles[9:] == [""], "two rows of five"


@pytest.mark.parametrize(
    "count, shape", [(1, (1, 1)), (5, (1, 5)), (6, (2, 3)), (9, (2, 5)), (11, (3, 4))]
)
def test_panels_leave_little_room_empty(count, shape):
    assert style.panels(count) == shape


def test_a_legend_leaves_its_bars_room():
    rows = [
        (model, choice, 50.0 + run)
        for model in ("convnet", "resnet10")
        for choice in ("Random, unbalanced", "YOCO, balanced")
        for run in (0, 1)
    ]
    rows += [(model, "YOCO, unbalanced", 50.0) for model in ("convnet", "resnet10")]
    with plt.rc_context():
        plots.use_style("notebook")
        ax = plots.bars(
            pd.DataFrame(rows, columns=["model", "choice", "accuracy"]), "model", "choice"
        )
        ax.figure.canvas.draw()
    assert ax.get_position().width > 0.7


def test_a_legend_stands_above_its_lines():
    published = paper.beside("cifar10", 10)
    prefixes = pd.DataFrame(
        [("yoco", "uint8", 2560, 40.0), ("yoco", "float32", 20480, 41.0)],
        columns=["method", "stored", "bytes", "accuracy"],
    )
    with plt.rc_context():
        plots.use_style("notebook")
        by_bytes = plots.accuracy_by_bytes(prefixes)
        for ax in (plots.accuracy_by_budget(published.assign(n=3), published), by_bytes):
            ax.figure.canvas.draw()
            legend = ax.get_legend().get_window_extent()
            assert legend.y0 >= ax.bbox.y1 and legend.x1 <= ax.figure.bbox.x1
        shown = [tick.get_text() for tick in by_bytes.get_xticklabels()]
    assert {"5,000", "10,000", "20,000"} <= set(shown)


def test_a_saved_figure_keeps_its_layout(toy_set, tmp_path):
    with plt.rc_context():
        plots.use_style("notebook")
        drawn = plots.style.figure_of(plots.condensed_set(toy_set))
        assert drawn.get_constrained_layout()
        plots.save(drawn, tmp_path / "figure.png")
    assert not drawn.get_constrained_layout()  # which takes as long as drawing


def test_wrong_arguments_of_figures_are_named(toy_set, toy_dynamics):
    table = prune.score_table(toy_set, toy_dynamics)
    for call, match in (
        (lambda: plots.extremes(toy_set, table["lbpe"]), "score must be a tensor"),
        (lambda: plots.extremes(toy_set, torch.rand(5)), r"score must have shape \[60\]"),
        (lambda: plots.loss_curve(toy_set), "condensed must have the history of a condensation"),
        (lambda: plots.progress(toy_set), "condensed must have the history of a condensation"),
        (lambda: plots.score_distributions(table, "lbpe"), "scores must be a sequence"),
        (lambda: plots.score_distributions(table, []), "scores must hold at least one"),
        (lambda: plots.rank_correlations(table, ["lbpe", "lbpf"]), "did you mean 'lbpe'"),
        (lambda: plots.kept_by_method(toy_set, []), "selections must hold at least one"),
        (lambda: plots.condensed_set(toy_set, 0), "per_class must be at least 1"),
        (lambda: plots.sample(toy_set, None, 0), "needs dynamics, got None"),
    ):
        with pytest.raises((TypeError, ValueError), match=match):
            call()
    assert not plt.get_fignums(), "and no figure was begun"


def test_two_scores_must_differ(toy_set, toy_dynamics):
    table = prune.score_table(toy_set, toy_dynamics)
    with pytest.raises(ValueError, match="x and y must be different scores, got 'aum' twice"):
        plots.two_scores(toy_set, table, "aum", "aum")


def test_two_scores_are_chosen_among_those_that_are_there(toy_set, toy_dynamics):
    table = prune.score_table(toy_set, toy_dynamics)
    for columns, other in ((table, "AUM"), (table.drop(columns="aum"), "EL2N")):
        assert other in plots.two_scores(toy_set, columns).get_ylabel()


def test_a_selection_from_another_set_is_not_drawn(toy, toy_set):
    other = prune.prune(condense.real_set(toy, 5, 2, seed=1), None, "random", 1)
    for draw in (plots.kept_and_dropped, lambda s, kept: plots.kept_by_method(s, [kept])):
        with pytest.raises(ValueError, match="must be the set that this is selected from"):
            draw(toy_set, other)


def test_a_figure_is_saved_under_the_home_directory(toy_set, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    saved = plots.save(plots.condensed_set(toy_set), "~/figure.png")
    assert saved == tmp_path / "figure.png" and saved.exists()
