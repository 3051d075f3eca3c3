import hashlib
import itertools
from dataclasses import replace

import pandas as pd
import pytest
import torch

from yoco import RankedSet, condense, dynamics, evaluate, prune
from yoco.experiments import by_bytes, condensations, paper, results_file, study
from yoco.prune import ccs_cutoffs
from yoco.training import network as train
from yoco.training import protocol, resumable

FAST = {"width": 8, "precision": "float32", "progress": False, "jobs": 1}
GRID = {"methods": ["random", "yoco"], "ipc_to": [1, 2], "seeds": [0, 1], "epochs": 2, **FAST}


@pytest.fixture(scope="module")
def two_dynamics(toy_set, toy_dynamics):
    return [
        toy_dynamics,
        dynamics.record(toy_set, epochs=12, seed=1, width=8, precision="float32", progress=False),
    ]


def test_grid_gives_a_row_a_run(toy, toy_set, two_dynamics, tmp_path):
    table = study.run(toy_set, toy, two_dynamics, results=tmp_path / "r.csv", **GRID)
    assert len(table) == 2 * 2 * 2 * 2 and list(table.columns) == results_file.COLUMNS
    written = pd.read_csv(tmp_path / "r.csv")
    assert (
        written.accuracy.tolist() == table.accuracy.tolist()
        and set(written.precision) == {"float32"}
        and set(written.width) == {8}
    )
    images, labels = toy_set.form()
    row = table[
        (table.method == "yoco") & (table.ipc_to == 2) & (table.dynamics == 1) & (table.seed == 1)
    ].iloc[0]
    kept = prune.prune(toy_set, two_dynamics[1], "yoco", 2, seed=1).indices
    assert row.accuracy == pytest.approx(
        evaluate.evaluate(
            images[kept], labels[kept], toy, epochs=2, seed=1, width=8, precision="float32"
        ),
        abs=1e-4,
    )


def test_finished_cells_are_skipped_on_resuming(toy, toy_set, two_dynamics, tmp_path, monkeypatch):
    whole = study.run(toy_set, toy, two_dynamics, **GRID)
    real, calls = evaluate.train_and_test, []

    def broken(*arguments):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(evaluate, "train_and_test", broken)
    with pytest.raises(KeyboardInterrupt):
        study.run(toy_set, toy, two_dynamics, results=tmp_path / "r.csv", **GRID)
    assert len(pd.read_csv(tmp_path / "r.csv")) == 5
    rest = study.run(toy_set, toy, two_dynamics, results=tmp_path / "r.csv", **GRID)
    assert len(calls) == 6 + 11 and rest.accuracy.tolist() == pytest.approx(
        whole.accuracy.tolist(), abs=1e-4
    )
    study.run(toy_set, toy, two_dynamics, results=tmp_path / "r.csv", **GRID)
    assert len(calls) == 17


def test_cells_of_another_set_or_protocol_are_not_reused(toy, toy_set, two_dynamics, tmp_path):
    first = study.run(toy_set, toy, two_dynamics[:1], results=tmp_path / "r.csv", **GRID)
    other = study.run(
        toy_set, toy, two_dynamics[:1], results=tmp_path / "r.csv", **{**GRID, "width": 4}
    )
    assert (
        set(first.fingerprint).isdisjoint(other.fingerprint)
        and len(pd.read_csv(tmp_path / "r.csv")) == 16
    )


def test_dynamics_of_another_last_batch_are_refused(toy, toy_set, two_dynamics):
    told = r"dynamics\[0\] were recorded with last_batch='even', but training uses 'small'"
    told += r"; record them again, or train with protocol='even'"
    with pytest.raises(ValueError, match=told):
        study.run(toy_set, toy, two_dynamics, protocol="paper", **GRID)
    old = replace(
        two_dynamics[0],
        info={k: v for k, v in two_dynamics[0].info.items() if k not in protocol.BEFORE},
    )
    assert old.training == {"last_batch": "small", "augmentation": "dsa"}  # a file of version 0.1
    assert replace(old, info={}).training == {}  # made by hand
    study.run(
        toy_set,
        toy,
        [replace(old, info={})],
        **{**GRID, "methods": ["yoco"], "ipc_to": [1], "seeds": [0]},
    )


def test_dynamics_of_another_augmentation_are_refused(toy, toy_set, two_dynamics, tmp_path):
    told = r"dynamics\[0\] were recorded with augmentation='dsa', but training uses 'imagenet'"
    with pytest.raises(
        ValueError, match=told + ("; record them again, or train with augmentation='dsa'")
    ):
        study.run(toy_set, toy, two_dynamics, augmentation="imagenet", **GRID)
    grid = {
        **GRID,
        "methods": ["random"],
        "ipc_to": [1],
        "seeds": [0],
        "results": tmp_path / "r.csv",
    }
    ways = [
        study.run(toy_set, toy, [None], **grid, augmentation=name) for name in ("dsa", "imagenet")
    ]
    assert (
        pd.read_csv(tmp_path / "r.csv").augmentation.tolist()
        == [way.augmentation[0] for way in ways]
        == ["dsa", "imagenet"]
    )
    assert (
        ways[0].fingerprint[0] != ways[1].fingerprint[0]
        and ways[0].fingerprint[0] == study.run(toy_set, toy, [None], **grid).fingerprint[0]
    )


def test_fingerprints_are_those_of_earlier_versions(toy_set):
    """Rows written by earlier versions are found again, for trainings that were possible then.

    Another network of the same name is another training.
    """
    cell = study.grid(toy_set, [None], [{"method": "random"}], ipc_to=[1], epochs=3, width=8)[0]
    digest = lambda **fields: (
        replace(cell, protocol=train.Protocol.of(**{"epochs": 3, "width": 8, **fields})).fingerprint
    )
    of_then = lambda fields: hashlib.sha256(
        toy_set.fingerprint.encode()
        + cell.selection.indices.numpy().tobytes()
        + repr((sorted(fields.items()), 0)).encode()
    ).hexdigest()[:16]
    fields = {
        "epochs": 3,
        "model": "convnet",
        "width": 8,
        "batch_size": 64,
        "cutmix": 0.5,
        "precision": "auto",
        "compiled": None,
    }
    fields |= {"optimiser": {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}}
    assert digest(protocol="paper") == of_then(fields) and digest() == of_then(
        {**fields, "last_batch": "even"}
    )
    as_paper = protocol.AdamW(**fields["optimiser"])
    assert digest(protocol="ncfm", batch_size=64, optimiser=as_paper) != of_then(fields)
    assert digest(protocol="paper", model="resnet10ap", width=None) != of_then(
        {**fields, "model": "resnet10ap", "width": None}
    )
    assert digest(protocol="paper", model="resnet10", width=None) == of_then(
        {**fields, "model": "resnet10", "width": None}
    )


def test_only_the_published_protocol_reads_0_1_rows(toy, toy_set, tmp_path):
    grid = {
        **GRID,
        "methods": ["random"],
        "ipc_to": [1],
        "seeds": [0],
        "protocol": "paper",
        "results": tmp_path / "r.csv",
    }
    table = study.run(toy_set, toy, [None], **grid)
    rows = pd.read_csv(tmp_path / "r.csv", dtype=str, keep_default_na=False).drop(
        columns=[*protocol.BEFORE, results_file.DATA]
    )
    columns = [name for name in results_file.COLUMNS if name not in protocol.BEFORE]
    rows["accuracy"] = "12.5"
    rows["check"] = [results_file._check(row, columns) for row in rows.to_dict("records")]
    rows.to_csv(tmp_path / "r.csv", index=False)
    with pytest.warns(UserWarning, match="r.csv is from an earlier version"):
        assert study.run(toy_set, toy, [None], **grid).accuracy.tolist() == [12.5]
    again = study.run(toy_set, toy, [None], **{**grid, "protocol": "even"})
    assert again.fingerprint[0] != table.fingerprint[0] and again.accuracy[0] != 12.5
    written = pd.read_csv(tmp_path / "r.csv")
    assert written.last_batch.tolist() == ["small", "even"] and written.augmentation.tolist() == [
        "dsa",
        "dsa",
    ]


def test_a_foreign_csv_is_refused(toy, toy_set, two_dynamics, tmp_path):
    (tmp_path / "r.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="r.csv is not a valid results file: it lacks"):
        study.run(toy_set, toy, two_dynamics, results=tmp_path / "r.csv", **GRID)


def test_bad_budget_is_refused_before_training(toy, toy_set, two_dynamics):
    with pytest.raises(ValueError, match="ipc_to must be between 1 and 5, got 6"):
        study.run(toy_set, toy, two_dynamics, **{**GRID, "ipc_to": [1, 6], "epochs": 10**6})
    with pytest.raises(ValueError, match="dynamics must hold at least one value"):
        study.run(toy_set, toy, [], **GRID)


def test_epochs_can_differ_by_budget(toy, toy_set, toy_dynamics):
    table = study.run(
        toy_set, toy, [toy_dynamics], **{**GRID, "seeds": [0], "epochs": {1: 3, 2: 1}}
    )
    assert table.epochs.tolist() == [3, 1, 3, 1]
    kept = prune.prune(toy_set, toy_dynamics, "yoco", 2).subset(toy_set)
    assert table.accuracy[3] == pytest.approx(
        evaluate.evaluate(*kept, toy, epochs=1, seed=0, width=8, precision="float32"), abs=1e-4
    )
    with pytest.raises(ValueError, match=r"must have a number for ipc_to \[2\], got only \[1\]"):
        study.run(toy_set, toy, [toy_dynamics], **{**GRID, "epochs": {1: 3}})


def test_equal_trainings_are_done_once_and_found_by_other_grids(
    toy, toy_set, toy_dynamics, tmp_path, monkeypatch
):
    real, calls = evaluate.train_and_test, []
    monkeypatch.setattr(
        evaluate, "train_and_test", lambda *arguments: calls.append(1) or real(*arguments)
    )
    options = {"ipc_to": [1], "epochs": 2, "width": 8, "precision": "float32"}
    where = {"results": tmp_path / "r.csv", "progress": False, "jobs": 1}
    variants = [
        {"method": "yoco"},
        {"method": "yoco", "output": "probabilities"},
        {"method": "yoco", "balanced": False, "keep": "hard"},
    ]
    table = study.train(study.grid(toy_set, [toy_dynamics], variants, **options), toy, **where)
    assert len(calls) == 2 and len(pd.read_csv(tmp_path / "r.csv")) == 2
    assert (
        list(table.columns) == [*results_file.COLUMNS, "output"]
        and table.accuracy[0] == table.accuracy[1]
    )
    assert table["output"].isna().tolist() == [True, False, True] and table.balanced.tolist() == [
        True,
        True,
        False,
    ]
    again = study.run(toy_set, toy, [toy_dynamics], methods=["yoco"], **options, **where)
    assert len(calls) == 2 and again.accuracy.tolist() == table.accuracy[:1].tolist()
    study.run(toy_set, toy, [toy_dynamics], methods=["yoco"], **{**options, "epochs": 3}, **where)
    study.run(toy_set, toy, [toy_dynamics], methods=["yoco"], **options, seeds=[1], **where)
    assert len(calls) == 4


def test_random_needs_no_dynamics(toy, toy_set, toy_dynamics):
    without = study.run(toy_set, toy, [None, None], **{**GRID, "methods": ["random"]})
    with_them = study.run(toy_set, toy, [toy_dynamics] * 2, **{**GRID, "methods": ["random"]})
    assert without.equals(with_them) and without.fingerprint.nunique() == 8
    with pytest.raises(ValueError, match="method='yoco' needs dynamics, got None"):
        study.run(toy_set, toy, [None], **GRID)


def test_paper_tables():
    table = paper.table2()
    assert len(table) == 189 and set(table.method) == {
        "idc",
        "dream",
        "ssp",
        "entropy",
        "aum",
        "forgetting",
        "el2n",
        "ccs",
        "yoco",
    }
    assert (
        ccs_cutoffs.hard_cutoff("cifar100", 20, 5) == 0.3
        and ccs_cutoffs.hard_cutoff("cifar10", 10, 3) == 0.1
    )
    assert [
        ccs_cutoffs.most_like(*shape) for shape in ((10, 32), (100, 32), (10, 64), (200, 64))
    ] == [
        "cifar10",
        "cifar100",
        "imagenet10",
        "imagenet10",
    ]
    assert (
        ccs_cutoffs.dataset_of("cifar10", 10)
        == ccs_cutoffs.dataset_of("folder:cifar10-jpeg", 10)
        == "cifar10"
    )
    assert (
        ccs_cutoffs.dataset_of("cifar10", 3) is None
        and ccs_cutoffs.dataset_of("folder:cats", 10) is None
    )
    assert len(paper.beside("cifar10", 10)) == 27 and paper.beside("cifar10", 11) is None


@pytest.fixture
def clock(monkeypatch):
    """The loop's clock, on which a second passes between looks."""
    seconds = itertools.count()
    monkeypatch.setattr(resumable.time, "monotonic", lambda: float(next(seconds)))


def test_condensations_get_equal_time_and_their_own_start(toy, monkeypatch, clock):
    measured, original = [], evaluate.evaluate_many
    monkeypatch.setattr(
        condensations,
        "evaluate_many",
        lambda subsets, *rest, **options: (
            measured.append(subsets) or original(subsets, *rest, **options)
        ),
    )
    table, sets = study.condensations(
        toy, ["idc", "dsa"], 4.0, ipc=1, preset="smoke", epochs=2, **FAST
    )
    assert list(sets) == ["idc", "dsa"] and [made.factor for made in sets.values()] == [2, 1]
    assert all(
        made.info["steps"] == 4 and made.info["seconds"] == 5 and not made.info["finished"]
        for made in sets.values()
    )
    assert table.subset.tolist() == ["start", "condensed"] * 2 and table.method.tolist() == [
        "idc",
        "idc",
        "dsa",
        "dsa",
    ]
    (subsets,) = measured
    for method, made in sets.items():
        assert torch.equal(
            subsets[method, "start"][0],
            condense.start_set(toy, method, 1, preset="smoke").form()[0],
        )
        assert torch.equal(subsets[method, "condensed"][0], made.form()[0])


def test_a_comparison_takes_existing_sets_and_accuracies(toy, toy_set, monkeypatch):
    ready = {
        "idc": replace(toy_set, info={"steps": 7, "seconds": 1.5}),
        "dsa": replace(toy_set, info={"steps": 9, "seconds": 2.5}),
    }
    told = {"seed": 0, "last_batch": "even", "augmentation": "dsa", "precision": "float32"}
    rows = {"subset": ["start", "condensed"], **told, "accuracy": [10.0, 20.0]}
    monkeypatch.setattr(condense, "condense", lambda *_, **__: pytest.fail("condensed again"))
    known = {"idc": pd.DataFrame(rows)}
    table, sets = study.condensations(
        toy, ["dsa", "idc"], 4.0, ipc=1, preset="smoke", ready=ready, known=known, epochs=1, **FAST
    )
    assert (
        sets["dsa"] is ready["dsa"]
        and table.method.tolist() == ["dsa", "dsa", "idc", "idc"]
        and table.steps.tolist() == [9, 9, 7, 7]
    )
    assert table.accuracy[2:].tolist() == [10.0, 20.0] and [*table] == condensations.COMPARED
    again, _ = study.condensations(
        toy,
        ["idc"],
        4.0,
        ipc=1,
        preset="smoke",
        seeds=[0, 1],
        ready=ready,
        known=known,
        epochs=1,
        **FAST,
    )
    # seed 1 was not known
    assert len(again) == 4 and again.accuracy.tolist() != [10.0, 20.0, 10.0, 20.0]


def test_equal_starts_are_trained_on_once(toy, monkeypatch):
    measured, original = [], evaluate.evaluate_many
    noted = lambda subsets, *rest, **options: (
        measured.append(list(subsets)) or original(subsets, *rest, **options)
    )
    monkeypatch.setattr(condensations, "evaluate_many", noted)
    methods = ["dsa", "mtt", "idc", "ncfm", "kip"]
    ready = {method: condense.start_set(toy, method, 1, preset="smoke") for method in methods}
    ready = {m: replace(made, info={"steps": 1, "seconds": 1}) for m, made in ready.items()}
    rows = {
        "subset": ["start", "condensed"],
        "seed": 0,
        "last_batch": "even",
        "precision": "float32",
        "accuracy": [10.0, 20.0],
    }
    options = {
        "ipc": 1,
        "preset": "smoke",
        "ready": ready,
        "known": {"idc": pd.DataFrame(rows)},
        "epochs": 1,
    }
    table, _ = study.condensations(toy, methods, 4.0, **options, **FAST)
    assert measured == [
        [("dsa", "start"), *((method, "condensed") for method in methods if method != "idc")]
    ]
    assert table.subset.tolist() == ["start", "condensed"] * 5 and table.method.tolist() == [
        method for method in methods for _ in range(2)
    ]
    starts = table[table.subset == "start"].set_index("method").accuracy
    assert starts["ncfm"] == starts["idc"] == 10 and starts["dsa"] == starts["mtt"] == starts["kip"]
    training = {"epochs": 1, "seed": 0, "width": 8, "precision": "float32"}
    assert starts["kip"] == evaluate.evaluate(
        *condense.start_set(toy, "kip", 1, preset="smoke").form(), toy, **training
    )


def test_a_comparison_ends_in_time_at_paper_scale_too(toy, clock):
    made = study.condensations(toy, ["kip"], 2.0, ipc=1, preset="paper", epochs=1, **FAST)[1]["kip"]
    assert (
        made.info["kernel"] == "fc"
        and made.info["steps"] == 2
        and not made.info["finished"]
        and made.info["settings"]["real_batch"] == 5000
    )


def test_by_bytes_rounds_what_a_new_selection_keeps(toy, toy_set, tmp_path, monkeypatch):
    exact = replace(toy_set, images=0.99 * toy_set.images)
    recorded = dynamics.record(exact, epochs=2, seed=0, width=4, progress=False)
    how = {"ipc_to": [1], "epochs": 1, **FAST}
    trained, evaluate_many = {}, by_bytes.evaluate_many
    monkeypatch.setattr(
        by_bytes,
        "evaluate_many",
        lambda subsets, *rest, **how: (
            trained.update(subsets) or evaluate_many(subsets, *rest, **how)
        ),
    )
    table = study.by_bytes(exact, toy, recorded, tmp_path, methods=["ssp", "ccs"], **how)
    assert table.method.tolist() == ["ssp", "ccs"] and set(table.stored) == {"uint8"}
    rounded = replace(exact, images=(exact.images * 255).round() / 255)
    for (method, *_), (images, _) in trained.items():
        kept = prune.prune(exact, recorded, method, 1, balanced=True).indices
        assert torch.equal(images, rounded.form()[0][kept])
        assert not torch.equal(images, exact.form()[0][kept])


def test_by_bytes_trains_on_prefixes_of_the_files(toy, toy_set, toy_dynamics, tmp_path):
    table = study.by_bytes(
        toy_set,
        toy,
        toy_dynamics,
        tmp_path,
        methods=["yoco", "aum", "ccs"],
        ipc_to=[1, 2],
        epochs=2,
        **FAST,
    )
    assert list(zip(table.method, table.stored, table.per_class)) == [
        ("yoco", "uint8", 4),
        ("yoco", "uint8", 8),
        ("yoco", "float32", 4),
        ("yoco", "float32", 8),
        ("aum", "uint8", 4),
        ("aum", "uint8", 8),
        ("ccs", "uint8", 4),
        ("ccs", "uint8", 8),
    ]
    # classes, channels, cells of 8x8
    assert table.bytes.tolist() == [b * 3 * 3 * 8 * 8 for b in (4, 8, 16, 32, 4, 8, 4, 8)]
    images, labels = RankedSet.open(tmp_path / "ranked-aum.safetensors").take(ipc=2)
    training = {"epochs": 2, "seed": 0, "width": 8, "precision": "float32"}
    assert table.accuracy[5] == evaluate.evaluate(images, labels, toy, **training)
    rounded = replace(toy_set, images=(toy_set.images * 255).round() / 255)
    chosen = prune.prune(toy_set, toy_dynamics, "ccs", 2, balanced=True).subset(rounded)
    assert table.accuracy[7] == evaluate.evaluate(*chosen, toy, **training)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "ranked-aum.safetensors",
        "ranked-yoco.safetensors",
    ]


def test_unknown_methods_are_named_before_any_work(toy, toy_set, toy_dynamics, tmp_path):
    with pytest.raises(ValueError, match="method='foo' is unknown"):
        study.by_bytes(toy_set, toy, toy_dynamics, tmp_path, methods=["foo"], epochs=1)
    with pytest.raises(TypeError, match="methods must be a sequence, got 'ssp'"):
        study.by_bytes(toy_set, toy, toy_dynamics, tmp_path, methods="ssp", epochs=1)
    with pytest.raises(ValueError, match="method='foo' is unknown"):
        study.condensations(toy, ["foo"], 1.0)


def test_networks_are_normalised_as_the_set_says(toy, toy_set):
    """Also on real data of other statistics, such as a folder's own."""
    other = replace(toy, mean=(0.1,) * 3, std=(0.9,) * 3)
    how = {"epochs": 3, "seed": 0, "width": 4, "precision": "float32"}
    mine, theirs = (evaluate.evaluate(*toy_set.form(), data, **how) for data in (toy, other))
    told = evaluate.evaluate(*toy_set.form(), other, space=toy_set.space, **how)
    assert told == mine != theirs
    options = {"methods": ["random"], "ipc_to": [1], "epochs": 3, "width": 4, "progress": False}
    tables = [study.run(toy_set, data, [None], **options) for data in (toy, other)]
    assert tables[0].equals(tables[1])
