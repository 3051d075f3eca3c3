import pytest
import torch
import torch.nn.functional as F
from torch import nn

from yoco import augment, condense, dynamics, evaluate, models
from yoco.condense import mtt, mtt_experts, presets
from yoco.training import network as training
from yoco.utils import seeds

BATCH_NORM = ("resnet10", "densenet")
FAST = {"precision": "float32", "compiled": False}


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_parameter_counts_of_the_paper():
    assert count(models.ConvNet(3, 10, 32)) == 320_010
    assert count(models.ResNetAP(3, 10, 224)) == 4_910_922


def literal_resnet10ap(network, images, kernel, pool):
    """Return the logits of a ResNet10-AP as IDC's code computes them.

    A block is pooled between its two convolutions.
    """
    parameters = iter(network.parameters())
    first = next(parameters)
    assert first.shape[-1] == kernel
    norm = lambda x: F.group_norm(x, x.shape[1], next(parameters), next(parameters))
    x = F.relu(norm(F.conv2d(images, first, padding=kernel // 2)))
    x = F.avg_pool2d(x, pool) if pool > 1 else x
    for stage in range(4):
        halved = (lambda y: F.avg_pool2d(y, 2)) if stage else (lambda y: y)
        y = halved(F.relu(norm(F.conv2d(x, next(parameters), padding=1))))
        y = norm(F.conv2d(y, next(parameters), padding=1))
        x = F.relu(y + (norm(halved(F.conv2d(x, next(parameters)))) if stage else x))
    return F.linear(x.mean((2, 3)), next(parameters), next(parameters))


@pytest.mark.parametrize(
    "size, kernel, pool", [(16, 3, 1), (64, 3, 1), (65, 3, 2), (128, 3, 2), (129, 7, 4)]
)
def test_resnet10ap_is_the_published_one(size, kernel, pool):
    network = models.build_seeded(0, "resnet10ap-w4", 3, 5, size)
    images = torch.randn(2, 3, size, size, generator=seeds.generator(1))
    assert torch.allclose(
        network(images), literal_resnet10ap(network, images, kernel, pool), atol=1e-5
    )


@pytest.mark.parametrize("name", ["resnet10ap", "resnet10"])
def test_convolutions_of_the_resnets_are_normal_by_their_outputs(name):
    network = models.build_seeded(0, name, 3, 10, 32)
    for convolution in (module for module in network.modules() if isinstance(module, nn.Conv2d)):
        weights = convolution.weight.detach().flatten()
        assert weights.std().item() == pytest.approx(
            (2 / (convolution.kernel_size[0] ** 2 * convolution.out_channels)) ** 0.5, rel=0.05
        )
        # a uniform distribution ends at 1.73 of them
        assert weights.abs().max() > 2.5 * weights.std()


def test_a_width_in_the_name_is_that_of_the_first_stage():
    # as IDC's on CIFAR: 32, 64, 128 and 256 channels
    assert count(models.build("resnet10-w32", 3, 10, 32)) == 1_228_970
    assert (
        models.build("resnet10ap-w32", 3, 10, 32).head.in_features
        == models.build("resnet10-w32", 3, 10, 32).head.in_features
        == 256
    )
    for name in ("resnet10-d3", "resnet10ap-w0", "densenet-w8", "resnet10-w"):
        with pytest.raises(ValueError, match=f"model='{name}' is unknown"):
            models.factory(name)


def test_parameter_counts_of_the_cross_architecture_test():
    assert count(models.ResNet10(3, 10, 224)) == 4_910_922  # as ResNet10-AP
    assert count(models.ResNet10(3, 10, 32)) == 4_910_922 - (7 * 7 - 3 * 3) * 3 * 64
    assert count(models.DenseNet(3, 10, 32)) == 1_000_618  # as IDC's


@pytest.mark.parametrize(
    "name, size, width",
    [
        ("convnet", 16, 8),
        ("convnet", 32, None),
        ("resnet10ap", 32, None),
        ("resnet10ap-w8", 64, None),
    ],
)
def test_logits_are_the_head_of_the_features(name, size, width):
    model = models.build(name, 3, 7, size, width=width).eval()
    images = torch.rand(2, 3, size, size)
    assert model(images).shape == (2, 7)
    assert torch.allclose(model(images), model.head(model.features(images)))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("name, width", [("resnet10", 512), ("densenet", 384)])
def test_logits_are_the_head_of_the_features_with_batch_norm(name, width, size, channels):
    model = models.build(name, channels, 7, size)
    images = torch.rand(3, channels, size, size)
    model(images)  # the running statistics move
    model.eval()
    assert model(images).shape == (3, 7) and model.features(images).shape == (3, width)
    assert torch.equal(model(images), model.head(model.features(images)))


@pytest.mark.parametrize("name", BATCH_NORM)
def test_the_stem_halves_nothing_below_64_pixels(name):
    def side(size):
        sides = []
        model = models.build(name, 3, 2, size).eval()
        first = model.body.layer1 if name == "resnet10" else model.body.features.denseblock1
        first.register_forward_hook(lambda block, inputs, output: sides.append(output.shape[-1]))
        model(torch.rand(1, 3, size, size))
        return sides[0]

    assert [side(32), side(64)] == [32, 16]


def test_instance_norm_treats_each_image_alone():
    model = models.build("convnet", 3, 5, 16, width=8)
    images = torch.rand(6, 3, 16, 16)
    assert torch.allclose(model(images)[:2], model(images[:2]), atol=1e-5)


@pytest.mark.parametrize("name, width", [("convnet", 4), *((name, None) for name in BATCH_NORM)])
def test_seeded_weights_do_not_touch_the_global_generator(name, width):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = models.build_seeded(1, name, 1, 3, 16, width=width)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(10)
    second = models.build_seeded(1, name, 1, 3, 16, width=width)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))


def test_bad_names_and_sizes():
    with pytest.raises(ValueError, match="model='convnett' is unknown.*'convnet'"):
        models.build("convnett", 3, 10, 32)
    with pytest.raises(ValueError, match="size must be at least 8, got 4"):
        models.ConvNet(3, 10, 4)
    for name in ("resnet10ap", *BATCH_NORM):
        with pytest.raises(ValueError, match="requires a ConvNet without a width in its name"):
            models.build(name, 3, 10, 32, width=4)
    for name in BATCH_NORM:
        with pytest.raises(ValueError, match="size must be at least 16, got 15"):
            models.build(name, 3, 10, 15)
    with pytest.raises(ValueError, match="depth=11 is unknown; allowed: 10, 18"):
        models.ResNetAP(3, 10, 32, depth=11)


@pytest.mark.parametrize("name", BATCH_NORM)
def test_condensing_refuses_batch_norm_before_any_work(toy, tmp_path, monkeypatch, name):
    refused = (
        f"model='{name}' has batch norm, which condensing cannot use; allowed: convnet, resnet10ap$"
    )
    monkeypatch.setattr(models, "build", lambda *_, **__: pytest.fail("a network was built"))
    for method in [name for name in condense.METHODS if name != "kip"]:
        with pytest.raises(ValueError, match=refused):
            condense.condense(
                toy,
                method,
                1,
                1,
                preset="smoke",
                checkpoint=tmp_path / "checkpoint",
                progress=False,
                model=name,
            )
    for settings in (presets.IdcSettings, mtt.TrajectorySettings, mtt_experts.ExpertSettings):
        with pytest.raises(ValueError, match=refused):
            settings(model=name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize("name", BATCH_NORM)
def test_a_last_batch_of_one_image_trains(name, size):
    sizes, logits = [], []

    def seen(index, batch):
        sizes.append(len(index))
        logits.append(batch)

    model = models.build_seeded(0, name, 1, 3, size)
    images, labels = torch.randn(65, 1, size, size), torch.arange(65) % 3
    augmentation = augment.Augmentation(augment.EVALUATION)
    step = training.Step(model, training.Optimiser().build(model.parameters()))
    training.epoch(
        step,
        images,
        labels,
        seeds.generator(0),
        classes=3,
        augmentation=augmentation,
        batch_size=64,
        last_batch="small",
        seen=seen,
    )
    assert (
        sizes == [64, 1]
        and torch.cat(logits).isfinite().all()
        and all(p.isfinite().all() for p in model.parameters())
    )


def test_a_trained_batch_norm_network_treats_each_image_alone(toy, toy_set):
    images, labels = toy_set.form()
    network = training.fit(
        toy_set.normalise(images),
        labels,
        3,
        training.Protocol(epochs=1, model="resnet10", **FAST),
        0,
    )
    assert not network.training
    assert torch.allclose(network(images)[:2], network(images[:2]), atol=1e-4)


def test_a_seed_gives_one_accuracy_with_batch_norm(toy, toy_set):
    options = {"epochs": 2, "seed": 3, "model": "resnet10", **FAST}
    first = evaluate.evaluate(*toy_set.form(), toy, **options)
    torch.rand(10)
    assert evaluate.evaluate(*toy_set.form(), toy, **options) == first


def test_clean_dynamics_are_of_the_network_at_rest(toy_set):
    recorded = dynamics.record(
        toy_set, epochs=2, seed=0, model="resnet10", record_on="clean", progress=False, **FAST
    )
    assert torch.allclose(recorded.logits[-1], recorded.final_logits, atol=1e-4)
