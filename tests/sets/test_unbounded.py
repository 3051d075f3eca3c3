"""Sets with values outside 0..1 and soft labels: every step accepts them unchanged."""

from dataclasses import replace

import pytest
import torch

from tests.conftest import make_data
from yoco import condense, dynamics, evaluate, explore, plots, prune, scores
from yoco.data import spaces
from yoco.experiments import corruption, study
from yoco.sets.condensed_set import CondensedSet
from yoco.sets.ranked_set import RankedSet

FAST = {"width": 8, "precision": "float32", "progress": False}


@pytest.fixture(scope="module")
def wild(toy_set) -> CondensedSet:
    """The toy set, normalised and stretched, with soft labels.

    By these, the classes have 6, 5 and 4 images.
    """
    images = toy_set.normalise(toy_set.images) * 1.5
    targets = torch.full((15, 3), 0.1)
    targets[torch.arange(15), torch.tensor([0] * 6 + [1] * 5 + [2] * 4)] = 0.8
    return replace(toy_set, images=images, labels=targets, bounded=False)


@pytest.fixture(scope="module")
def recorded(wild) -> dynamics.Dynamics:
    return dynamics.record(wild, epochs=4, seed=0, **FAST)


def test_a_set_is_saved_and_loaded_as_it_is(wild, tmp_path):
    loaded = CondensedSet.load(wild.save(tmp_path / "set.safetensors"))
    assert torch.equal(loaded.images, wild.images) and torch.equal(loaded.labels, wild.labels)
    assert (
        loaded.soft
        and not loaded.bounded
        and loaded.fingerprint == wild.fingerprint
        and loaded.ipc == 5
    )
    white = replace(wild, whitening="pixels")
    assert CondensedSet.load(white.save(tmp_path / "white.safetensors")).whitening == "pixels"


def test_what_trains_differently_has_another_fingerprint(wild, toy_set):
    softer = torch.where(wild.labels == 0.8, 0.6, 0.2)
    others = [
        replace(wild, whitening="pixels"),
        replace(wild, labels=softer),
        replace(wild, mean=(0.1,) * 3),
    ]
    assert (
        len({wild.fingerprint, toy_set.fingerprint, *(other.fingerprint for other in others)}) == 5
    )


@pytest.mark.parametrize(
    "change, error, match",
    [
        ({"bounded": True}, ValueError, "images must lie in 0..1"),
        ({"bounded": "no"}, TypeError, "bounded must be True or False"),
        (
            {"whitening": "zca"},
            ValueError,
            "whitening='zca' is unknown.*allowed: pixels, standardised",
        ),
        (
            {"images": torch.full((15, 3, 16, 16), float("inf"))},
            ValueError,
            ("images holds .* NaN or infinite"),
        ),
        (
            {"labels": torch.full((15, 3), 0.5)},
            ValueError,
            ("labels must be soft targets, rows non-negative with sum 1"),
        ),
        ({"labels": torch.tensor([[2.0, -1.0, 0.0]] * 15)}, ValueError, "the lowest value is -1"),
        (
            {"labels": torch.full((15, 4), 0.25)},
            ValueError,
            (r"labels must have shape \[15\] or \[15, " r"3\]"),
        ),
        ({"labels": torch.eye(3).repeat(5, 1)}, ValueError, "sorted"),
        (
            {"images": torch.zeros(14, 3, 16, 16), "labels": torch.eye(3)[[0] * 14]},
            ValueError,
            ("equally many images in each class"),
        ),
    ],
)
def test_a_set_that_does_not_fit_is_refused(wild, change, error, match):
    with pytest.raises(error, match=match):
        replace(wild, **change)
    with pytest.raises(ValueError, match="whitening='pixels' requires bounded=False"):
        replace(wild, images=wild.images.clamp(0, 1), bounded=True, whitening="pixels")


def test_networks_train_on_the_values_as_they_are(wild, monkeypatch):
    from yoco.training import network as training

    seen = []

    class Run(training.Run):
        def __init__(self, images, labels, *rest, **options):
            seen.append((images, labels))
            super().__init__(images, labels, *rest, **options)

    monkeypatch.setattr(training, "Run", Run)
    formed, targets = wild.form()
    assert formed.max() > 1.2 and formed.min() < -0.2
    dynamics.record(wild, epochs=1, seed=0, **FAST)
    evaluate.evaluate(
        formed,
        targets,
        make_data(),
        epochs=1,
        seed=0,
        space=wild.space,
        width=8,
        precision="float32",
    )
    assert len(seen) == 2 and all(
        torch.equal(images, formed) and torch.equal(labels, targets) for images, labels in seen
    )


def test_soft_targets_are_what_the_loss_is_against(toy, toy_set):
    """All mass is on the next class: the network learns to be wrong."""
    images, labels = toy_set.form()
    wrong = torch.eye(3)[(labels + 1) % 3]
    assert (
        evaluate.evaluate(images, wrong, toy, epochs=40, seed=0, width=8, precision="float32") < 20
    )
    right = torch.eye(3)[labels]
    hard = evaluate.evaluate(images, labels, toy, epochs=3, seed=0, width=8, precision="float32")
    assert (
        evaluate.evaluate(images, right, toy, epochs=3, seed=0, width=8, precision="float32")
        == hard
    )


def test_an_unbounded_set_trains_as_its_bounded_original(toy, toy_set):
    same = replace(toy_set, images=toy_set.normalise(toy_set.images), bounded=False)
    options = {"epochs": 3, "seed": 0, "width": 8, "precision": "float32"}
    wanted = evaluate.evaluate(*toy_set.form(), toy, **options)
    assert evaluate.evaluate(*same.form(), toy, space=same.space, **options) == pytest.approx(
        wanted, abs=5
    )
    with pytest.raises(
        ValueError, match="images must lie in 0..1, got .*unbounded set need space=condensed.space"
    ):
        evaluate.evaluate(*same.form(), toy, **options)


def test_test_images_are_normalised_by_the_set_s_statistics(wild):
    data = make_data()
    other = replace(wild, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    test = evaluate.TestSet.of(data, other.space)
    assert (test.mean, test.std, test.bounded) == (other.mean, other.std, False)
    assert evaluate.TestSet.of(data).mean == data.mean and evaluate.TestSet.of(data).bounded


@pytest.mark.parametrize("recipe", spaces.RECIPES)
def test_whitening_by_the_training_images(recipe):
    """Against a literal computation in float64, and the definition.

    Directions with large variance come out with equal variance.
    """
    data = replace(make_data(per_class=200, size=4), std=(0.2, 0.1, 0.3))  # not the images' own
    zca = spaces.whitening_of(data, recipe)
    flat = data.train_images.double() / 255
    if recipe == "standardised":
        flat = (flat - torch.tensor(data.mean).view(1, -1, 1, 1)) / torch.tensor(data.std).view(
            1, -1, 1, 1
        )
    flat = flat.flatten(1)
    centred = flat - flat.mean(0)
    covariance = centred.T @ centred / len(flat)
    added = 0.1 if recipe == "pixels" else 0.1 * covariance.diagonal().mean()
    values, vectors = torch.linalg.eigh(covariance + added * torch.eye(48))
    wanted = centred @ (vectors * values.rsqrt()) @ vectors.T
    found = zca(data.train_images)
    assert (
        torch.allclose(found.flatten(1).double(), wanted, atol=1e-3)
        and found.dtype == torch.float32
    )
    assert spaces.whitening_of(data, recipe) is zca, "computed once for the same data"
    test = evaluate.TestSet.of(data, spaces.Space(data.mean, data.std, recipe))
    assert torch.equal(torch.from_numpy(test.images), zca(data.test_images)) and (
        test.mean,
        test.std,
    ) == ((0.0,) * 3, (1.0,) * 3)


def test_scores_take_the_error_to_the_soft_target():
    p = torch.tensor([[[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]]])
    targets = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]])
    by_hand = (p[0] - targets).norm(dim=1)
    assert torch.allclose(scores.lbpe(p.log(), targets), by_hand) and torch.allclose(
        scores.el2n(p.log(), targets), by_hand
    )
    hard = torch.tensor([0, 2])
    assert torch.allclose(scores.lbpe(p.log(), torch.eye(3)[hard]), scores.lbpe(p.log(), hard))
    with pytest.raises(ValueError, match="labels must be soft targets"):
        scores.lbpe(p.log(), targets * 2)


def test_pruning_balances_the_argmax_classes(wild, recorded):
    chosen = prune.prune(wild, recorded, "yoco", 2)
    assert chosen.per_class_counts.tolist() == [8, 8, 8]
    images, labels = chosen.subset(wild)
    assert (
        labels.shape == (24, 3)
        and labels.argmax(1).bincount().tolist() == [8, 8, 8]
        and images.min() < 0
    )
    wanted = scores.lbpe(recorded.logits, wild.formed_targets, top_k=10, within=100)
    assert torch.allclose(scores.LBPE.read(wild, recorded), wanted)
    for method in prune.METHODS:
        assert len(prune.prune(wild, recorded, method, 1).indices) == 12
    with pytest.raises(ValueError, match="a class, which has only 16"):
        prune.prune(wild, recorded, "yoco", 5)


def test_ranking_goes_as_far_as_the_smallest_class(wild, recorded, tmp_path):
    ranked = wild.rank(recorded)
    assert ranked.ranks == 16 and not ranked.bounded and ranked.space == wild.space
    images, labels = ranked.take(ipc=1)
    best, targets = prune.prune(wild, recorded, "yoco", 1).subset(wild)
    assert torch.allclose(images, best) and torch.equal(labels, targets)
    opened = RankedSet.open(ranked.save(tmp_path / "ranked.safetensors"))
    again = opened.take(ipc=2)
    assert (
        all(torch.equal(a, b) for a, b in zip(again, ranked.take(ipc=2)))
        and opened.space == wild.space
    )
    with pytest.raises(
        ValueError, match="dtype=torch.uint8 holds values in 0..1, but these are unbounded"
    ):
        ranked.save(tmp_path / "small.safetensors", torch.uint8)
    whole = bytearray((tmp_path / "ranked.safetensors").read_bytes())
    whole[-3] ^= 1  # targets come last, by name
    (tmp_path / "ranked.safetensors").write_bytes(whole)
    with pytest.raises(
        ValueError,
        match="ranked.safetensors is not a valid ranked set:.*targets does not have the checksum",
    ):
        RankedSet.open(tmp_path / "ranked.safetensors")


def test_a_study_of_them(wild, recorded, toy, tmp_path):
    options = {
        "ipc_to": [1],
        "epochs": 1,
        "width": 8,
        "precision": "float32",
        "jobs": 1,
        "progress": False,
    }
    table = study.run(
        wild,
        toy,
        [recorded],
        methods=["random", "yoco"],
        results=tmp_path / "results.csv",
        **options,
    )
    formed, targets = prune.prune(wild, recorded, "yoco", 1).subset(wild)
    alone = evaluate.evaluate(
        formed, targets, toy, epochs=1, seed=0, space=wild.space, width=8, precision="float32"
    )
    assert table[table.method == "yoco"].accuracy.item() == pytest.approx(alone, abs=0.01)
    other = study.run(
        replace(wild, mean=(0.2,) * 3),
        toy,
        [None],
        methods=["random"],
        results=tmp_path / "results.csv",
        **options,
    )
    assert set(other.fingerprint).isdisjoint(table.fingerprint), (
        "tested on images normalised otherwise"
    )
    options = {name: options[name] for name in ("epochs", "width", "precision", "progress")}
    stored = study.by_bytes(
        wild, toy, recorded, tmp_path, methods=["ccs", "yoco"], ipc_to=[1], **options
    )
    assert (
        stored.stored.tolist() == ["float32", "float32"]
        and stored.bytes.tolist() == [12 * 8 * 8 * 3 * 4] * 2
    )


def test_pictures_are_un_normalised_and_clipped(wild, recorded, toy_set):
    shown = wild.pictures(wild.images)
    assert shown.min() >= 0 and shown.max() <= 1
    plain = replace(toy_set, images=toy_set.normalise(toy_set.images), bounded=False)
    assert torch.allclose(plain.pictures(plain.images), toy_set.images, atol=1e-6)
    kept = prune.prune(wild, recorded, "yoco", 1)
    ax = plots.condensed_set(wild)
    drawn = ax.images[0].get_array()
    assert drawn.min() >= 0 and drawn.max() <= 1
    assert (drawn[-17:-1, -17:-1] == 1).all(), (
        "the last class has four images, its fifth place is white"
    )
    plots.kept_and_dropped(wild, kept)
    plots.cross_out(ax, wild, torch.arange(60) % 7 == 0)
    plots.kept_of_class(wild, [kept], 2)
    plots.extremes(wild, torch.rand(60), 3)
    plots.sample(wild, recorded, 59)
    explore.browse(wild, prune.score_table(wild, recorded), recorded)


def test_what_needs_pixels_in_0_to_1_says_so(wild, toy):
    with pytest.raises(ValueError, match="start must hold images in 0..1 with one class each"):
        condense.condense(toy, "idc", ipc=5, factor=2, preset="smoke", start=wild, progress=False)
    with pytest.raises(
        ValueError, match="kind='blur' damages images in 0..1, but this set is unbounded"
    ):
        corruption.damage_set(wild, "blur", 10)
    even = replace(wild, labels=torch.eye(3).repeat_interleave(5, dim=0) * 0.7 + 0.1)
    spoiled, damaged = corruption.damage_set(even, "symmetric", 20)
    assert not spoiled.bounded and damaged.any() and not torch.equal(spoiled.images, wild.images)
