import pytest
import torch

from yoco import models


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_parameter_counts_of_the_paper():
    assert count(models.ConvNet(3, 10, 32)) == 320_010
    assert count(models.ResNetAP(3, 10, 224)) == 4_910_922


@pytest.mark.parametrize("name, size, width", [("convnet", 16, 8), ("convnet", 32, None), ("resnet10ap", 32, None), ("resnet10ap", 64, None)])
def test_logits_are_the_head_of_the_features(name, size, width):
    model = models.build(name, 3, 7, size, width=width).eval()
    images = torch.rand(2, 3, size, size)
    assert model(images).shape == (2, 7)
    assert torch.allclose(model(images), model.head(model.features(images)))


def test_instance_norm_treats_each_image_alone():
    model = models.build("convnet", 3, 5, 16, width=8)
    images = torch.rand(6, 3, 16, 16)
    assert torch.allclose(model(images)[:2], model(images[:2]), atol=1e-5)


def test_seeded_weights_do_not_touch_the_global_generator():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = models.build_seeded(1, "convnet", 1, 3, 8, width=4)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(10)
    second = models.build_seeded(1, "convnet", 1, 3, 8, width=4)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))


def test_bad_names_and_sizes():
    with pytest.raises(ValueError, match="model='convnett' is unknown.*'convnet'"):
        models.build("convnett", 3, 10, 32)
    with pytest.raises(ValueError, match="size must be at least 8, got 4"):
        models.ConvNet(3, 10, 4)
    with pytest.raises(ValueError, match="'convnet' only"):
        models.build("resnet10ap", 3, 10, 32, width=4)
    with pytest.raises(ValueError, match="depth=11 is unknown; allowed: 10, 18"):
        models.ResNetAP(3, 10, 32, depth=11)
