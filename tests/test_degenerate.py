"""Edge cases that a researcher meets.

One image, one class, equal scores, equal images, classes without images, fewer images than asked
for.
"""

from dataclasses import replace

import pytest
import torch

from tests.conftest import make_data
from yoco import condense, data, dynamics, evaluate, models, prune, scores
from yoco.condense import dream
from yoco.condense.base import condensed_from, real_set
from yoco.condense.dream import RepresentativeMatching
from yoco.dynamics import Dynamics
from yoco.dynamics import dynamics as dynamics_module
from yoco.experiments import lemma1
from yoco.sets.condensed_set import CondensedSet
from yoco.training import network as training
from yoco.utils import kmeans, seeds

QUICK = {"device": "cpu", "precision": "float32", "compiled": False}
TRAINING = {**QUICK, "epochs": 3, "seed": 0, "width": 4}
SCORED = ("random", "entropy", "aum", "forgetting", "el2n", "yoco")


def one_colour(classes: int, ipc: int, factor: int) -> tuple[CondensedSet, Dynamics]:
    """A set of equal images, and dynamics in which they are all alike."""
    labels = torch.arange(classes).repeat_interleave(ipc)
    condensed = CondensedSet(
        torch.full((len(labels), 1, 8, 8), 0.5),
        labels,
        factor,
        tuple(map(str, range(classes))),
        (0.5,),
        (0.2,),
        "idc",
    )
    formed, count = condensed.formed_labels, len(labels) * factor**2
    logits = torch.zeros(12, count, classes)
    return condensed, Dynamics(
        logits,
        torch.arange(12),
        torch.zeros(12, count).bool(),
        torch.zeros(count),
        formed,
        logits[0],
        torch.ones(count, 5),
    )


@pytest.mark.parametrize("method", prune.METHODS)
@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("ipc", [1, 3])
def test_equal_images_and_scores_keep_the_budget(method, balanced, ipc):
    condensed, recorded = one_colour(3, ipc, 2)
    for budget in range(1, ipc + 1):
        kept = prune.prune(condensed, recorded, method, budget, balanced=balanced)
        assert len(set(kept.indices.tolist())) == budget * 4 * 3
        assert not balanced or kept.per_class_counts.tolist() == [budget * 4] * 3
    if method in SCORED and method != "random":
        first = prune.prune(condensed, recorded, method, 1, balanced=True).indices
        assert first.tolist() == [k * ipc * 4 + i for k in range(3) for i in range(4)], (
            "ties: the lower index first"
        )


def test_one_class_is_refused_or_scored_0():
    logits, labels = torch.randn(3, 4, 1), torch.zeros(4).long()
    assert (
        not scores.lbpe(logits, labels).any()
        and not scores.el2n(logits, labels).any()
        and not scores.entropy(logits[0]).any()
    )
    for call in (
        lambda: scores.aum(logits, labels),
        lambda: dynamics_module.margin(logits, labels),
    ):
        with pytest.raises(
            ValueError,
            match=r"at least 2 classes, since a margin needs another class's logit, got \[3, 4, "
            r"1\]",
        ):
            call()
    toy = make_data(2, 8, 1)
    with pytest.raises(ValueError, match="at least 2 classes are needed, got 1"):
        replace(
            toy,
            train_labels=toy.train_labels * 0,
            test_labels=toy.test_labels * 0,
            classes=("only",),
        )
    with pytest.raises(ValueError, match="at least 2 classes are needed, got 1"):
        CondensedSet(torch.rand(4, 1, 8, 8), labels, 1, ("only",), (0.5,), (0.2,), "idc")


def test_a_class_without_images():
    score, labels = torch.tensor([3.0, 1.0, 2.0, 0.0]), torch.tensor([0, 0, 2, 2])
    assert prune.select(score, labels, 1, keep="easy", balanced=True).tolist() == [1, 3]
    assert prune.select(score, labels, 1, keep="easy", balanced=False).tolist() == [3, 1], (
        "two classes have images, so two stay"
    )
    toy = make_data(2, 8, 1)
    with pytest.raises(ValueError, match="no training image in class middle"):
        replace(toy, train_labels=toy.train_labels.where(toy.train_labels != 1, 0))
    with pytest.raises(ValueError, match=r"equally many images in each class; got counts \[2, 0\]"):
        CondensedSet(
            torch.rand(2, 1, 8, 8), torch.zeros(2).long(), 1, ("a", "b"), (0.5,), (0.2,), "idc"
        )
    without = replace(
        toy,
        test_images=toy.test_images[toy.test_labels == 0],
        test_labels=toy.test_labels[toy.test_labels == 0],
    )
    trained = evaluate.evaluate(toy.train_images, torch.zeros(6).long(), without, **TRAINING)
    assert trained == 100, "all that is trained on and tested is of one class"


def test_no_test_images_and_no_images_are_refused():
    toy = make_data(2, 8, 1)
    with pytest.raises(
        ValueError, match="test_images must be square images .* with no empty dimension, got"
    ):
        replace(toy, test_images=toy.test_images[:0], test_labels=toy.test_labels[:0])
    with pytest.raises(ValueError, match="^images must be square images"):
        evaluate.evaluate(toy.train_images[:0], toy.train_labels[:0], toy, **TRAINING)
    for call in (
        lambda: scores.entropy(torch.zeros(0, 3)),
        lambda: scores.ssp(torch.zeros(0, 3), 1),
        lambda: scores.ssp(torch.zeros(3, 0), 1),
    ):
        with pytest.raises(ValueError, match="no empty dimension"):
            call()
    with pytest.raises(ValueError, match="score must have shape .N., at least one image"):
        prune.select(torch.zeros(0), torch.zeros(0).long(), 1, keep="easy", balanced=True)


@pytest.mark.parametrize("name", models.MODELS)
def test_training_on_one_image_and_with_a_last_batch_of_one(name):
    toy = make_data(3, 16, 1)
    width = {"width": 4 if name == "convnet" else None}
    for count in (1, 3):  # batches of 2: the last one of 3 images has 1
        chosen = toy.train_images[:count], toy.train_labels[:count]
        accuracy = evaluate.evaluate(
            *chosen, toy, **{**TRAINING, **width}, model=name, batch_size=2
        )
        assert accuracy == pytest.approx(100 / 3), "the test images of the one class"
    network = models.build_seeded(0, name, 1, 3, 16, **width).train()
    optimiser = training.Optimiser().build(network.parameters())
    logits = training.Step(network, optimiser)(torch.rand(1, 1, 16, 16), torch.eye(3)[:1])
    assert logits.isfinite().all() and all(
        values.isfinite().all() for values in network.state_dict().values()
    )


def test_dynamics_of_one_image_a_class_and_one_epoch():
    condensed = real_set(make_data(1, 8, 1), 1, 1, seed=0)
    recorded = dynamics.record(condensed, **{**TRAINING, "epochs": 1}, progress=False)
    assert (
        recorded.forgetting.tolist() == [0, 0, 0]
        and recorded.aum.isfinite().all()
        and recorded.logits.shape == (1, 3, 3)
    )
    for method in prune.METHODS:
        assert sorted(prune.prune(condensed, recorded, method, 1).indices.tolist()) == [0, 1, 2]
    table = prune.score_table(condensed, recorded)
    assert table.notna().all().all()


def test_clusters_of_duplicates_and_of_too_few_points():
    points = torch.tensor([[0.0, 0.0]] * 4 + [[5.0, 5.0]])
    for seed in range(5):
        for chosen in (
            kmeans.representatives(points, 2, seeds.generator(seed)),
            scores.ssp(points, 2, seed=seed),
        ):
            assert sorted(chosen.tolist()) == [0, 4], (
                "the lower index of equals, and the other point"
            )
        assert (
            sorted(kmeans.representatives(points, 5, seeds.generator(seed)).tolist())
            == sorted(scores.ssp(points, 5, seed=seed).tolist())
            == [0, 1, 2, 3, 4]
        )
    assert (
        kmeans.representatives(points[:1], 1, seeds.generator(0)).tolist()
        == [0]
        == scores.ssp(points[:1], 1).tolist()
    )
    for call, match in (
        (lambda: kmeans.kmeans(points, 6, seeds.generator(0)), "clusters"),
        (lambda: scores.ssp(points, 6), "n"),
    ):
        with pytest.raises(ValueError, match=f"{match} must be between 1 and 5, got 6"):
            call()


@pytest.mark.parametrize("method", condense.METHODS)
def test_condensing_a_class_of_equal_images(method):
    """Two images per class, one class of one colour; batches and pools that ask for more."""
    toy = make_data(2, 8, 1)
    images = toy.train_images.clone()
    images[toy.train_labels == 1] = 7
    few = (
        {"iterations": 2}
        if method in ("mtt", "kip", "ncfm")
        else {"outer_loops": 1, "inner_loops": 2}
    )
    few |= {
        "kip": {"kernel": "fc"},
        "mtt": {"experts": 1, "buffer_epochs": 3, "max_start_epoch": 1, "image_lr": 1e-3},
        "ncfm": {"pool_epochs": 2},
    }.get(method, {})
    made = condense.condense(
        replace(toy, train_images=images),
        method,
        2,
        1,
        preset="smoke",
        seed=0,
        progress=False,
        **QUICK,
        **few,
    )
    assert (
        made.info["steps"] == 2
        and made.images.isfinite().all()
        and made.labels.tolist() == [0, 0, 1, 1, 2, 2]
    )
    with pytest.raises(
        ValueError, match="ipc=3 with factor=1 needs 3 images of every class; too few in: dark .2."
    ):
        condense.condense(toy, method, 3, 1, preset="smoke", progress=False, **QUICK)


@pytest.mark.parametrize("weight", [float("nan"), 1e30])
def test_dream_chooses_though_its_network_diverged(weight):
    toy = make_data(6, 8, 1)
    settings = dream.settings_for("smoke", 8, 1, {"width": 4})
    stepper = RepresentativeMatching(
        toy, 1, 1, settings, seeds.generator(0), torch.device("cpu"), "float32", False
    )
    for parameter in stepper.model.parameters():
        parameter.data.fill_(weight)
    stepper.due = True
    loss, _ = stepper.image_gradient()
    assert stepper.representatives.shape == (3, 6) and not torch.isfinite(torch.tensor(loss)), (
        "the loop stops at such a loss"
    )


def test_as_many_classes_as_images_and_a_channel_of_one_value():
    labels = torch.arange(300)
    images = torch.zeros(300, 2, 8, 8, dtype=torch.uint8)
    images[:, 0] = (labels % 251).byte().view(-1, 1, 1)
    mean, std = data.channel_statistics(images)
    assert std[1] == 1 and mean[1] == 0, "a constant channel is divided by 1"
    many = data.ImageData(
        "many", images, labels, images, labels, tuple(map(str, range(300))), mean, std
    )
    start = real_set(many, 1, 1, seed=0)
    assert start.normalise(start.images).isfinite().all() and start.ipc == 1
    recorded = dynamics.record(start, **{**TRAINING, "epochs": 1, "width": 2}, progress=False)
    assert prune.prune(start, recorded, "yoco", 1).per_class_counts.tolist() == [1] * 300
    assert dynamics.lbpe_settings(start) == (10, 200)


def test_a_set_of_more_than_255_cells_has_a_fingerprint():
    toy = make_data(1, 260, 1)
    sets = [
        condensed_from(toy.train_images.float() / 255, toy, 1, factor, "real", {})
        for factor in (1, 4, 260)
    ]
    assert len({each.fingerprint for each in sets}) == 3


def test_a_lemma_needs_two_samples():
    network = models.build("convnet", 1, 2, 8, width=2)
    with pytest.raises(ValueError, match="at least 2, got 1"):
        lemma1.change_without(network, torch.rand(1, 1, 8, 8), torch.tensor([0]), 0)


def test_equal_images_score_the_same_wherever_they_stand():
    logits = (
        torch.randn(10, 1, 3, generator=torch.Generator().manual_seed(1))
        .expand(-1, 37, -1)
        .contiguous()
    )
    labels = torch.zeros(37).long()
    for values in (
        scores.lbpe(logits, labels),
        scores.lbpe(logits, labels, output="logits"),
        scores.el2n(logits, labels),
        scores.aum(logits, labels),
    ):
        assert (values == values[0]).all()
