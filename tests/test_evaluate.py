import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import make_data
from yoco import augment, dynamics, evaluate, models
from yoco import augment as augment_module
from yoco.data import to_floats
from yoco.data.normalise import normalise
from yoco.training import network as training
from yoco.training import protocol
from yoco.training.photographic import Photographic
from yoco.training.protocol import Protocol
from yoco.utils import seeds

FAST = {"width": 8, "precision": "float32"}


def test_training_learns_and_chance_stays_chance(toy, toy_set):
    images, labels = toy_set.form()
    learned = evaluate.evaluate(images, labels, toy, epochs=40, seed=0, **FAST)
    confused = evaluate.evaluate(images, labels.roll(20), toy, epochs=40, seed=0, **FAST)
    assert learned > 80 and confused < 20


def test_accuracy_is_exact_over_all_test_images_in_percent(toy, toy_set):
    images, labels = toy_set.form()
    found = [evaluate.evaluate(images, labels, toy, epochs=n, seed=0, **FAST) for n in (1, 8)]
    for epochs, accuracy in zip((1, 8), found):
        how = protocol.Protocol(epochs=epochs, compiled=False, **FAST)
        inputs, tested = (
            normalise(pixels, toy.mean, toy.std) for pixels in (images, to_floats(toy.test_images))
        )
        network = training.fit(inputs, labels, 3, how, 0)
        right = (network(tested).argmax(1) == toy.test_labels).sum().item()
        assert accuracy == pytest.approx(100 * right / len(toy.test_labels))
    assert found[0] != found[1]


def test_seed_alone_decides_the_result_for_any_jobs(toy, toy_set):
    images, labels = toy_set.form()
    alone = [evaluate.evaluate(images, labels, toy, epochs=3, seed=s, **FAST) for s in (0, 1)]
    for jobs in (1, 2):
        subsets = {"a": (images, labels), "b": (images[::2], labels[::2])}
        table = evaluate.evaluate_many(
            subsets, toy, epochs=3, seeds=[0, 1], jobs=jobs, progress=False, **FAST
        )
        assert list(table.columns) == [
            "subset",
            "seed",
            "last_batch",
            "augmentation",
            "precision",
            "accuracy",
        ]
        assert table["subset"].tolist() == ["a", "a", "b", "b"] and set(table["augmentation"]) == {
            "dsa"
        }
        assert table["accuracy"][:2].tolist() == alone and set(table["precision"]) == {"float32"}


def test_the_bar_counts_images_so_that_the_time_left_holds(toy, toy_set, monkeypatch):
    seen = []

    class Bar:
        def __init__(self, total, **_):
            seen.append(total)

        __enter__ = lambda self: self
        __exit__ = lambda *_: None
        update = lambda self, amount: seen.append(amount)
        set_postfix_str = lambda self, text, refresh: seen.append(text)

    monkeypatch.setattr(evaluate, "tqdm", Bar)
    images, labels = toy_set.form()
    work = [evaluate.Training(images, labels, 0, Protocol(epochs=e, **FAST)) for e in (1, 3)]
    list(evaluate.accuracies(work, toy, jobs=1))
    tested = len(toy.test_labels) // 3
    assert seen == [240 + 2 * tested, "1 of 2 runs", 180 + tested, "2 of 2 runs", 60 + tested]


def test_learning_rate_falls_at_two_thirds_and_five_sixths(monkeypatch):
    rates = []

    def epoch(step, *_, **__):
        rates.append(step.optimizer.lr)
        step.optimizer.step()

    monkeypatch.setattr(training, "epoch", epoch)
    training.fit(
        torch.zeros(4, 1, 8, 8),
        torch.zeros(4, dtype=torch.long),
        2,
        Protocol(epochs=12, width=4, precision="float32", compiled=False),
        0,
    )
    assert rates == pytest.approx([0.01] * 8 + [0.002] * 2 + [0.0004] * 2)


def test_an_epoch_passes_every_image_once_in_batches():
    seen = []
    images, labels = torch.randn(10, 1, 8, 8), torch.arange(10) % 2
    model = models.build_seeded(0, "convnet", 1, 2, 8, width=4)
    step = training.Step(model, training.Optimiser().build(model.parameters()))
    augmentation = augment_module.Augmentation(())
    note = lambda index, logits: seen.append((index, logits))
    training.epoch(
        step,
        images,
        labels,
        seeds.generator(0),
        classes=2,
        augmentation=augmentation,
        batch_size=4,
        seen=note,
    )
    assert [len(i) for i, _ in seen] == [4, 3, 3] and sorted(
        torch.cat([i for i, _ in seen]).tolist()
    ) == list(range(10))
    assert seen[0][1].shape == (4, 2)


@given(
    count=st.integers(1, 400),
    batch_size=st.integers(1, 128),
    last_batch=st.sampled_from(protocol.LAST_BATCHES),
)
def test_batches_hold_each_image_once(count, batch_size, last_batch):
    parts = training.batches(count, batch_size, seeds.generator(count), last_batch)
    sizes = [len(part) for part in parts]
    assert sorted(torch.cat(list(parts)).tolist()) == list(range(count)) and len(sizes) == -(
        -count // batch_size
    )
    assert max(sizes) - min(sizes) <= 1 if last_batch == "even" else set(sizes[:-1]) <= {batch_size}
    assert max(sizes) <= batch_size


def test_the_paper_s_protocol_leaves_a_small_last_batch(toy, toy_set):
    assert Protocol.of(epochs=1).last_batch == "even" and Protocol.of(
        "paper", epochs=1
    ) == Protocol(1, last_batch="small")
    assert Protocol.of("paper", epochs=1, last_batch="even").last_batch == "even"
    images, labels = toy_set.form()
    options = {"epochs": 2, "seeds": [0], "batch_size": 32, "progress": False, **FAST}
    ways = [
        evaluate.evaluate_many({"a": (images, labels)}, toy, protocol=name, **options)
        for name in ("even", "paper")
    ]
    assert [way.last_batch[0] for way in ways] == ["even", "small"]
    with pytest.raises(ValueError, match="protocol='papper' is unknown .did you mean 'paper'"):
        Protocol.of("papper", epochs=1)
    with pytest.raises(ValueError, match="last_batch='odd' is unknown"):
        Protocol.of(epochs=1, last_batch="odd")
    said = "'cut_mix' is unknown to training .did you mean 'cutmix'.*allowed: protocol, epochs"
    with pytest.raises(TypeError, match=said):
        evaluate.evaluate(images, labels, toy, epochs=1, seed=0, cut_mix=1)


@pytest.fixture
def mixed(monkeypatch):
    """Batches as they arrive at CutMix, with its probability."""
    seen, cutmix = [], augment.cutmix
    monkeypatch.setattr(
        augment,
        "cutmix",
        lambda images, *rest: seen.append((images, rest[-1])) or cutmix(images, *rest),
    )
    return seen


def test_imagenet_augmentation_replaces_operations(toy, toy_set, mixed):
    images, labels = toy_set.form()
    table = evaluate.evaluate_many(
        {"a": (images, labels)},
        toy,
        epochs=1,
        seeds=[3],
        augmentation="imagenet",
        progress=False,
        jobs=1,
        **FAST,
    )
    assert table["augmentation"].tolist() == ["imagenet"] and [
        probability for _, probability in mixed
    ] == [1.0]
    source = seeds.generator(3, stream=1)
    seeds.draw_seed(source)  # the network's
    (order,) = training.batches(len(images), 64, source)
    expected = Photographic(toy.mean, toy.std)(normalise(images, toy.mean, toy.std)[order], source)
    assert torch.equal(mixed[0][0], expected)
    evaluate.evaluate(
        images, labels, toy, epochs=1, seed=0, augmentation="imagenet", cutmix=0.25, **FAST
    )
    evaluate.evaluate(images, labels, toy, epochs=1, seed=0, **FAST)
    assert [probability for _, probability in mixed[1:]] == [0.25, 0.5]


def test_dynamics_see_imagenet_augmentation_then_operations(toy_set, mixed):
    recorded = dynamics.record(
        toy_set, epochs=1, seed=3, augmentation="imagenet", progress=False, **FAST
    )
    assert recorded.info["augmentation"] == "imagenet" and recorded.training == {
        "last_batch": "even",
        "augmentation": "imagenet",
    }
    (batch, probability), source = mixed[0], seeds.generator(3, stream=1)
    images, _ = toy_set.form()
    seeds.draw_seed(source)
    (order,) = training.batches(len(images), 64, source)
    expected = Photographic(toy_set.mean, toy_set.std)(toy_set.normalise(images)[order], source)
    assert (
        torch.equal(batch, augment.Augmentation(augment.EVALUATION)(expected, source))
        and probability == 0.5
    )


def test_imagenet_augmentation_needs_normalised_colours(toy):
    grey = make_data(channels=1)
    with pytest.raises(
        ValueError, match="augmentation='imagenet' takes images of 3 channels, got mean of 1"
    ):
        evaluate.evaluate(
            grey.train_images[:10],
            grey.train_labels[:10],
            grey,
            epochs=1,
            seed=0,
            augmentation="imagenet",
            **FAST,
        )
    with pytest.raises(
        ValueError,
        match="augmentation='imagenet' needs the mean and std by which the images are normalised, "
        "got "
        "None",
    ):
        training.fit(
            torch.zeros(4, 3, 8, 8),
            torch.zeros(4, dtype=torch.long),
            2,
            Protocol(1, augmentation="imagenet", **FAST),
            0,
        )
    with pytest.raises(
        ValueError, match="augmentation='imagnet' is unknown .did you mean 'imagenet'"
    ):
        Protocol.of(augmentation="imagnet")


def test_step_equals_plain_sgd_with_momentum_and_weight_decay():
    images, targets = torch.randn(5, 1, 8, 8), torch.eye(5)[:, :3].softmax(1)
    ours, plain = (models.build_seeded(0, "convnet", 1, 3, 8, width=4) for _ in range(2))
    step = training.Step(ours, training.Optimiser().build(ours.parameters()))
    velocity = [torch.zeros_like(p) for p in plain.parameters()]
    for _ in range(3):
        step(images, targets)
        loss = -(targets * plain(images).log_softmax(1)).sum(1).mean()
        for p, v, g in zip(
            plain.parameters(), velocity, torch.autograd.grad(loss, list(plain.parameters()))
        ):
            v.mul_(0.9).add_(g + 5e-4 * p.detach())
            p.data -= 0.01 * v
    assert all(
        torch.allclose(a, b, atol=1e-5) for a, b in zip(ours.parameters(), plain.parameters())
    )


def test_divergence_is_an_error(toy, toy_set):
    with pytest.raises(FloatingPointError, match="training diverged"):
        evaluate.evaluate(
            *toy_set.form(), toy, epochs=3, seed=0, optimiser=training.Optimiser(lr=1e30), **FAST
        )


@pytest.mark.parametrize(
    "change, error, match",
    [
        (
            {"images": torch.rand(60, 3, 8, 8)},
            ValueError,
            (r"shape \[3, 16, 16\] each, as toy's, got \[3, 8, " r"8\]"),
        ),
        ({"images": torch.rand(60, 3, 16, 16) * 2}, ValueError, "images must lie in 0..1"),
        ({"labels": torch.full((60,), 5)}, ValueError, "labels must lie in 0..2, got 5..5"),
        (
            {"labels": torch.zeros(59, dtype=torch.long)},
            ValueError,
            r"labels must have shape \[60\]",
        ),
        ({"epochs": 0}, ValueError, "epochs must be at least 1"),
        ({"model": "vgg"}, ValueError, "model='vgg' is unknown"),
    ],
)
def test_bad_input(toy, toy_set, change, error, match):
    images, labels = toy_set.form()
    arguments = {"images": images, "labels": labels, "epochs": 1, "model": "convnet", **change}
    with pytest.raises(error, match=match):
        evaluate.evaluate(
            arguments.pop("images"), arguments.pop("labels"), toy, seed=0, **arguments
        )


def test_grey_images_work():
    grey = make_data(channels=1)
    assert (
        0
        <= evaluate.evaluate(
            grey.train_images[:10], grey.train_labels[:10], grey, epochs=1, seed=0, **FAST
        )
        <= 100
    )


def test_seeds_may_be_an_iterator(toy):
    few = toy.train_images[:6], toy.train_labels[:6]
    table = evaluate.evaluate_many(
        {"one": few, "two": few}, toy, epochs=1, seeds=iter([0, 1]), width=4, progress=False
    )
    assert table["seed"].tolist() == [0, 1, 0, 1]
