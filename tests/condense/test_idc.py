import pytest
import torch
import torch.nn.functional as F

from tests.condense import test_methods
from tests.conftest import make_data
from yoco import augment, condense, formation, models
from yoco.condense import idc
from yoco.condense.gradient_matching import GradientMatcher, convolution_weights
from yoco.condense.idc import GradientMatching
from yoco.condense.presets import settings_for
from yoco.data import to_floats
from yoco.data.normalise import normalise
from yoco.training import resumable
from yoco.utils import seeds

SHORT = {
    "method": "idc",
    "preset": "smoke",
    "outer_loops": 2,
    "inner_loops": 3,
    "width": 8,
    "network_images": 32,
    "precision": "float32",
    "progress": False,
}


def literal_distance(model, real, synthetic, label, distance):
    """Compute layer by layer with torch.autograd and all weights, as the published code does."""

    def gradients(images, create_graph):
        loss = F.cross_entropy(model(images), torch.full((len(images),), label))
        return torch.autograd.grad(loss, list(model.parameters()), create_graph=create_graph)

    total = 0
    for weight, r, s in zip(model.parameters(), gradients(real, False), gradients(synthetic, True)):
        if weight.ndim in (1, 2):  # biases and norms; the last layer
            continue
        for filter_r, filter_s in zip(r.detach(), s):
            total = total + (
                ((filter_r - filter_s) ** 2).sum()
                if distance == "l2"
                else (filter_r - filter_s).abs().sum()
            )
    return total


@pytest.mark.parametrize("name, width", [("convnet", 16), ("resnet10ap", None)])
@pytest.mark.parametrize("distance", ["l2", "l1"])
def test_matching_loss_and_its_gradient_equal_the_literal_loop(name, width, distance):
    model = models.build_seeded(0, name, 3, 4, 16, width=width)
    real, synthetic = torch.randn(6, 3, 16, 16), torch.randn(4, 3, 16, 16, requires_grad=True)
    expected = literal_distance(model, real, synthetic, 2, distance)
    ours = GradientMatcher(model, distance).match(model, real, synthetic, 2)
    assert ours.item() == pytest.approx(expected.item(), rel=1e-4)
    g_expected, g_ours = (torch.autograd.grad(value, synthetic)[0] for value in (expected, ours))
    assert torch.allclose(g_ours, g_expected, rtol=1e-3, atol=1e-4 * g_expected.abs().max().item())


def test_only_convolution_weights_are_matched():
    assert convolution_weights(models.ConvNet(3, 10, 32)) == [
        "body.0.weight",
        "body.4.weight",
        "body.8.weight",
    ]


@pytest.mark.parametrize("width, count", [(32, 16), pytest.param(128, 64, marks=pytest.mark.slow)])
def test_bfloat16_gradients_point_the_same_way(width, count):
    """The larger case has the shapes of CIFAR-10, IPC 10, factor 2.

    It is slow on a processor without bfloat16.
    """
    model = models.build_seeded(0, "convnet", 3, 10, 32, width=width)
    source = seeds.generator(0)
    real, synthetic = (
        torch.randn(count, 3, 32, 32, generator=source),
        torch.randn(count * 5 // 8, 3, 32, 32, generator=source).requires_grad_(),
    )
    gradients = []
    for precision in ("float32", "bfloat16"):
        distance = GradientMatcher(model, "l2", precision=precision).match(
            model, real, synthetic, 1
        )
        gradients.append(torch.autograd.grad(distance, synthetic)[0].flatten())
    assert torch.cosine_similarity(*gradients, dim=0) > 0.99


def test_one_outer_loop_lowers_the_loss_on_a_fixed_network():
    """Image steps descend if the network is not trained and the draws are fixed."""
    toy = make_data(per_class=40)
    settings = settings_for(
        "smoke", 16, 2, {"width": 8, "inner_loops": 100, "network_images": 0, "image_lr": 0.02}
    )
    method = GradientMatching(
        toy, 2, 2, settings, seeds.generator(0), torch.device("cpu"), "float32", False
    )
    losses = []
    for number in range(1, 25):  # 0 would bring in a fresh network
        method.source.manual_seed(1)
        losses.append(method.step(number))
    assert losses[-1] < 0.5 * losses[0]
    assert method.images.min() >= 0 and method.images.max() <= 1


def test_classes_together_move_as_one_after_another():
    """The published code takes a step of one momentum SGD per class.

    Constant gradients move the images equally far in all (design §5).
    """
    classes, lr, momentum, loops = 5, 0.1, 0.5, 40
    gradients = torch.randn(classes, 7)
    literal, velocity = torch.zeros(classes, 7), torch.zeros(classes, 7)
    ours, ours_velocity = torch.zeros(classes, 7), torch.zeros(classes, 7)
    for number in range(loops):
        on = 1.0 if number < loops // 2 else 0.0  # gradients end, momentum runs out
        for label in range(classes):
            gradient = torch.zeros(classes, 7)
            gradient[label] = on * gradients[label]
            velocity = momentum * velocity + gradient
            literal -= lr * velocity
        ours_velocity = momentum * ours_velocity + on * gradients
        ours -= lr * ours_velocity
    assert torch.allclose(ours, literal, atol=1e-5)


def test_image_step_is_momentum_sgd_clamped():
    settings = settings_for("smoke", 16, 2, {"width": 8, "image_lr": 0.1})
    method = GradientMatching(
        make_data(), 2, 2, settings, seeds.generator(0), torch.device("cpu"), "float32", False
    )
    start, gradient = method.images.clone(), torch.randn_like(method.images)
    method._move_images(gradient)
    method._move_images(gradient)
    expected = ((start - 0.1 * gradient).clamp(0, 1) - 0.1 * 1.5 * gradient).clamp(0, 1)
    assert torch.allclose(method.images, expected, atol=1e-6)


@pytest.mark.parametrize("most", [128, 8, 5])
def test_image_gradient_is_that_of_the_plain_computation(most):
    """One class by hand, with the same draws.

    Images are formed (of 8 cells `most`), normalised, augmented alike, and matched literally.
    """
    toy = make_data()
    settings = settings_for("smoke", 16, 2, {"width": 8, "synthetic_batch": most})
    method = GradientMatching(
        toy, 2, 2, settings, seeds.generator(3), torch.device("cpu"), "float32", False
    )
    state = method.source.get_state()
    loss, gradient = method.image_gradient()
    source = torch.Generator()
    source.set_state(state)
    total, by_hand = 0.0, []
    for label in range(3):
        images = method.images[label * 2 : label * 2 + 2].clone().requires_grad_()
        formed = formation.form(images, 2)
        formed = formed[torch.randperm(8, generator=source)[:most]] if most < 8 else formed
        draw = augment.Augmentation(augment.MATCHING, shared=True).draw(1, 16, source)
        members = torch.nonzero(toy.train_labels == label).flatten()
        real = to_floats(toy.train_images[members[torch.randperm(24, generator=source)[:64]]])
        both = torch.cat([real, formed])
        seen = augment.Augmentation(augment.MATCHING, shared=True).apply(
            normalise(both, toy.mean, toy.std), draw
        )
        distance = literal_distance(method.model, seen[:24], seen[24:], label, "l2")
        by_hand.append(torch.autograd.grad(distance, images)[0])
        total += distance.item() / 3
    expected = torch.cat(by_hand)
    assert loss == pytest.approx(total, rel=1e-4)
    assert torch.allclose(gradient, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_condense_moves_every_image_at_each_factor(toy, factor):
    start = condense.real_set(toy, 2, factor, seed=4)
    made = condense.condense(toy, ipc=2, factor=factor, seed=4, **SHORT)
    assert made.images.shape == (6, 3, 16, 16) and made.factor == factor and made.method == "idc"
    assert ((made.images - start.images).abs().amax((1, 2, 3)) > 0).all()
    assert (
        len(made.info["loss"]) == made.info["steps"] == made.info["planned_steps"] == 6
        and made.info["finished"]
    )
    assert (
        made.info["settings"]["width"] == 8
        and made.info["seed"] == 4
        and made.info["preset"] == "smoke"
    )


def test_more_cells_than_the_batch_takes_are_sampled(toy):
    made = condense.condense(toy, ipc=4, factor=2, synthetic_batch=8, **SHORT)
    assert (
        made.info["settings"]["synthetic_batch"] == 8
        and made.info["synthetic"] == "cells"
        and len(made.images) == 12
    )
    assert (
        "synthetic" not in condense.condense(toy, ipc=2, factor=2, synthetic_batch=8, **SHORT).info
    )


@pytest.mark.parametrize(
    "method, settings, told",
    [
        ("idc", {"factor": 2, "synthetic_batch": 7}, "synthetic: None there, 'cells' here"),
        ("idc", {"model": "resnet10ap-w4", "width": None}, "layout: None there, 2 here"),
        ("mtt", {}, "start_epoch: None there, 'below max_start_epoch' here"),
    ],
)
def test_checkpoint_of_version_0_1_s_other_rule_is_refused(toy, tmp_path, method, settings, told):
    run = {
        **test_methods.SHORT,
        **test_methods.TINY[method],
        **settings,
        "checkpoint": tmp_path / "checkpoint.safetensors",
        "time_budget": 0,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(condense.METHODS[method].stepper, "rules", lambda self: {})
        condense.condense(toy, method, 2, **run)
    with pytest.raises(ValueError, match=rf"belongs to another run \({told}\)"):
        condense.condense(toy, method, 2, **run)


def test_pretraining_and_resnet():
    settings = {
        "model": "resnet10ap",
        "distance": "l1",
        "pretrain_epochs": 1,
        "outer_loops": 1,
        "inner_loops": 1,
        "network_images": 8,
    }
    made = condense.condense(
        make_data(per_class=8), "idc", 1, 2, preset="smoke", progress=False, **settings
    )
    assert made.info["settings"]["pretrain_epochs"] == 1 and made.info["steps"] == 1


@pytest.mark.parametrize("batch", [{}, {"network_batch": 5}])
def test_networks_train_before_and_between_the_matches(toy, monkeypatch, batch):
    done, match = [], GradientMatching.image_gradient
    monkeypatch.setattr(
        GradientMatching, "image_gradient", lambda self: done.append("match") or match(self)
    )
    epoch = idc.train.epoch
    monkeypatch.setattr(
        idc.train,
        "epoch",
        lambda step, images, *rest, batch_size, **how: (
            done.append((len(images), batch_size))
            or epoch(step, images, *rest, batch_size=batch_size, **how)
        ),
    )
    loops = {"outer_loops": 2, "inner_loops": 2, "pretrain_epochs": 3, "network_images": 7}
    condense.condense(toy, ipc=1, **{**SHORT, **loops, **batch})
    of_all, between = ((n, batch.get("network_batch", 64)) for n in (len(toy.train_images), 7))
    one = [*[of_all] * 3, "match", between, "match"]
    assert [d for d in done if d != between] == [d for d in one * 2 if d != between]
    assert done[:6] == one and done.count(between) >= 2


@pytest.mark.parametrize("preset, batch", [("paper", 256), ("laptop", 256)])
def test_dsa_trains_its_networks_in_larger_batches(preset, batch):
    assert condense.METHODS["dsa"].settings_for(preset, 32, 10, {}).network_batch == batch


def test_seed_decides_the_set_and_global_state_stays(toy):
    torch.manual_seed(1)
    first = condense.condense(toy, ipc=1, seed=7, **SHORT)
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    second = condense.condense(toy, ipc=1, seed=7, **SHORT)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.images, second.images)
    assert not torch.equal(first.images, condense.condense(toy, ipc=1, seed=8, **SHORT).images)


@pytest.mark.parametrize("stop_after", [1, 2, 3, 4, 5])
def test_an_interrupted_run_resumes_to_the_same_set(toy, tmp_path, monkeypatch, stop_after):
    whole = condense.condense(toy, ipc=1, **SHORT)
    clock = iter(range(1000))
    # a second between looks at the clock
    monkeypatch.setattr(resumable.time, "monotonic", lambda: float(next(clock)))
    path = tmp_path / "checkpoint.safetensors"
    # one look is the first save's
    part = condense.condense(toy, ipc=1, checkpoint=path, time_budget=stop_after + 1.0, **SHORT)
    assert part.info["steps"] == stop_after and not part.info["finished"]
    monkeypatch.undo()
    rest = condense.condense(toy, ipc=1, checkpoint=path, **SHORT)
    assert (
        torch.equal(rest.images, whole.images)
        and rest.info["loss"] == whole.info["loss"]
        and rest.info["finished"]
    )


def test_a_run_killed_between_checkpoints_goes_on_from_the_last(toy, tmp_path, monkeypatch):
    whole = condense.condense(toy, ipc=1, **SHORT)
    monkeypatch.setattr(resumable, "SAVE_EVERY", 0.0)
    step, path = GradientMatching.step, tmp_path / "checkpoint.safetensors"

    def killed(self, number):
        if number == 4:
            raise KeyboardInterrupt
        return step(self, number)

    monkeypatch.setattr(GradientMatching, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        condense.condense(toy, ipc=1, checkpoint=path, **SHORT)
    monkeypatch.setattr(GradientMatching, "step", step)
    assert torch.equal(condense.condense(toy, ipc=1, checkpoint=path, **SHORT).images, whole.images)


def test_checkpoint_of_other_settings_is_refused_by_name(toy, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    condense.condense(toy, ipc=1, checkpoint=path, **SHORT)
    with pytest.raises(
        ValueError, match="checkpoint .* belongs to another run .*seed: 0 there, 1 here"
    ):
        condense.condense(toy, ipc=1, seed=1, checkpoint=path, **SHORT)


def test_unwritable_checkpoint_is_found_before_any_step(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(GradientMatching, "step", lambda *_: pytest.fail("a step was taken"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write .*file/checkpoint"):
        condense.condense(toy, ipc=1, checkpoint=tmp_path / "file/checkpoint", **SHORT)


def test_a_loss_that_leaves_the_numbers_stops_with_the_step(toy, tmp_path):
    with pytest.raises(FloatingPointError, match="loss is nan at step"):
        condense.condense(toy, ipc=1, network_lr=1e30, **SHORT)


@pytest.mark.parametrize(
    "arguments, error, match",
    [
        ({"method": "dcc"}, ValueError, "method='dcc' is unknown.*allowed: idc"),
        ({"preset": "huge"}, ValueError, "preset='huge' is unknown.*paper, laptop, smoke"),
        ({"ipc": 0}, ValueError, "ipc must be at least 1, got 0"),
        (
            {"ipc": 7, "factor": 2},
            ValueError,
            ("ipc=7 with factor=2 needs 28 images of every class; too few in: dark .24."),
        ),
        ({"factor": 0}, ValueError, "factor must be between 1 and 16, got 0"),
        ({"ipc": "10"}, TypeError, "ipc must be a whole number, got '10'"),
        ({"seed": -1}, ValueError, "seed must be"),
        ({"image_rl": 0.1}, ValueError, "setting='image_rl' is unknown .did you mean 'image_lr'"),
        ({"image_lr": -0.1}, ValueError, "image_lr must be"),
        ({"inner_loops": 0}, ValueError, "inner_loops must be at least 1"),
        ({"precision": "float16"}, ValueError, "precision='float16' is unknown"),
        ({"time_budget": -1}, ValueError, "time_budget must be"),
        ({"model": "vgg"}, ValueError, "model='vgg' is unknown"),
    ],
)
def test_bad_input_is_refused_before_work(toy, monkeypatch, arguments, error, match):
    monkeypatch.setattr(GradientMatching, "__init__", lambda *_, **__: pytest.fail("work began"))
    with pytest.raises(error, match=match):
        condense.condense(
            toy, **{"method": "idc", "ipc": 1, "preset": "paper", "progress": False, **arguments}
        )


def test_presets_are_the_paper_s_by_size():
    small, large = settings_for("paper", 32, 10, {}), settings_for("paper", 224, 20, {})
    assert (
        small.model,
        small.distance,
        small.outer_loops,
        small.inner_loops,
        small.network_images,
    ) == ("convnet", "l2", 2000, 100, 2000)
    assert small.image_lr == pytest.approx(0.005) and settings_for(
        "paper", 16, 50, {}
    ).image_lr == pytest.approx(0.005 * 5 / 4)
    assert (
        large.model,
        large.distance,
        large.outer_loops,
        large.pretrain_epochs,
        large.network_images,
    ) == ("resnet10ap", "l1", 500, 10, 500)
    assert large.image_lr == pytest.approx(0.006)


def test_loss_history_is_thinned_to_a_thousand():
    kept = resumable.thinned([float(i) for i in range(2500)])
    assert kept["loss_every"] == 3 and len(kept["loss"]) == 834 and kept["loss"][0] == 1.0


def test_no_bar_is_drawn_where_none_is_wanted(toy, capfd):
    short = {
        "iterations": 1,
        "student_steps": 1,
        "experts": 1,
        "buffer_epochs": 2,
        "expert_epochs": 1,
        "max_start_epoch": 1,
        "width": 8,
    }
    condense.condense(
        toy, "mtt", 1, 1, preset="smoke", progress=False, precision="float32", **short
    )
    assert "experts" not in capfd.readouterr().err
    condense.condense(toy, "mtt", 1, 1, preset="smoke", precision="float32", **short)
    assert "training experts" in capfd.readouterr().err
