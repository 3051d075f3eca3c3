from dataclasses import replace

import pandas as pd
import pytest
import torch

from yoco import CondensedSet, RankedSet, condense, dynamics, evaluate, paper, study

FAST = {"width": 8, "precision": "float32", "progress": False, "jobs": 1}
GRID = {"methods": ["random", "yoco"], "ipc_to": [1, 2], "seeds": [0, 1], "epochs": 2, **FAST}


@pytest.fixture(scope="module")
def two_dynamics(toy_set, toy_dynamics):
    return [toy_dynamics, dynamics.record(toy_set, epochs=12, seed=1, width=8, precision="float32", progress=False)]


def test_grid_gives_a_row_a_run(toy, toy_set, two_dynamics, tmp_path):
    table = study.run(toy_set, toy, two_dynamics, results=tmp_path / "r.csv", **GRID)
    assert len(table) == 2 * 2 * 2 * 2 and list(table.columns) == study.COLUMNS
    written = pd.read_csv(tmp_path / "r.csv")
    assert written.accuracy.tolist() == table.accuracy.tolist() and set(written.precision) == {"float32"} and set(written.width) == {8}
    images, labels = toy_set.form()
    row = table[(table.method == "yoco") & (table.ipc_to == 2) & (table.dynamics == 1) & (table.seed == 1)].iloc[0]
    kept = study.prune(toy_set, two_dynamics[1], "yoco", 2, seed=1).indices
    assert row.accuracy == pytest.approx(evaluate.evaluate(images[kept], labels[kept], toy, epochs=2, seed=1, width=8, precision="float32"), abs=1e-4)


def test_finished_cells_are_kept_and_skipped_and_a_broken_run_goes_on(toy, toy_set, two_dynamics, tmp_path, monkeypatch):
    whole = study.run(toy_set, toy, two_dynamics, **GRID)
    real, calls = evaluate._accuracy, []

    def broken(*arguments):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(evaluate, "_accuracy", broken)
    with pytest.raises(KeyboardInterrupt):
        study.run(toy_set, toy, two_dynamics, results=tmp_path / "r.csv", **GRID)
    assert len(pd.read_csv(tmp_path / "r.csv")) == 5
    rest = study.run(toy_set, toy, two_dynamics, results=tmp_path / "r.csv", **GRID)
    assert len(calls) == 6 + 11 and rest.accuracy.tolist() == pytest.approx(whole.accuracy.tolist(), abs=1e-4)
    study.run(toy_set, toy, two_dynamics, results=tmp_path / "r.csv", **GRID)
    assert len(calls) == 17


def test_cells_of_another_set_or_protocol_are_not_reused(toy, toy_set, two_dynamics, tmp_path):
    first = study.run(toy_set, toy, two_dynamics[:1], results=tmp_path / "r.csv", **GRID)
    other = study.run(toy_set, toy, two_dynamics[:1], results=tmp_path / "r.csv", **{**GRID, "width": 4})
    assert set(first.fingerprint).isdisjoint(other.fingerprint) and len(pd.read_csv(tmp_path / "r.csv")) == 16


def test_a_foreign_csv_is_refused(toy, toy_set, two_dynamics, tmp_path):
    (tmp_path / "r.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="r.csv is no table of results: it lacks"):
        study.run(toy_set, toy, two_dynamics, results=tmp_path / "r.csv", **GRID)


def test_bad_budget_is_refused_before_training(toy, toy_set, two_dynamics):
    with pytest.raises(ValueError, match="ipc_to must be between 1 and 5, got 6"):
        study.run(toy_set, toy, two_dynamics, **{**GRID, "ipc_to": [1, 6], "epochs": 10**6})
    with pytest.raises(ValueError, match="at least one each"):
        study.run(toy_set, toy, [], **GRID)


def results_of(values):
    rows = [("idc", m, 1, d, 0, 10, "x", "smoke", "convnet", "", "float32", a) for m, accuracies in values.items() for d, a in enumerate(accuracies)]
    return pd.DataFrame(rows, columns=study.COLUMNS)


def test_summary_pivot_and_paired_by_hand():
    results = results_of({"random": [10.0, 20.0, 30.0], "yoco": [15.0, 26.0, 29.0]})
    summary = study.summary(results)
    assert summary["mean"].tolist() == pytest.approx([20, 70 / 3]) and summary["std"][0] == pytest.approx(10) and summary["n"].tolist() == [3, 3]
    assert study.pivot(summary).loc[1, "random"] == "20.00 ± 10.00"
    mixed = study.summary(results.assign(precision=["bfloat16", *results.precision[1:]]))
    assert summary.precision.tolist() == ["float32", "float32"] and mixed.precision.tolist() == ["bfloat16+float32", "float32"]
    gap = study.paired(results).iloc[0]
    assert (gap["method"], gap["wins"], gap["n"]) == ("random", 2, 3) and gap["mean"] == pytest.approx((5 + 6 - 1) / 3)


def test_beside_paper_subtracts_table_2(toy_set):
    results = results_of({"random": [28.0], "yoco": [43.0]})
    labels = torch.arange(10).repeat_interleave(10)
    info = {"dataset": "folder:cifar10-jpeg"}
    ten = CondensedSet(torch.zeros(100, 3, 8, 8), labels, 2, tuple("abcdefghij"), (0.5,) * 3, (0.2,) * 3, "idc", info)
    table = study.beside_paper(results, ten)
    assert table.precision.tolist() == ["float32"] * 2
    assert table.paper.tolist() == [28.23, 42.28] and table.difference.tolist() == pytest.approx([-0.23, 0.72])
    assert study.beside_paper(results, replace(ten, info={"dataset": "digits"})) is None


def test_class_balance_counts_what_stays(toy_set, toy_dynamics):
    kept = study.selections(toy_set, toy_dynamics, [1, 2])
    table = study.class_balance(toy_set, kept)
    assert len(table) == 8 * 2 * 3 and table.groupby(["method", "ipc_to"]).kept.sum().unstack().loc["aum"].tolist() == [12, 24]


def test_paper_tables():
    table = paper.table2()
    assert len(table) == 189 and set(table.method) == {"idc", "dream", "ssp", "entropy", "aum", "forgetting", "el2n", "ccs", "yoco"}
    assert paper.hard_cutoff("cifar100", 20, 5) == 0.3 and paper.hard_cutoff(None, 10, 1) == 0.3
    assert paper.dataset_of("cifar10", 10) == paper.dataset_of("folder:cifar10-jpeg", 10) == "cifar10"
    assert paper.dataset_of("cifar10", 3) is None and paper.dataset_of("folder:cats", 10) is None
    assert len(paper.beside("cifar10", 10)) == 27 and paper.beside("cifar10", 11) is None


def test_condensations_are_given_the_same_time_and_their_own_start(toy, monkeypatch):
    measured, original = [], evaluate.evaluate_many
    monkeypatch.setattr(study, "evaluate_many", lambda subsets, *rest, **options: measured.append(subsets) or original(subsets, *rest, **options))
    table, sets = study.condensations(toy, ["idc", "dsa"], 0.2, ipc=1, preset="smoke", epochs=2, **FAST)
    assert list(sets) == ["idc", "dsa"] and [made.factor for made in sets.values()] == [2, 1]
    assert all(0.2 <= made.info["seconds"] < 5 and not made.info["finished"] for made in sets.values())
    assert table.subset.tolist() == ["start", "condensed"] * 2 and table.method.tolist() == ["idc", "idc", "dsa", "dsa"]
    for subsets, (method, made) in zip(measured, sets.items()):
        assert torch.equal(subsets["start"][0], condense.start_set(toy, method, 1, preset="smoke").form()[0])
        assert torch.equal(subsets["condensed"][0], made.form()[0])


def test_a_comparison_ends_in_time_at_paper_scale_too(toy):
    made = study.condensations(toy, ["kip"], 0.1, ipc=1, preset="paper", epochs=1, **FAST)[1]["kip"]
    assert made.info["kernel"] == "fc" and made.info["seconds"] < 5 and made.info["settings"]["real_batch"] == 5000


def test_by_bytes_trains_on_prefixes_of_the_files(toy, toy_set, toy_dynamics, tmp_path):
    table = study.by_bytes(toy_set, toy, toy_dynamics, tmp_path, methods=["yoco", "aum", "ccs"], ipc_to=[1, 2], epochs=2, **FAST)
    assert list(zip(table.method, table.stored, table.per_class)) == [
        ("yoco", "uint8", 4), ("yoco", "uint8", 8), ("yoco", "float32", 4), ("yoco", "float32", 8),
        ("aum", "uint8", 4), ("aum", "uint8", 8), ("ccs", "uint8", 4), ("ccs", "uint8", 8),
    ]
    assert table.bytes.tolist() == [b * 3 * 3 * 8 * 8 for b in (4, 8, 16, 32, 4, 8, 4, 8)]  # classes, channels, cells of 8x8
    images, labels = RankedSet.open(tmp_path / "ranked-aum.safetensors").take(ipc=2)
    training = {"epochs": 2, "seed": 0, "width": 8, "precision": "float32"}
    assert table.accuracy[5] == evaluate.evaluate(images, labels, toy, **training)
    rounded = replace(toy_set, images=(toy_set.images * 255).round() / 255)
    chosen = study.prune(toy_set, toy_dynamics, "ccs", 2, balanced=True).subset(rounded)
    assert table.accuracy[7] == evaluate.evaluate(*chosen, toy, **training)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ranked-aum.safetensors", "ranked-yoco.safetensors"]
