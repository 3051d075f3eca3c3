import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from yoco import CondensedSet, prune
from yoco.experiments import results_file, study, tables


def results_of(values):
    pairs = [(m, d, a) for m, accuracies in values.items() for d, a in enumerate(accuracies)]
    rows = [
        (
            "idc",
            m,
            "easy",
            False,
            1,
            d,
            0,
            10,
            "x",
            "smoke",
            "convnet",
            "",
            "even",
            "dsa",
            "float32",
            a,
        )
        for m, d, a in pairs
    ]
    return pd.DataFrame(rows, columns=results_file.COLUMNS)


def test_summary_pivot_and_paired_by_hand():
    results = results_of({"random": [10.0, 20.0, 30.0], "yoco": [15.0, 26.0, 29.0]})
    summary = tables.summary(results)
    assert (
        summary["mean"].tolist() == pytest.approx([20, 70 / 3])
        and summary["std"][0] == pytest.approx(10)
        and summary["n"].tolist() == [3, 3]
    )
    assert tables.pivot(summary).loc[1, "random"] == "20.00 ± 10.00"
    mixed = tables.summary(results.assign(precision=["bfloat16", *results.precision[1:]]))
    assert summary.precision.tolist() == ["float32", "float32"] and mixed.precision.tolist() == [
        "bfloat16+float32",
        "float32",
    ]
    gap = tables.paired(results).iloc[0]
    assert (gap["method"], gap["wins"], gap["n"]) == ("random", 2, 3) and gap[
        "mean"
    ] == pytest.approx((5 + 6 - 1) / 3)
    # t = (10/3) / (s / sqrt 3) with s² = 14.333: 1.525; P(T > t) of two degrees of freedom = (1 - t
    # / sqrt(2 + t²)) / 2
    t = (10 / 3) / math.sqrt(43 / 3 / 3)
    assert gap["p"] == pytest.approx((1 - t / math.sqrt(2 + t * t)) / 2)
    assert tables.verdict(tables.paired(results)) == (
        "IPC 1: YOCO's smallest lead is +3.33 ± 3.79 points, over Random (ahead in 2 of 3 pairs, "
        "p = 0.133, corrected 0.133)"
    )


def test_a_tie_is_not_a_win():
    gap = tables.paired(results_of({"random": [10.0, 20.0], "yoco": [10.0, 21.0]})).iloc[0]
    assert (gap["wins"], gap["n"]) == (1, 2)


def test_beside_paper_subtracts_table_2(toy_set):
    results = results_of({"random": [28.0], "yoco": [43.0]})
    labels = torch.arange(10).repeat_interleave(10)
    info = {"dataset": "folder:cifar10-jpeg"}
    ten = CondensedSet(
        torch.zeros(100, 3, 8, 8),
        labels,
        2,
        tuple("abcdefghij"),
        (0.5,) * 3,
        (0.2,) * 3,
        "idc",
        info,
    )
    table = tables.beside_paper(results, ten)
    assert table.precision.tolist() == ["float32"] * 2
    assert table.paper.tolist() == [28.23, 42.28] and table.difference.tolist() == pytest.approx(
        [-0.23, 0.72]
    )
    assert tables.beside_paper(results, replace(ten, info={"dataset": "digits"})) is None


def test_class_balance_counts_what_stays(toy_set, toy_dynamics):
    kept = study.selections(toy_set, toy_dynamics, [1, 2])
    table = tables.class_balance(toy_set, kept)
    kept_by = table.groupby(["method", "ipc_to"]).kept.sum().unstack()
    assert len(table) == len(prune.compared()) * 2 * 3 and kept_by.loc["aum"].tolist() == [12, 24]


def test_a_single_pair_has_no_p_value():
    gaps = tables.paired(results_of({"random": [10.0], "yoco": [15.0], "aum": [16.0]}))
    assert gaps.p.isna().all() and gaps.wins.tolist() == [1, 0]
    assert (
        "smallest lead is -1.00 points, over AUM (ahead in 0 of 1 pairs, p = nan, corrected nan)"
        in tables.verdict(gaps)
    )


def test_other_condensations_sets_become_columns():
    results = pd.concat(
        [
            results_of({"random": [1.0], "yoco": [2.0]}),
            results_of({"random": [3.0]}).assign(condensation="dream"),
        ]
    )
    named = tables.with_sets_as_columns(results, "idc")
    assert list(zip(named.method, named.accuracy)) == [
        ("random", 1.0),
        ("dream", 3.0),
        ("yoco", 2.0),
    ]


def test_table_2_has_ours_the_paper_s_and_the_difference():
    results = results_of({"random": [28.0, 29.0], "yoco": [43.0, 43.0]})
    comparison = (
        tables.summary(results)[["method", "ipc_to", "mean"]]
        .rename(columns={"mean": "ours"})
        .assign(paper=[28.23, 42.28])
    )
    table = tables.table2(
        comparison.assign(difference=comparison.ours - comparison.paper), tables.summary(results)
    )
    assert table.loc["Random"].tolist() == ["28.50 ± 0.71", "28.23\u00a0(+0.27)"]
    assert tables.markdown(table).splitlines() == [
        "| method | IPC 1 | IPC 1, paper |",
        "| --- | --- | --- |",
        "| Random | 28.50 ± 0.71 | 28.23\u00a0(+0.27) |",
        "| YOCO | 43.00 ± 0.00 | 42.28\u00a0(+0.72) |",
    ]
    assert tables.markdown(pd.DataFrame({"a": [1.234]}, index=pd.Index([7], name="b"))) == (
        "| b | a |\n| --- | --- |\n| 7 | 1.23 |\n"
    )


def test_the_order_of_the_methods_against_the_paper_s():
    comparison = pd.DataFrame(
        {
            "ipc_to": [1] * 4 + [2] * 2,
            "ours": [1.0, 2, 3, 9, 5, 4],
            "paper": [10, 30, 20, float("nan"), 4, 5],
        }
    )
    order = tables.order_as_paper(comparison)
    assert order.ipc_to.tolist() == [1, 2] and order.n.tolist() == [3, 2]
    assert order.spearman.tolist() == pytest.approx([0.5, -1.0])


def test_effects_of_the_rules_by_hand():
    rows = [
        ("yoco", "easy", False, 30.0),
        ("yoco", "easy", True, 50.0),
        ("yoco", "hard", False, 10.0),
        ("yoco", "hard", True, 20.0),
    ]
    effects = tables.rule_effects(
        pd.DataFrame(rows, columns=["method", "keep", "balanced", "accuracy"]).assign(ipc_to=1)
    ).iloc[0]
    assert effects["easy"] == pytest.approx(25) and effects["balanced"] == pytest.approx(15)


def test_spread_keeps_the_order_and_leaves_gaps_empty():
    results = pd.DataFrame(
        {"b": ["z", "z", "a"], "c": ["y", "y", "x"], "accuracy": [1.0, 3.0, 5.0]}
    )
    wide = tables.spread(results, "b", "c")
    assert wide.index.tolist() == ["z", "a"] and wide.columns.tolist() == ["y", "x"]
    assert wide.loc["z"].tolist() == ["2.00 ± 1.41", ""] and wide.loc["a"].tolist() == ["", "5.00"]


def test_holm_by_hand():
    p = pd.Series([0.01, 0.04, float("nan"), 0.03, 0.9], index=list("abcde"))
    corrected = tables.holm(p)
    assert corrected[["a", "d", "b", "e"]].round(6).tolist() == [0.04, 0.09, 0.09, 0.9]
    assert pd.isna(corrected["c"]) and tables.holm(pd.Series([0.6, 0.7])).tolist() == [1.0, 1.0]


def test_a_readable_table_never_wraps_and_has_its_best_in_bold():
    table = pd.DataFrame(
        {1: ["46.76 ± 3.95", "50.00"], 2: ["9.50 ± 0.10", "–"], "word": ["x", "y"]},
        index=pd.Index(["random", "yoco"], name="method"),
    )
    text = repr(tables.readable(table, best="column"))
    assert text == tables.readable(table, best="column")._repr_markdown_()
    assert text.splitlines() == [
        "| method | 1 | 2 | word |",
        "| --- | --- | --- | --- |",
        "| random | 46.76\u00a0±\u00a03.95 | **9.50\u00a0±\u00a00.10** | x |",
        "| yoco | **50.00** | – | y |",
    ]
    assert "| **46.76\u00a0±\u00a03.95** | 9.50" in repr(tables.readable(table, best="row"))
    assert "**" not in repr(tables.readable(table))
    for shape in ((1, 12), (12, 1)):  # the first is transposed
        with pytest.raises(ValueError, match="best='rows' is unknown"):
            tables.readable(pd.DataFrame(np.zeros(shape)), best="rows")
    wide = pd.DataFrame([range(7)], index=pd.Index(["x"], name="method"))
    assert repr(tables.readable(wide, best="row")).splitlines()[-1] == "| 6 | **6** |"
    assert (tables.counted(1, "seed"), tables.counted(2, "seed")) == ("1 seed", "2 seeds")
