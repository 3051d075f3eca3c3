from dataclasses import replace

import pytest
import torch

from yoco import prune, scores
from yoco.experiments import ablations, study
from yoco.utils import lazy


def test_epochs_read_takes_every_pair(toy_set, toy_dynamics):
    variants = ablations.epochs_read([1, 3], [5, 12])
    assert [(v["top_k"], v["within"]) for v in variants] == [(1, 5), (1, 12), (3, 5), (3, 12)]
    assert len(ablations.epochs_read()) == 16
    cells = study.grid(toy_set, [toy_dynamics], variants, ipc_to=[1], epochs=1)
    # all 12 epochs were kept
    by_hand = scores.lbpe(toy_dynamics.logits, toy_dynamics.labels, top_k=3, within=5)
    expected = prune.select(by_hand, toy_dynamics.labels, 4, keep="easy", balanced=True)
    assert torch.equal(cells[2].selection.indices, expected)


def test_rules_take_either_end_balanced_and_not(toy_set, toy_dynamics):
    cells = study.grid(
        toy_set, [toy_dynamics], ablations.rules(["aum", "yoco"]), ipc_to=[1], epochs=1
    )
    assert [(c.selection.method, c.selection.keep, c.selection.balanced) for c in cells] == [
        (method, keep, balanced)
        for method in ("aum", "yoco")
        for keep in ("easy", "hard")
        for balanced in (False, True)
    ]
    margins = (
        toy_dynamics.aum[cells[0].selection.indices].mean()
        - toy_dynamics.aum[cells[2].selection.indices].mean()
    )
    # a high margin is easy
    assert margins > 0 and len(ablations.rules()) == 4 * len(prune.compared())
    table = ablations.labelled(lazy.pd.DataFrame([cell.row("float32") for cell in cells]))
    assert (
        table.rule.tolist()[:2] == ["easy, unbalanced", "easy, balanced"]
        and table.choice[7] == "YOCO, balanced"
    )


def test_two_rules_apart_and_together(toy_set, toy_dynamics):
    cells = study.grid(toy_set, [toy_dynamics], ablations.TWO_RULES, ipc_to=[1], epochs=1)
    assert torch.equal(
        cells[0].selection.indices, prune.prune(toy_set, toy_dynamics, "random", 1).indices
    )
    assert torch.equal(
        cells[3].selection.indices, prune.prune(toy_set, toy_dynamics, "yoco", 1).indices
    )
    assert cells[1].selection.per_class_counts.tolist() == [4, 4, 4]


def test_the_plan_holds_every_ablation(toy_set, toy_dynamics):
    other = replace(toy_set, method="dream")
    one = [toy_dynamics]
    cells = ablations.plan(
        toy_set,
        one,
        one,
        one,
        {"dream": (other, one)},
        methods=["aum", "yoco"],
        top_k=[1, 2],
        within=[5],
        networks=["convnet", "resnet10"],
        ipc_to=[1],
        epochs=1,
        width=8,
    )
    table = lazy.pd.DataFrame([cell.row("float32") for cell in cells])
    assert table.ablation.value_counts(sort=False).to_dict() == {
        "output": 2,
        "epochs_read": 2,
        "rules": 8,
        "record_on": 2,
        "condensation": 4,
        "network": 8,
    }
    assert set(table[table.ablation == "condensation"].condensation) == {"dream"}
    assert table[table.ablation == "network"].groupby("model").width.unique().map(
        list
    ).to_dict() == {"convnet": ["8"], "resnet10": [""]}
    assert table[table.ablation == "record_on"].record_on.tolist() == ["augmented", "clean"]
    assert table.fingerprint.nunique() < len(table)  # YOCO itself is in most of them
    by_el2n = ablations.plan(toy_set, one, one, one, {}, methods=["el2n"], ipc_to=[1], epochs=1)
    assert {
        cell.selection.method for cell in by_el2n if cell.labels["ablation"] == "record_on"
    } == {"el2n"}


def test_agreement_of_a_run_with_itself_and_by_hand(toy_set, toy_dynamics):
    table = ablations.agreement(toy_set, [toy_dynamics, toy_dynamics, toy_dynamics])
    assert list(zip(table["first"], table["second"]))[:3] == [(0, 1), (0, 2), (1, 2)]
    assert set(table.score) == {
        "lbpe",
        "el2n",
        "aum",
        "forgetting",
        "entropy",
    } and table.spearman.tolist() == pytest.approx([1.0] * 15)
    assert len(ablations.agreement(toy_set, [toy_dynamics])) == 0


def test_overlap_is_the_share_that_both_keep(toy_set, toy_dynamics):
    table = ablations.overlap(toy_set, [toy_dynamics, toy_dynamics], [1, 5]).set_index(
        ["method", "ipc_to"]
    )["shared"]
    assert table["yoco", 1] == table["aum", 1] == 1 and table["random", 5] == 1
    drawn = [
        set(prune.prune(toy_set, toy_dynamics, "random", 1, seed=s).indices.tolist())
        for s in (0, 1)
    ]
    assert table["random", 1] == len(drawn[0] & drawn[1]) / 12 < 1
