"""Benchmarks that train on sets and keep finished trainings.

They measure the last batch of an epoch, accuracy against the time of condensing, sets on NCFM's own
terms, and rules to prune by.
"""

import itertools
from dataclasses import replace

import pandas as pd
import pytest
import torch

from benchmarks import (
    budgets,
    condensing_time,
    details,
    last_batch,
    ncfm_terms,
    parts,
    rules,
    two_rules,
)
from yoco import evaluate, prune
from yoco.sets.condensed_set import CondensedSet
from yoco.training import network as train
from yoco.training import protocol
from yoco.training.protocol import AdamW, Protocol
from yoco.utils.seeds import generator


@pytest.fixture
def trained(monkeypatch):
    """The numbers of the trainings that are asked for; none is done."""
    asked = []

    def accuracies(work, data, *, only, **options):
        asked.extend(only)
        yield from ((number, float(len(work[number].images))) for number in only)

    monkeypatch.setattr("yoco.evaluate.accuracies", accuracies)
    return asked


@pytest.mark.parametrize("count", [1, 40, 63, 64, 65, 128, 129, 200, 400])
@pytest.mark.parametrize("way", protocol.LAST_BATCHES)
def test_the_smallest_batch_is_that_of_an_epoch(count, way):
    assert last_batch.smallest(count, way, 64) == min(
        map(len, train.batches(count, 64, generator(0), way))
    )


def test_parts_are_the_first_of_each_class_and_balanced(toy_set):
    chosen = last_batch.part(toy_set, 8)
    assert sorted(chosen.tolist()) == [0, 1, 2, 20, 21, 22, 40, 41]


def test_a_second_start_trains_what_the_table_lacks(toy, toy_set, tmp_path, trained, monkeypatch):
    monkeypatch.setattr(last_batch, "IMAGES", (20, 60))
    monkeypatch.setattr(
        last_batch,
        "Protocol",
        lambda epochs, **options: train.Protocol(epochs, batch_size=16, **options),
    )
    path = tmp_path / "table.csv"
    first = last_batch.measured(toy_set, toy, path, 1, 2, most=3)
    assert len(first) == 3 == len(pd.read_csv(path)) and first.smallest_batch.tolist() == [
        10,
        4,
        15,
    ]
    whole = last_batch.measured(toy_set, toy, path, 1, 2, most=None)
    assert trained == list(range(8)) and whole.accuracy.tolist() == whole.images.tolist()
    other = replace(toy_set, images=1 - toy_set.images)
    assert len(last_batch.measured(other, toy, path, 1, 1, most=None)) == 12, (
        "another set is trained on as well"
    )


def test_whole_batches_are_trained_once_and_drawn_both_ways(toy_set, monkeypatch):
    monkeypatch.setattr(last_batch, "IMAGES", (40, 64, 128, 129))
    small = replace(
        toy_set,
        images=torch.cat([toy_set.images] * 10),
        labels=toy_set.labels.repeat_interleave(10),
    )
    work, rows = last_batch.plan(small, 1, 1)
    assert [(row["images"], row["last_batch"]) for row in rows] == [
        (40, "even"),
        (64, "even"),
        (128, "even"),
        (129, "even"),
        (129, "small"),
    ]
    assert [len(training.images) for training in work] == [40, 64, 128, 129, 129] and work[
        4
    ].protocol.last_batch == "small"
    lines = last_batch.draw(pd.DataFrame(rows).assign(accuracy=range(5))).lines
    assert [line.get_ydata().tolist() for line in lines[1:4:2]] == [[0, 1, 2, 3], [0, 1, 2, 4]]


def test_snapshots_are_evaluated_once_with_their_minutes(toy, toy_set, tmp_path, trained):
    toy_set.save(tmp_path / "set.safetensors")
    snapshots = pd.DataFrame(
        {
            "path": ["set.safetensors"] * 2,
            "method": ["ncfm"] * 2,
            "minutes": [0.0, 3.0],
            "steps": [0, 0],
        }
    )
    (tmp_path / "results.csv").write_text(
        "set.safetensors,0,5,0,7,12.5,3\nset.safetensors,0,1,0,7,1.0,3\n"
    )
    condensing_time.measure(snapshots, tmp_path, toy, epochs=7, seeds=2)
    assert trained == [1], "seed 0 was there"
    results = condensing_time.read_results(tmp_path / "results.csv")
    loops = pd.DataFrame(
        [("idc", 5, 120.0, 3, 0, 40.0)],
        columns=["method", "steps", "seconds", "epochs", "seed", "accuracy"],
    )
    found = condensing_time.table(snapshots, results, loops)
    assert found[["method", "minutes", "accuracy"]].to_numpy().tolist() == [
        ["idc", 2.0, 40.0],
        ["ncfm", 0.0, 12.5],
        ["ncfm", 0.0, 60.0],
        ["ncfm", 3.0, 12.5],
        ["ncfm", 3.0, 60.0],
    ]
    ax = condensing_time.draw(found)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "IDC, 3 epochs",
        "NCFM, 7 epochs",
    ]
    assert isinstance(condensing_time.load("zoo:digits-idc-ipc10", tmp_path), CondensedSet)


def test_ncfm_s_terms_take_the_published_settings():
    few = ncfm_terms.settings("ncfm", 1, None)
    assert few.pop("every") == 20
    slow = AdamW(lr=0.0006)
    assert Protocol.of(**few) == Protocol(2000, batch_size=128, last_batch="small", optimiser=slow)
    assert ncfm_terms.settings("ncfm", 10, None) == {
        "protocol": "ncfm",
        "epochs": 4000,
        "every": 20,
    }
    tried = ncfm_terms.settings("paper", 10, 2)
    assert tried == {"protocol": "paper", "epochs": 2, "every": 20}


def test_sets_are_trained_once_on_either_terms(toy, toy_set, tmp_path, monkeypatch):
    asked = []

    def checked(images, labels, real, *, seed, epochs, protocol, checkpoint, **_):
        asked.append((len(images), protocol, epochs, seed))
        if asked[-1] == (12, "ncfm", 2000, 0) and not checkpoint.exists():
            checkpoint.touch()
            raise KeyboardInterrupt
        return evaluate.Checks({20: 50.0, epochs: 45.0 + seed})

    monkeypatch.setattr(evaluate, "checked", checked)
    monkeypatch.setitem(ncfm_terms.NCFM, 5, {"epochs": 70, "every": 20})
    sets = {"flat": toy_set, "nested": replace(toy_set, info={"nested": [1, 5]})}
    path = tmp_path / "terms.csv"
    with pytest.raises(KeyboardInterrupt):
        ncfm_terms.measure(sets, toy, path, list(ncfm_terms.plan(sets, (1, 5), 1, ["ncfm"], None)))
    for seeds in (1, 2):
        wanted = list(ncfm_terms.plan(sets, (1, 5), seeds, ["paper", "ncfm"], None))
        assert len(wanted) == 6 * seeds, "a flat set has no prefix"
        found = ncfm_terms.measure(sets, toy, path, wanted)
    assert len(asked) == 13 and len(found) == 12 and asked[3] == (12, "paper", 1000, 0)
    assert asked[1] == asked[4] == (12, "ncfm", 2000, 0), "and again, after the interruption"
    assert {count for count, *_ in asked} == {12, 60}
    resumed = found["seconds"].isna()
    assert found[resumed][ncfm_terms.KEY[2:5]].values.tolist() == [[1, 0, "ncfm"]]
    assert [found.name for found in tmp_path.iterdir()] == ["terms.csv"], "and no checkpoint"
    lines = ncfm_terms.table(ncfm_terms.read(path)).splitlines()
    assert lines[2] == (
        "| 1 | `nested` | NCFM's | 2,000 | 45.50 ± 0.71 | 50.00 ± 0.00 | +4.50 ± 0.71 | 49.5 |"
    )
    with pytest.raises(SystemExit):
        ncfm_terms.main(["digits", "zoo:digits-ncfm-ipc10", "--ipc", "2"])


@pytest.fixture
def seen(toy_set, toy_dynamics, tmp_path, monkeypatch):
    """The toy set, on which every recorded run is the same."""
    monkeypatch.setattr(rules.Seen, "run", lambda seen, seed, until=0: toy_dynamics)
    monkeypatch.setattr(rules.Seen, "features", lambda seen: toy_dynamics.features)
    return rules.Seen("toy", toy_set, tmp_path)


@pytest.mark.parametrize("rule", rules.RULES)
def test_every_rule_keeps_different_images_of_a_class(seen, rule):
    pick = rules.RULES[rule](seen, 0)
    for count in (1, 4, 20):
        kept = pick(torch.arange(20, 40), count)
        assert len(kept) == len({*kept.tolist()}) == count and 0 <= kept.min() <= kept.max() < 20


def test_rules_are_those_of_the_pruning_methods(seen, toy_set, toy_dynamics):
    labels = toy_set.formed_labels
    for rule, method in {"LBPE": "yoco", "AUM of 100 epochs": "yoco+"}.items():
        kept = rules.in_groups(labels, 8, True, rules.RULES[rule](seen, 0))
        assert torch.equal(kept, prune.prune(toy_set, toy_dynamics, method, 2).indices)
    herded = rules.RULES["herding of features"](seen, 0)(torch.arange(20), 1)
    own = toy_dynamics.features[:20]
    assert herded.item() == (own - own.mean(0)).norm(dim=1).argmin()


def test_the_nearest_mean_is_found_wherever_it_lies():
    source = torch.Generator().manual_seed(0)
    points = torch.randn(12, 6, generator=source)
    points[[2, 7, 9]] = points.mean(0) + torch.tensor([[1.0], [-0.5], [-0.5]])
    points -= points.mean(0)
    pick = rules.closest(lambda seen: points)(None, 0)
    for n in (1, 3):
        best = min(
            itertools.combinations(range(12), n), key=lambda held: points[[*held]].mean(0).norm()
        )
        assert {*pick(torch.arange(12), n).tolist()} == {*best}
    assert sorted(pick(torch.arange(12), 12).tolist()) == [*range(12)]


def test_rules_are_measured_once(seen, toy, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "evaluate", lambda images, *_, **how: len(images) + how["seed"])
    path, wanted = tmp_path / "rules.csv", [(1, "LBPE", 0), (2, "LBPE", 1)]
    rules.measure(seen, toy, path, wanted[:1], 300)
    rules.measure(seen, toy, path, wanted, 300)
    found = pd.read_csv(path)
    assert found.drop(columns="in_prefix").to_numpy().tolist() == [
        ["toy", "LBPE", 1, 0, 300, 12],
        ["toy", "LBPE", 2, 1, 300, 25],
    ]
    assert found["in_prefix"].between(0, 0.9).all()
    assert rules.in_prefix(torch.tensor([0, 3, 21, 39]), 20, 2) == 0.5


def test_a_rule_can_be_tested_on_the_rest_of_the_set(seen, toy, tmp_path, monkeypatch):
    tested = []
    monkeypatch.setattr(
        evaluate, "evaluate", lambda kept, labels, real, **_: tested.append((kept, real)) or 0.0
    )
    rules.measure(seen, toy, tmp_path / "rest.csv", [(1, "random", 0)], 300, on_rest=True)
    [(kept, real)] = tested
    images, labels = seen.condensed.form()
    assert len(kept) + len(real.test_images) == len(images)
    both = torch.cat([kept, real.test_images / 255])
    order, found = (images.flatten(1).sum(1).sort().values, both.flatten(1).sum(1).sort().values)
    assert torch.allclose(order, found, atol=2.0)
    assert real.test_labels.bincount().tolist() == [16, 16, 16]


def test_the_two_rules_are_tried_apart_and_together(
    toy_set, toy, toy_dynamics, tmp_path, monkeypatch
):
    trained = []

    def train(cells, real, **options):
        trained.extend(cells)
        return pd.DataFrame([{**cell.row("float32"), "accuracy": len(trained)} for cell in cells])

    monkeypatch.setattr(two_rules.study, "train", train)
    name = str(toy_set.save(tmp_path / "toy.safetensors"))
    toy_dynamics.save(tmp_path / f"{toy_set.fingerprint}-{two_rules.EARLY}-0.safetensors")
    rows = two_rules.measure(name, toy, [0], tmp_path)
    kept = {(cell.selection.method, cell.selection.balanced): cell.selection for cell in trained}
    assert sorted(kept) == sorted(itertools.product(two_rules.METHODS, (False, True)))
    for (method, balanced), selection in kept.items():
        own = prune.prune(toy_set, toy_dynamics, method, 1, keep="easy", balanced=balanced)
        assert torch.equal(selection.indices, own.indices)
    lines = two_rules.table(rows.assign(set="published/mtt")).splitlines()
    assert lines[0] == "| rule | mtt, unbalanced | mtt, balanced |" and len(lines) == 6
    assert lines[2] == "| Random | 8.00 | 8.00 |"


def test_parts_stand_beside_their_whole_set():
    sets = ["zoo:cifar10-idc-ipc10", "zoo:cifar10-ncfm-ipc10", "ncfm-0.safetensors"]
    kept = pd.DataFrame(
        [
            (name, rule, 1, 300, 10.0 + place)
            for name in sets[:2]
            for place, rule in enumerate(parts.RULES)
        ]
        + [(sets[2], "LBPE", 1, 300, 1.0), (sets[0], "LBPE", 2, 300, 99.0)]
        + [(sets[0], "LBPE", 1, 1000, 99.0)],
        columns=["set", "rule", "ipc", "epochs", "accuracy"],
    )
    whole = pd.DataFrame(
        [("zoo:cifar10-idc-ipc10", 10, 1000, 50.0), ("zoo:cifar10-idc-ipc10", 1, 1000, 5.0)]
        + [("flat/condensed.safetensors", 10, 1000, 60.0 + seed) for seed in (0, 2)]
        + [("flat/condensed.safetensors", 10, 100, 5.0), ("flat/start.safetensors", 10, 1000, 40)],
        columns=["path", "ipc", "epochs", "accuracy"],
    )
    kept = pd.concat([kept, kept.iloc[:1].assign(rule="prefix", accuracy=30.0)])
    rest = pd.DataFrame(
        [(sets[1], "random", 1, 300, 15.0 + seed) for seed in (0, 2)],
        columns=["set", "rule", "ipc", "epochs", "accuracy"],
    )
    found = parts.table(kept, whole, rest)
    assert found.fillna(0).to_numpy().tolist() == [
        ["NCFM, 2,500 steps", 61.0, 10.0, 11.0, 12.0, 0, 16.0],
        ["IDC, 440 steps", 50.0, 10.0, 11.0, 12.0, 30.0, 0],
    ]
    lines = parts.markdown(kept, whole, rest).splitlines()
    assert lines[-2] == "| NCFM, 2,500 steps | 61.00 | 10.00 | 11.00 | 12.00 |  | 16.00 |"
    ax = parts.draw(found)
    assert [line.get_xdata().tolist() for line in ax.lines[:3]] == [[n, n] for n in (10, 11, 12)]
    assert ax.lines[3].get_xdata()[1] == 30.0 and ax.lines[0].get_ydata().tolist() == [1, 0]
    assert ax.get_yticklabels()[0].get_text() == "NCFM, 2,500 steps (whole: 61.0)"


def test_seconds_of_a_step_have_a_row_per_threads():
    rows = [(1, 1, 40, 0.9), (1, 2, 40, 0.8), (2, 1, 40, 0.7), (2, 2, 40, 0.6)]
    measured = pd.DataFrame(rows, columns=["threads", "calibrate_every", "steps", "seconds"])
    assert details.step_table(measured).splitlines()[2:] == [
        "| 1 | 0.90 | 0.80 |",
        "| 2 | 0.70 | 0.60 |",
    ]


def test_one_set_for_every_budget_stands_beside_a_set_for_each():
    columns = ["path", "ipc", "seed", "epochs", "accuracy"]
    made = pd.DataFrame(
        [
            ("alone1/condensed.safetensors", 1, 0, 1000, 47.0),
            ("flat/condensed.safetensors", 10, 0, 1000, 69.0),
            ("flat/at-015min.safetensors", 10, 0, 1000, 66.0),
            ("alone1/condensed.safetensors", 10, 0, 1000, 1.0),
            ("nestedE/condensed.safetensors", 1, 0, 1000, 45.0),
            ("nestedE/condensed.safetensors", 1, 1, 1000, 46.0),
        ],
        columns=columns,
    )
    chosen = pd.DataFrame(
        [
            ("yoco", 2, 1000, 43.0),
            ("yoco", 2, 300, 41.0),
            ("random", 2, 1000, 38.0),
        ],
        columns=["method", "ipc_to", "epochs", "accuracy"],
    )
    found = budgets.table(made, chosen)
    assert found[["way", "bytes", "accuracy"]].to_numpy().tolist() == [
        [budgets.ALONE_WAY, 30720, 47.0],
        [budgets.ALONE_WAY, 307200, 69.0],
        [budgets.NESTED_WAY, 30720, 45.0],
        [budgets.NESTED_WAY, 30720, 46.0],
        ["YOCO, from the flat set", 61440, 43.0],
    ]
    ax = budgets.draw(found)
    assert len(ax.get_legend().get_texts()) == 3
    labels = [text.get_text() for text in ax.get_xticklabels()]
    assert labels[0] == "30,720\nIPC 1" and len(labels) == 4
