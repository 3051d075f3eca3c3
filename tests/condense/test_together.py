"""Classes that are matched together give what each gives alone, with the same draws."""

import functools

import pytest
import torch

from tests.condense.test_methods import TINY
from tests.conftest import make_data
from yoco import augment, condense
from yoco.condense import class_groups
from yoco.condense.class_groups import Members
from yoco.condense.gradient_matching import GradientMatcher, layer_weights
from yoco.data import ImageData
from yoco.models import build_seeded
from yoco.utils import graphs, seeds

CPU = torch.device("cpu")


def uneven(size: int = 16) -> ImageData:
    """Five classes, of 24, 8, 24, 24 and 8 training images."""
    source = seeds.generator(0)
    labels = torch.arange(5).repeat_interleave(torch.tensor([24, 8, 24, 24, 8]))
    images, test = (
        torch.randint(256, (n, 3, size, size), generator=source, dtype=torch.uint8)
        for n in (len(labels), 5)
    )
    statistics = ((0.5, 0.4, 0.3), (0.2, 0.3, 0.2))
    return ImageData("uneven", images, labels, test, torch.arange(5), tuple("abcde"), *statistics)


def stepper_of(name, data, *, ipc=1, precision="float32", device=CPU, **overrides):
    method = condense.METHODS[name]
    settings = method.settings_for("smoke", data.size, ipc, {**TINY[name], **overrides})
    factor = 2 if method.multi else 1
    return method.stepper(data, ipc, factor, settings, seeds.generator(0), device, precision, False)


def together_and_alone(stepper, monkeypatch):
    """Return distances and gradient of the classes together, and of each by the CPU's path."""
    drawn = []
    for owner, name in ((stepper, "synthetic_batches"), (augment.Augmentation, "draw_batches")):
        draw = getattr(owner, name)
        keep = lambda *inputs, draw=draw: drawn.append(draw(*inputs)) or drawn[-1]
        monkeypatch.setattr(owner, name, keep)
    real = stepper.real_batches()
    found = stepper._match_together(stepper.images, real, source=stepper.own_source)
    draw, cells = drawn
    alone = []
    for label, members in enumerate(stepper.members):
        images = stepper.images[label * stepper.ipc : (label + 1) * stepper.ipc]
        chosen = slice(None) if cells is None else cells[label]
        own = real[label, : min(len(members), stepper.settings.real_batch)]
        assert (stepper.data.train_labels[own.cpu()] == label).all() and len(own.unique()) == len(
            own
        )
        one = draw.of(torch.tensor([label], device=stepper.device))
        alone.append(stepper._matched(label, images, chosen, own, one))
    distances, gradients = zip(*alone)
    return found, (torch.stack(distances), torch.cat(gradients))


@pytest.mark.parametrize("pixels", [class_groups.TOGETHER, 2 * (12 + 4) * 16**2, 1])
@pytest.mark.parametrize(
    "name, overrides",
    [
        ("idc", {}),
        ("idc", {"distance": "l1", "model": "resnet10ap-w4", "width": None}),
        ("idc", {"ipc": 2, "synthetic_batch": 3, "distance": "cosine"}),
        ("dsa", {"ipc": 2}),
    ],
)
def test_classes_together_are_each_class_alone(monkeypatch, name, overrides, pixels):
    """Also with classes of fewer real images, and in groups of two classes and of one."""
    monkeypatch.setattr(class_groups, "TOGETHER", pixels)
    stepper = stepper_of(name, uneven(), **{"real_batch": 12, **overrides})
    sizes = [(len(group.labels), group.real) for group in stepper.groups]
    assert sum(classes for classes, _ in sizes) == 5 and {real for _, real in sizes} == {8, 12}
    if pixels == 1:
        assert len(sizes) == 5
    (distances, gradient), (expected, by_class) = together_and_alone(stepper, monkeypatch)
    assert torch.allclose(distances, expected, rtol=1e-4)
    assert torch.allclose(gradient, by_class, rtol=1e-3, atol=1e-4 * by_class.abs().max().item())
    assert gradient.unflatten(0, (5, -1)).flatten(1).any(1).all()


def test_dream_matches_its_representatives_together(monkeypatch):
    stepper = stepper_of("dream", uneven(), real_batch=12)
    stepper.due = True
    stepper.image_gradient()
    assert stepper.real_batches().shape == (5, 8)
    found, expected = together_and_alone(stepper, monkeypatch)
    for ours, theirs in zip(found, expected):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item())


def test_bfloat16_classes_together_point_the_same_way(monkeypatch):
    stepper = stepper_of("idc", uneven(), precision="bfloat16", real_batch=12)
    (distances, gradient), (expected, by_class) = together_and_alone(stepper, monkeypatch)
    assert torch.allclose(distances, expected, rtol=0.05)
    assert torch.cosine_similarity(gradient.flatten(), by_class.flatten(), dim=0) > 0.99


@pytest.mark.parametrize("distance", ["l2", "l1", "cosine"])
def test_every_distance_of_every_layer_can_be_matched_together(distance):
    model = build_seeded(0, "convnet", 3, 4, 16, width=8)
    real, synthetic = torch.randn(3, 6, 3, 16, 16), torch.randn(3, 4, 3, 16, 16)
    matcher = GradientMatcher(model, distance, layer_weights)
    found = matcher.match_together(model, real, synthetic, torch.tensor([3, 0, 1]))
    each = [matcher.match(model, r, s, k) for r, s, k in zip(real, synthetic, (3, 0, 1))]
    assert torch.allclose(found, torch.stack(each), rtol=1e-4)


@pytest.mark.parametrize("name", ["idc", "dream", "dsa"])
def test_steps_with_the_classes_together_move_images_and_resume(name):
    """The device decides; on a CPU, one class after another is faster."""
    data = make_data()
    whole, first, second = (stepper_of(name, data) for _ in range(3))
    assert not whole.together
    whole.together = first.together = second.together = True
    start = whole.images.clone()
    losses = [whole.step(number) for number in range(2)]
    assert all(0 < loss < float("inf") for loss in losses)
    assert ((whole.images - start).abs().amax((1, 2, 3)) > 0).all()
    assert first.step(0) == losses[0]
    second.restore(first.state())
    second.due = second.last = False
    assert second.step(1) == losses[1] and torch.equal(second.images, whole.images)


def test_a_fresh_network_takes_the_place_of_the_last_one(toy):
    """CUDA graphs read weights and momentum from the memory that they had when recorded."""
    stepper = stepper_of("idc", toy, inner_loops=1)
    optimizer = stepper.network_step.optimizer
    held = [*stepper.model.parameters(), *optimizer.momenta]
    before, places = [tensor.clone() for tensor in held], [tensor.data_ptr() for tensor in held]
    stepper.step(0)
    assert places == [t.data_ptr() for t in (*stepper.model.parameters(), *optimizer.momenta)]
    assert not any(torch.equal(*pair) for pair in zip(before[:4], held))
    assert all(momentum.any() for momentum in optimizer.momenta[:2])
    stepper._renew_network()
    assert not any(momentum.any() for momentum in optimizer.momenta)


def test_the_match_of_all_classes_is_one_graph_on_a_gpu(toy, monkeypatch):
    recorded = []
    keep = lambda function, device: recorded.append(function) or functools.partial(function)
    monkeypatch.setattr(graphs, "captured", keep)
    stepper = stepper_of("idc", toy)
    assert stepper._match_together in recorded


def test_draws_of_all_batches_are_those_of_a_batch_each():
    """DSA draws one operation per class, not one per step."""
    strategy = augment.Augmentation(augment.OPERATIONS, shared=True, single=True)
    draw = strategy.draw_batches(200, 16, seeds.generator(0))
    moved = {
        "color": (draw.brightness != 0).flatten(),
        "crop": (draw.shift != 0).any(1),
        "flip": draw.flip.flatten(),
        "cutout": (draw.cutout != augment.OUTSIDE).any(1),
        "affine": (draw.theta != torch.eye(2, 3)).flatten(1).any(1),
    }
    drawn = torch.stack(list(moved.values()))
    assert (drawn.sum(0) <= 1).all() and (drawn.sum(1) > 5).all()


def test_each_class_draws_different_images_of_its_own():
    members = Members([torch.tensor([4, 7, 9]), torch.tensor([1, 2]), torch.arange(20, 29)], CPU)
    source = seeds.generator(0)
    drawn = torch.stack([members.draw(3, source) for _ in range(50)])
    assert all(sorted(row.tolist()) == [4, 7, 9] for row in drawn[:, 0])
    assert all(sorted(row[:2].tolist()) == [1, 2] for row in drawn[:, 1])
    assert drawn[:, 2].unique().tolist() == list(range(20, 29))
    assert all(len(row.unique()) == 3 for row in drawn[:, 2])
    assert len(drawn[:, 0].unique(dim=0)) > 3 and members.draw(100, source).shape == (3, 9)
