from dataclasses import replace

import numpy as np
import pytest
import torch

from yoco import dynamics, prune, scores
from yoco.experiments import study
from yoco.prune import METHODS, select, stratified

SCORE = torch.tensor([3.0, 1.0, 2.0, 9.0, 7.0, 8.0])
LABELS = torch.tensor([0, 0, 0, 1, 1, 1])


def test_select_all_four_ways():
    assert select(SCORE, LABELS, 1, keep="easy", balanced=True).tolist() == [1, 4]
    assert select(SCORE, LABELS, 1, keep="hard", balanced=True).tolist() == [0, 3]
    assert select(SCORE, LABELS, 1, keep="easy", balanced=False).tolist() == [1, 2]
    assert select(SCORE, LABELS, 1, keep="hard", balanced=False).tolist() == [3, 5]


def test_select_ties_keep_the_lower_index():
    same = torch.ones(6)
    for keep in ("easy", "hard"):
        assert select(same, LABELS, 2, keep=keep, balanced=True).tolist() == [0, 1, 3, 4]
        assert select(same, LABELS, 2, keep=keep, balanced=False).tolist() == [0, 1, 2, 3]


def test_select_limits():
    assert sorted(select(SCORE, LABELS, 3, keep="easy", balanced=True).tolist()) == list(range(6))
    with pytest.raises(
        ValueError, match="per_class=4 asks for 4 images of a class, which has only 3"
    ):
        select(SCORE, LABELS, 4, keep="easy", balanced=True)
    with pytest.raises(ValueError, match="keep='best' is unknown.*easy, hard"):
        select(SCORE, LABELS, 1, keep="best", balanced=True)
    with pytest.raises(ValueError, match="score holds 1 NaN"):
        select(
            torch.tensor([1.0, float("nan")]), torch.tensor([0, 1]), 1, keep="easy", balanced=True
        )
    with pytest.raises(ValueError, match=r"labels must have shape \[5\]"):
        select(SCORE[:5], LABELS, 1, keep="easy", balanced=True)


def test_unequal_classes_are_balanced_by_their_own_counts():
    labels = torch.tensor([0, 1, 1, 1, 1, 1])
    assert select(SCORE, labels, 1, keep="easy", balanced=True).tolist() == [0, 1]


def literal_stratified(score, n, hard_cutoff, strata):
    """Compute the budgets of the strata by the rule, in a plain loop.

    Returns the number of images to take from each, by stratum number.
    """
    kept = sorted(score.tolist())[: len(score) - int(len(score) * hard_cutoff)]
    low, width = kept[0], (kept[-1] - kept[0]) / strata
    counts = {}
    for value in kept:
        number = min(int((value - low) / width), strata - 1)
        counts[number] = counts.get(number, 0) + 1
    budgets, left, open_strata = {}, n, len(counts)
    for number, count in sorted(counts.items(), key=lambda item: item[1]):
        budgets[number] = min(count, left // open_strata)
        left -= budgets[number]
        open_strata -= 1
    return budgets, low, width


@pytest.mark.parametrize("n, cutoff", [(20, 0.3), (60, 0.1), (7, 0.0), (99, 0.5)])
def test_ccs_shares_the_budget_over_the_strata(n, cutoff):
    score = torch.rand(200, generator=torch.Generator().manual_seed(n)).double() ** 2
    chosen = stratified(score, n, hard_cutoff=cutoff, strata=10, seed=1)
    assert len(set(chosen.tolist())) == n
    budgets, low, width = literal_stratified(score, n, cutoff, 10)
    taken = ((score[chosen] - low) / width).long().clamp(max=9)
    assert {number: int((taken == number).sum()) for number in budgets} == budgets
    assert score[chosen].max() <= score.sort().values[200 - int(200 * cutoff) - 1]


def test_ccs_with_constant_scores_or_too_high_a_cutoff():
    assert len(stratified(torch.ones(10), 4, hard_cutoff=0.3)) == 4
    # only the hardest can go
    assert sorted(stratified(SCORE, 5, hard_cutoff=0.5).tolist()) == [0, 1, 2, 4, 5]
    with pytest.raises(ValueError, match="hard_cutoff must be between 0 and 1"):
        stratified(SCORE, 2, hard_cutoff=1.5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("balanced", [None, True, False])
@pytest.mark.parametrize("keep", [None, "easy", "hard"])
def test_every_method_keeps_its_budget_at_every_override(
    toy_set, toy_dynamics, method, balanced, keep
):
    for budget in (1, 3, 5):
        kept = prune.prune(toy_set, toy_dynamics, method, budget, keep=keep, balanced=balanced)
        assert len(set(kept.indices.tolist())) == len(kept.indices) == budget * 4 * 3
        assert kept.per_class_counts.sum() == len(kept.indices)
        if kept.balanced:
            assert kept.per_class_counts.tolist() == [budget * 4] * 3
        assert kept.balanced == (METHODS[method].balanced if balanced is None else balanced)
        images, labels = kept.subset(toy_set)
        assert torch.equal(labels, toy_set.formed_labels[kept.indices]) and len(images) == len(
            labels
        )


@pytest.mark.parametrize(
    "kept, match",
    [
        (lambda n: torch.arange(3), "must keep 12 different images of 0..59, got 3 indices"),
        (lambda n: torch.zeros(n).long(), "1 of them different, 0 out of range"),
        (lambda n: -1 - torch.arange(n), "12 of them different, 12 out of range"),
        (lambda n: 55 + torch.arange(n), "7 out of range"),
        (lambda n: torch.arange(n), r"must keep 4 of each class, got \[12\]"),
        (lambda n: torch.arange(n).float(), r"must return the indices that it keeps, int64 \[n\]"),
        (lambda n: torch.arange(60) < n, "must return the indices"),
        (lambda n: list(range(n)), "must return the indices"),
    ],
)
def test_a_rule_of_the_user_s_has_to_keep_its_budget(
    toy_set, toy_dynamics, monkeypatch, kept, match
):
    def rule(condensed, run, wanted):
        return kept(wanted.per_class * 3)

    mine = prune.Method("mine", "Mine", "easy", True, "none", rule, nests=True)
    monkeypatch.setitem(METHODS.registered, "mine", mine)
    with pytest.raises((TypeError, ValueError), match=f"method='mine' {match}|{match}"):
        prune.prune(toy_set, toy_dynamics, "mine", 1)


@pytest.mark.parametrize(
    "read, match",
    [
        (lambda n: torch.rand(n - 1), "must be 60 numbers, one per image, got 59"),
        (lambda n: torch.rand(n).numpy(), "must be a tensor .N., got ndarray"),
        (lambda n: torch.rand(n, 1), "must have shape .N."),
        (lambda n: torch.full((n,), torch.nan), "holds 60 NaN"),
        (lambda n: torch.arange(n), "must be floating point"),
    ],
)
def test_a_score_of_the_user_s_is_a_number_per_image(
    toy_set, toy_dynamics, monkeypatch, read, match
):
    own = scores.Score("own", "Own", "own", "high", "none", lambda c, run: read(60))
    monkeypatch.setitem(scores.SCORES, "own", own)
    for call in (prune.score_table, lambda *these: prune.prune(*these, "own")):
        with pytest.raises((TypeError, ValueError), match=f"score='own' {match}"):
            call(toy_set, toy_dynamics)
    with pytest.raises(ValueError, match="name must differ from index, label, class"):
        replace(own, name="label")
    with pytest.raises(TypeError, match="function must be a function, got None"):
        replace(own, function=None)


def test_a_selection_is_of_one_set(toy_set, toy_dynamics):
    kept = prune.prune(toy_set, toy_dynamics)
    assert len(kept.subset(replace(toy_set))[0]) == 12, "the same images again"
    with pytest.raises(ValueError, match="must be the set that this is selected from"):
        kept.subset(replace(toy_set, images=1 - toy_set.images))
    with pytest.raises(TypeError, match="condensed must be of type CondensedSet, got None"):
        kept.subset(None)


def test_ranking_without_a_recorded_run(toy_set, toy_dynamics):
    by_chance = toy_set.rank(method="random", seed=3)
    assert torch.equal(by_chance.cells, prune.rank(toy_set, None, "random", seed=3).cells)
    nested = replace(toy_set, info={"nested": [1, 5]})
    assert torch.equal(nested.rank().cells, nested.rank(None, "prefix").cells)
    for wrong, match in (({"method": "yoco+"}, "needs dynamics"), ({"method": "typo"}, "unknown")):
        with pytest.raises(ValueError, match=match):
            nested.rank(**wrong)
    with pytest.raises(ValueError, match="needs dynamics"):
        nested.rank(top_k=3)


def test_only_yoco_and_prefixes_are_balanced():
    assert [name for name, m in METHODS.items() if m.balanced] == ["yoco", "yoco+", "prefix"]
    assert [name for name, m in METHODS.items() if m.keep == "hard"] == [
        "entropy",
        "aum",
        "forgetting",
        "el2n",
    ]
    assert list(METHODS) == [
        "random",
        "ssp",
        "entropy",
        "aum",
        "forgetting",
        "el2n",
        "ccs",
        "yoco",
        "yoco+",
        "prefix",
    ]


def test_yoco_plus_is_easy_aum_of_the_first_epochs(toy_set, toy_dynamics):
    first = toy_dynamics.margins[:3].mean(0)
    kept = prune.prune(toy_set, toy_dynamics, "yoco+", 2, within=3)
    chosen = prune.select(-first, toy_set.formed_labels, 8, keep="easy", balanced=True)
    assert torch.equal(kept.indices, chosen)
    assert not torch.equal(kept.indices, prune.prune(toy_set, toy_dynamics, "yoco+", 2).indices)


def test_yoco_plus_needs_no_whole_run(toy_set, toy_dynamics):
    kept = prune.prune(toy_set, toy_dynamics, "yoco+", 2)
    aum = prune.prune(toy_set, toy_dynamics, "aum", 2, keep="easy", balanced=True)
    assert torch.equal(kept.indices, aum.indices)
    early = replace(toy_dynamics, final_logits=None, features=None)
    assert torch.equal(prune.prune(toy_set, early, "yoco+", 2).indices, kept.indices)
    with pytest.raises(ValueError, match="method='aum' needs the whole training run"):
        prune.prune(toy_set, early, "aum", 2)
    order = prune.ranking(toy_set, early, "yoco+")
    assert torch.equal(order[:, :8].flatten(), kept.indices)


def test_prefix_keeps_the_first_of_each_class(toy_set):
    kept = prune.prune(toy_set, None, "prefix", 2)
    assert kept.indices.view(3, 8).tolist() == [
        [20 * label + place for place in range(8)] for label in range(3)
    ]
    last = prune.prune(toy_set, None, "prefix", 1, keep="hard")
    assert last.indices.view(3, 4).tolist() == [
        [20 * label + place for place in (19, 18, 17, 16)] for label in range(3)
    ]


def test_prefixes_are_compared_on_nested_sets_alone(toy_set, toy_dynamics):
    nested = replace(toy_set, info={**toy_set.info, "nested": [1, 5]})
    assert prune.compared(toy_set) == prune.compared() and prune.compared(nested) == [
        *prune.compared(),
        "prefix",
    ]
    assert prune.compared(nested, ["prefix", "yoco"]) == ["prefix", "yoco"] and prune.compared(
        nested, ["yoco"]
    ) == ["yoco", "prefix"]
    for made, has in ((toy_set, False), (nested, True)):
        assert (
            "prefix"
            in {selection.method for selection in study.selections(made, toy_dynamics, [1])}
        ) == has
    assert torch.equal(
        nested.rank(toy_dynamics, "prefix").take(ipc=2)[0], nested.rank().take(ipc=2)[0]
    )


def test_yoco_keeps_the_lowest_lbpe_of_each_class_by_hand(toy_set, toy_dynamics):
    logits = toy_dynamics.top_logits(10, 100)
    score = scores.lbpe(logits, toy_dynamics.labels, top_k=10)
    kept = prune.prune(toy_set, toy_dynamics, "yoco", 1)
    for label in range(3):
        members = torch.nonzero(toy_set.formed_labels == label).flatten()
        expected = members[score[members].argsort(stable=True)[:4]]
        assert kept.indices[label * 4 : label * 4 + 4].tolist() == expected.tolist()


def test_aum_keeps_small_margins_and_forgetting_many_events(toy_set, toy_dynamics):
    n = 12
    kept = prune.prune(toy_set, toy_dynamics, "aum", 1).indices
    assert toy_dynamics.aum[kept].max() <= toy_dynamics.aum.sort().values[n - 1]
    kept = prune.prune(toy_set, toy_dynamics, "forgetting", 1).indices
    assert (
        toy_dynamics.forgetting[kept].min()
        >= toy_dynamics.forgetting.sort(descending=True).values[n - 1]
    )


@pytest.mark.parametrize("method", ["el2n", "entropy"])
def test_el2n_and_entropy_keep_what_is_largest(toy_set, toy_dynamics, method):
    own = prune.score_table(toy_set, toy_dynamics)[method].to_numpy()
    kept = prune.prune(toy_set, toy_dynamics, method, 1).indices
    assert own[kept].min() >= np.sort(own)[-len(kept)]


def test_ccs_drops_the_end_that_it_does_not_keep(toy_set, toy_dynamics):
    el2n = torch.tensor(prune.score_table(toy_set, toy_dynamics)["el2n"].to_numpy())
    for keep in ("easy", "hard"):
        how = {"keep": keep, "hard_cutoff": 0.5, "balanced": False}
        kept = prune.prune(toy_set, toy_dynamics, "ccs", 1, **how).indices
        dropped = el2n.argsort(descending=keep == "easy", stable=True)[: len(el2n) // 2]
        assert len(kept) == 12 and not {*kept.tolist()} & {*dropped.tolist()}
    assert prune.STRATA == 50  # the paper's


@pytest.mark.parametrize("keep, farthest", [("easy", False), ("hard", True)])
def test_ssp_keeps_prototypes_or_the_farthest(toy_set, toy_dynamics, keep, farthest):
    kept = prune.prune(toy_set, toy_dynamics, "ssp", 1, keep=keep, balanced=False).indices
    wanted = scores.ssp(toy_dynamics.features, 12, farthest=farthest)
    assert {*kept.tolist()} == {*wanted.tolist()}


@pytest.mark.parametrize("method", ["random", "ssp", "ccs"])
def test_drawn_selections_follow_their_seed(toy_set, toy_dynamics, method):
    picks = [
        prune.prune(toy_set, toy_dynamics, method, 2, seed=seed).indices.tolist()
        for seed in (0, 0, 1)
    ]
    assert picks[0] == picks[1]
    assert picks[0] != picks[2] or method == "ssp"


def test_paper_s_cutoff_is_used_and_can_be_set(toy_set, toy_dynamics):
    # CIFAR-10's nearest shares
    assert [prune.paper_cutoff(toy_set, n) for n in (1, 2, 5)] == [0.1, 0.0, 0.0]
    own, same, other = (
        prune.prune(toy_set, toy_dynamics, "ccs", 1, hard_cutoff=cutoff).indices
        for cutoff in (None, 0.1, 0.7)
    )
    assert torch.equal(own, same) and not torch.equal(own, other)


def test_options_belong_to_the_methods_that_read_them(toy_set, toy_dynamics):
    assert {name: m.options for name, m in METHODS.items() if m.options} == {
        "ccs": ("hard_cutoff",), "yoco": ("top_k", "within", "output", "average"),
        "yoco+": ("within",),
    }  # fmt: skip
    with pytest.raises(
        TypeError, match="option 'top_k' is unknown to method='random'; allowed: none"
    ):
        prune.prune(toy_set, toy_dynamics, "random", 1, top_k=3)
    with pytest.raises(
        TypeError,
        match="'topk' is unknown to every method .did you mean 'top_k'.*allowed: .*within",
    ):
        study.selections(toy_set, toy_dynamics, [1], topk=3)
    kept = {
        s.method: s for s in study.selections(toy_set, toy_dynamics, [1], top_k=3, hard_cutoff=0.7)
    }
    for method, options in {"yoco": {"top_k": 3}, "ccs": {"hard_cutoff": 0.7}, "el2n": {}}.items():
        assert torch.equal(
            kept[method].indices, prune.prune(toy_set, toy_dynamics, method, 1, **options).indices
        )


@pytest.mark.parametrize(
    "arguments, error, match",
    [
        ({"method": "yocco"}, ValueError, "method='yocco' is unknown .did you mean 'yoco'"),
        ({"ipc_to": 6}, ValueError, "ipc_to must be between 1 and 5, got 6"),
        ({"ipc_to": 0}, ValueError, "ipc_to must be between 1 and 5, got 0"),
        ({"keep": "low"}, ValueError, "keep='low' is unknown"),
        ({"seed": -1, "method": "random"}, ValueError, "seed must be"),
        ({"top_k": 60}, ValueError, "were not kept"),
    ],
)
def test_bad_input(toy_set, toy_dynamics, arguments, error, match):
    if "top_k" in arguments:
        toy_dynamics = replace(
            toy_dynamics, kept=toy_dynamics.kept[:3], logits=toy_dynamics.logits[:3]
        )
    with pytest.raises(error, match=match):
        prune.prune(toy_set, toy_dynamics, **{"method": "yoco", "ipc_to": 1, **arguments})


def test_dynamics_of_another_set_or_of_a_stopped_run(toy_set, toy_dynamics):
    moved = replace(toy_set, images=1 - toy_set.images)
    for dynamics_of_another, condensed in (
        (replace(toy_dynamics, labels=toy_dynamics.labels.flip(0)), toy_set),
        (toy_dynamics, moved),
    ):
        with pytest.raises(ValueError, match="dynamics must be of this set"):
            prune.prune(condensed, dynamics_of_another, "yoco", 1)
    early = dynamics.record(toy_set, epochs=12, seed=0, until=5, width=8, progress=False)
    prune.prune(toy_set, early, "yoco", 1)
    for method in ("aum", "forgetting", "entropy", "ssp"):
        with pytest.raises(ValueError, match=f"method='{method}' needs the whole training run"):
            prune.prune(toy_set, early, method, 1)


def test_score_table_has_a_row_a_formed_image(toy_set, toy_dynamics):
    table = prune.score_table(toy_set, toy_dynamics)
    assert (
        list(table.columns)
        == ["index", "label", "class", "lbpe", "el2n", "aum", "forgetting", "entropy"]
        and len(table) == 60
    )
    assert table["aum"].to_numpy() == pytest.approx(toy_dynamics.aum.numpy())


def uneven(toy_set):
    """The toy set with soft labels, by which its classes have 3, 7 and 5 images."""
    targets = torch.eye(3)[torch.tensor([0] * 3 + [1] * 7 + [2] * 5)] * 0.7 + 0.1
    return replace(toy_set, labels=targets)


def test_prefixes_of_unequal_classes_are_their_first_images(toy_set):
    kept = prune.prune(uneven(toy_set), None, "prefix", 1).indices
    assert kept.tolist() == [*range(4), *range(12, 16), *range(40, 44)]
    with pytest.raises(ValueError, match="classes of a nested set must have equally many images"):
        replace(uneven(toy_set), info={"nested": [1]}).rank()


def test_a_set_with_an_empty_class_cannot_be_ranked(toy_set, toy_dynamics):
    targets = torch.eye(3)[torch.tensor([0] * 7 + [2] * 8)]
    lacking = replace(toy_set, labels=targets)
    with pytest.raises(ValueError, match="without images of class .* cannot be ranked"):
        prune.ranking(lacking, None, "random")


def test_options_of_a_ranking_may_be_numpy_numbers(toy_set, toy_dynamics, tmp_path):
    ranked = toy_set.rank(toy_dynamics, top_k=np.int64(3), seed=np.int64(1))
    assert ranked.save(tmp_path / "ranked.safetensors").exists()


def test_options_for_an_unknown_method_name_it():
    with pytest.raises(ValueError, match="method='foo' is unknown"):
        prune.options_for("foo", {})
