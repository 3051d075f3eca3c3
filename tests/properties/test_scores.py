"""Generated arguments of scores, clusters, pruning and ranked sets.

Bounds hold, or an error names the argument.
"""

import functools
import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.properties.nasty import (
    DENSE,
    INF,
    NAN,
    WRONG_COUNTS,
    WRONG_FLAGS,
    WRONG_SEEDS,
    documented,
    scores_of,
)
from yoco import prune, scores
from yoco.dynamics import Dynamics
from yoco.sets.condensed_set import CondensedSet
from yoco.utils import checks, kmeans, seeds

SMALL = st.integers(1, 5)
SCALES = st.sampled_from([0.0, 1.0, 1e4, 3e38])


@functools.cache
def pair(classes: int, ipc: int, factor: int) -> tuple[CondensedSet, Dynamics]:
    """A set of random images, and dynamics that were never trained."""
    source = torch.Generator().manual_seed(classes * 100 + ipc * 10 + factor)
    names, labels = (
        tuple(f"class {k}" for k in range(classes)),
        torch.arange(classes).repeat_interleave(ipc),
    )
    condensed = CondensedSet(
        torch.rand(len(labels), 1, 6, 6, generator=source),
        labels,
        factor,
        names,
        (0.5,),
        (0.2,),
        "idc",
    )
    formed = condensed.formed_labels
    logits = torch.randn(12, len(formed), classes, generator=source)
    aum, features = scores.aum(logits, formed), torch.randn(len(formed), 7, generator=source)
    return condensed, Dynamics(
        logits, torch.arange(12), logits.argmax(-1) == formed, aum, formed, logits[-1], features
    )


PAIRS = st.builds(pair, st.sampled_from([2, 3, 40]), st.integers(1, 3), st.integers(1, 3))


@given(
    SMALL,
    SMALL,
    st.integers(1, 4),
    SCALES,
    st.sampled_from(DENSE),
    st.integers(1, 7),
    st.integers(1, 7),
)
def test_scores_are_finite_and_in_the_range_that_they_state(
    epochs, count, classes, scale, dtype, top_k, within
):
    logits = (
        torch.randn(epochs, count, classes).clamp(-1, 1) * min(scale, torch.finfo(dtype).max)
    ).to(dtype)
    labels = torch.arange(count) % classes
    for values in (
        scores.lbpe(logits, labels, top_k=top_k, within=within),
        scores.el2n(logits, labels, epochs=top_k),
    ):
        assert (
            values.dtype == checks.wide(logits).dtype
            and values.shape == (count,)
            and values.min() >= 0
            and values.max() <= math.sqrt(2) + 1e-6
        )
        assert classes > 1 or (values == 0).all(), "of one class alone nothing can be wrong"
    entropy = scores.entropy(logits[0])
    assert (
        entropy.shape == (count,)
        and entropy.min() >= -1e-6
        and entropy.max() <= math.log(classes) + 1e-5
    )
    forgotten = scores.forgetting(logits.argmax(-1) == labels)
    assert forgotten.min() >= 0 and forgotten.max() <= epochs / 2
    if classes == 1:
        with pytest.raises(ValueError, match="at least 2 classes"):
            scores.aum(logits, labels)
    elif scale < 1e30:
        assert scores.aum(logits, labels).isfinite().all()


@given(st.data())
def test_scores_name_what_they_do_not_take(data):
    logits = torch.randn(2, 3, 4)
    wrong = data.draw(
        st.sampled_from(
            [
                logits[:0],
                logits[:, :0],
                logits[..., :0],
                logits[0, 0],
                logits * NAN,
                logits / 0,
                logits.int(),
                logits > 0,
                logits.to("meta"),
                logits.tolist(),
                None,
                logits.to(torch.complex64),
                logits.to_sparse(),
            ]
        )
    )
    labels = data.draw(
        st.sampled_from(
            [
                torch.tensor([0, 1, 3]),
                torch.tensor([0, 1, 4]),
                torch.tensor([0, -1, 0]),
                torch.zeros(3),
                [0, 1, 2],
                None,
            ]
        )
    )
    for score in (scores.lbpe, scores.el2n, scores.aum):
        with pytest.raises((ValueError, TypeError), match="^logits"):
            score(wrong, torch.arange(3))
        documented(lambda: score(logits, labels), "labels")  # noqa: B023
    of_one_epoch = (
        wrong.flatten(0, 1)
        if isinstance(wrong, torch.Tensor) and wrong.ndim == 3 and wrong.layout == torch.strided
        else wrong
    )
    for score in (scores.entropy, lambda features: scores.ssp(features, 1)):
        with pytest.raises((ValueError, TypeError), match="^(logits|features)"):
            score(of_one_epoch)
    with pytest.raises((ValueError, TypeError), match="^correct"):
        scores.forgetting(wrong)


@pytest.mark.parametrize("wrong", WRONG_COUNTS, ids=repr)
def test_counts_of_scores_and_pruning(wrong):
    logits, labels, (condensed, dynamics) = torch.randn(2, 3, 4), torch.arange(3), pair(2, 2, 1)
    for name, call in {
        "top_k": lambda: scores.lbpe(logits, labels, top_k=wrong),
        "within": lambda: scores.lbpe(logits, labels, within=wrong),
        "epochs": lambda: scores.el2n(logits, labels, epochs=wrong),
        "n must": lambda: scores.ssp(logits[0], wrong),
        "clusters": lambda: kmeans.kmeans(logits[0], wrong, seeds.generator(0)),
        "per_class": lambda: prune.select(
            logits[0, 0], torch.arange(4), wrong, keep="easy", balanced=True
        ),
        "n  must": lambda: prune.stratified(logits[0, 0], wrong, hard_cutoff=0.5),
        "strata": lambda: prune.stratified(logits[0, 0], 2, hard_cutoff=0, strata=wrong),
        "ipc_to": lambda: prune.prune(condensed, dynamics, "ssp", wrong),
    }.items():
        with pytest.raises((ValueError, TypeError), match=f"^{name.replace('  ', ' ')}"):
            call()


@given(
    st.lists(
        st.tuples(st.floats(-3, 3) | st.sampled_from([0.0, 1.0]), st.integers(0, 3)),
        min_size=1,
        max_size=12,
    ),
    SMALL,
    st.booleans(),
)
def test_select_keeps_each_group_s_end_and_lower_indices(rows, per_class, balanced):
    score, labels = (
        torch.tensor([row[0] for row in rows], dtype=torch.double),
        torch.tensor([row[1] for row in rows]),
    )
    for keep, sign in (("easy", 1), ("hard", -1)):
        kept = documented(
            lambda: prune.select(score, labels, per_class, keep=keep, balanced=balanced),  # noqa: B023
            "per_class",
        )
        groups = (
            [(labels == k).nonzero().flatten() for k in labels.unique()]
            if balanced
            else [torch.arange(len(labels))]
        )
        n = per_class if balanced else per_class * len(labels.unique())
        if kept is None:
            assert min(map(len, groups)) < n
            continue
        wanted = [
            sorted(group.tolist(), key=lambda i: (sign * score[i].item(), i))[:n]
            for group in groups
        ]
        assert kept.tolist() == sum(wanted, [])


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.data())
def test_select_and_stratified_take_numbers_only(count, n, strata, data):
    score = data.draw(st.sampled_from(scores_of(count)))
    cutoff = data.draw(st.sampled_from([0, 0.3, 1, 1.0, -0.1, 1.1, NAN, INF, "0.5", None, True]))
    seed = data.draw(st.sampled_from([0, 2**32 - 1, *WRONG_SEEDS]))
    chosen = documented(
        lambda: prune.stratified(score, n, hard_cutoff=cutoff, strata=strata, seed=seed),
        "score",
        "n must",
        "hard_cutoff",
        "seed",
    )
    assert chosen is None or len(set(chosen.tolist())) == n
    balanced, keep = (
        data.draw(st.sampled_from([True, False, *WRONG_FLAGS])),
        data.draw(st.sampled_from(["easy", "hard", "low", None, 1, ["easy"]])),
    )
    kept = documented(
        lambda: prune.select(score, torch.zeros(count).long(), n, keep=keep, balanced=balanced),
        "score",
        "per_class",
        "keep",
        "balanced",
    )
    assert kept is None or len(set(kept.tolist())) == n


@given(PAIRS, st.sampled_from([*prune.METHODS]), st.integers(0, 4))
def test_prune_keeps_its_budget_or_names_the_argument(made, method, ipc_to):
    condensed, dynamics = made
    kept = documented(lambda: prune.prune(condensed, dynamics, method, ipc_to), "ipc_to")
    assert (kept is None) == (not 1 <= ipc_to <= condensed.ipc)
    if kept is not None:
        per_class = ipc_to * condensed.factor**2
        assert (
            len(set(kept.indices.tolist()))
            == kept.per_class_counts.sum()
            == per_class * len(condensed.classes)
        )
        assert not kept.balanced or (kept.per_class_counts == per_class).all()


WRONG_OPTIONS = {
    "keep": ("low", 1, ["easy"]),
    "balanced": [wrong for wrong in WRONG_FLAGS if wrong is not None],
    "seed": WRONG_SEEDS,
    "top_k": [wrong for wrong in WRONG_COUNTS if wrong is not None],
    "within": [wrong for wrong in WRONG_COUNTS if wrong is not None],
    "output": ("logit", None, 1, []),
    "hard_cutoff": (-0.1, 1.5, NAN, "0.1", True, []),
}


@pytest.mark.parametrize("name", WRONG_OPTIONS)
def test_a_wrong_option_is_named_by_every_method(name):
    condensed, dynamics = pair(2, 2, 1)
    for method, wrong in itertools.product(prune.METHODS, WRONG_OPTIONS[name]):
        with pytest.raises((ValueError, TypeError), match=name):
            prune.prune(condensed, dynamics, method, 1, **{name: wrong})


@pytest.mark.parametrize("strange", [None, "dynamics", {}, 1])
def test_prune_names_what_is_no_set_and_no_dynamics(strange):
    condensed, dynamics = pair(2, 2, 1)
    with pytest.raises((ValueError, TypeError), match="dynamics"):
        prune.prune(condensed, strange, "yoco", 1)
    with pytest.raises(TypeError, match="condensed"):
        prune.prune(strange, dynamics, "yoco", 1)


@given(
    PAIRS,
    st.sampled_from([name for name, method in prune.METHODS.items() if method.nests]),
    st.integers(0, 30),
    st.integers(0, 4),
)
def test_prefixes_of_a_ranking_are_the_balanced_choices(made, method, per_class, ipc):
    condensed, dynamics = made
    order, ranked = prune.ranking(condensed, dynamics, method), condensed.rank(dynamics, method)
    assert all(
        sorted(row.tolist()) == (condensed.formed_labels == k).nonzero().flatten().tolist()
        for k, row in enumerate(order)
    )
    taken = documented(lambda: ranked.take(per_class=per_class), "per_class")
    assert (taken is None) == (not 1 <= per_class <= ranked.ranks)
    if 1 <= ipc <= condensed.ipc:
        chosen = prune.prune(condensed, dynamics, method, ipc, balanced=True).subset(condensed)
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(ranked.take(ipc=ipc), chosen))
    else:
        with pytest.raises(ValueError, match="ipc must be"):
            ranked.take(ipc=ipc)


@pytest.mark.parametrize("wrong", WRONG_COUNTS, ids=repr)
def test_ranked_sets_name_what_they_do_not_take(wrong):
    condensed, dynamics = pair(2, 2, 2)
    ranked = condensed.rank(dynamics)
    for name in ("per_class", "ipc", "bytes", "size", "factor"):
        with pytest.raises(
            (ValueError, TypeError),
            match="exactly one"
            if wrong is None and name in ("per_class", "ipc", "bytes")
            else name,
        ):
            replace(ranked, **{name: wrong}) if name in ("size", "factor") else ranked.take(
                **{name: wrong}
            )
    for name, values in {
        "cells": (None, [1], ranked.cells.double(), ranked.cells.to("meta"), ranked.cells[0]),
        "classes": (None, "ab", ("a", "a"), (1, 2)),
    }.items():
        for value in values:
            with pytest.raises((ValueError, TypeError), match=name):
                replace(ranked, **{name: value})


@given(st.integers(1, 8), st.integers(1, 4), st.integers(1, 8), SCALES, st.booleans())
def test_ssp_and_clusters_give_different_images(count, dimensions, n, scale, duplicates):
    points = (
        torch.randn(1 if duplicates else count, dimensions).clamp(-1, 1).expand(count, -1) * scale
    )
    for choose, name in (
        (lambda: scores.ssp(points, n), "n must"),
        (lambda: kmeans.representatives(points, n, seeds.generator(0)), "clusters must"),
    ):
        if scale > 1e30 and name.startswith("clusters"):
            name = "points must be finite"  # float32; `ssp` squares in float64
        chosen = documented(choose, name)
        assert n <= count or chosen is None
        assert scale > 1e30 or n > count or chosen is not None
        assert chosen is None or len(set(chosen.tolist())) == n


@pytest.mark.parametrize("wrong", WRONG_SEEDS, ids=repr)
def test_seeds_out_of_range(wrong):
    condensed, dynamics = pair(2, 2, 1)
    for call in (
        lambda: seeds.generator(wrong),
        lambda: scores.ssp(torch.rand(3, 2), 2, seed=wrong),
        lambda: prune.ranking(condensed, dynamics, seed=wrong),
    ):
        with pytest.raises((ValueError, TypeError), match="^seed must be"):
            call()


@given(st.lists(st.integers(-2, 9), max_size=3))
def test_the_probability_of_some_images(indices):
    dynamics = pair(2, 2, 1)[1]
    given_back = documented(lambda: dynamics.label_probability(indices), "indices")
    assert (given_back is None) == any(not 0 <= index < 4 for index in indices)
    assert (
        given_back is None
        or given_back.shape == (12, len(indices))
        and ((given_back >= 0) & (given_back <= 1)).all()
    )
