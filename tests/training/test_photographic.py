"""The augmentation of ImageNet trainings against torchvision's functions and the published steps.

Images are compared one by one.
"""

import itertools
import math

import pytest
import torch
from torchvision.transforms import v2

from yoco.training import photographic
from yoco.training.photographic import Photographic
from yoco.utils import seeds

MEAN, STD, SIZE = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 24
AUGMENTATION = Photographic(MEAN, STD)


def draw(count=4000, size=SIZE, seed=0):
    return AUGMENTATION.draw(count, size, seeds.generator(seed))


def images(count=6):
    return torch.rand(count, 3, SIZE, SIZE, generator=seeds.generator(1))


def normalised(values):
    return (values - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def test_boxes_are_drawn_as_torchvision_draws_them():
    box = draw(20_000, 64).box.double()
    area, ratio = box[:, 2] * box[:, 3] / 64**2, (box[:, 3] / box[:, 2]).log()
    assert (box[:, :2] >= 0).all() and (box[:, :2] + box[:, 2:] <= 64).all()
    assert (
        0.48 < area.min() < 0.51
        and area.max() > 0.98
        and math.log(4 / 3) - 0.05 < ratio.abs().max() < math.log(4 / 3) + 0.03
    )
    with seeds.torch_seeded(0):
        crop = v2.RandomResizedCrop(64, scale=(0.5, 1.0))
        theirs = [crop.make_params([torch.empty(3, 64, 64)]) for _ in range(4000)]
    theirs = torch.tensor(
        [[params[name] for name in ("top", "left", "height", "width")] for params in theirs]
    ).double()
    assert torch.allclose(box.mean(0), theirs.mean(0), atol=0.6) and torch.allclose(
        box.std(0), theirs.std(0), rtol=0.06
    )


def test_first_fitting_box_or_the_whole_image_is_taken():
    # the whole area, 4/3 as wide as high: too wide
    shape = torch.full((2, 2, photographic.TRIES), 1.0)
    # from the fourth on half of the area, square
    shape[:, 0, 3:] = torch.tensor([0.0, 0.5]).view(2, 1)
    box = photographic.boxes(shape, torch.tensor([[0.0, 0.5], [0.999, 0.5]]), 100)
    assert box.tolist() == [[0, 29, 71, 71], [0, 0, 100, 100]]


def test_a_box_is_enlarged_as_torchvision_does_it():
    batch, drawn = images(200), draw(200)
    ours = photographic.resized_crop(batch, drawn.box)
    theirs = [
        v2.functional.resized_crop(image, *box, [SIZE, SIZE])
        for image, box in zip(batch, drawn.box.tolist())
    ]
    assert torch.allclose(ours, torch.stack(theirs), atol=1e-5)
    assert torch.allclose(
        photographic.resized_crop(batch[:1], torch.tensor([[0, 0, SIZE, SIZE]])),
        batch[:1],
        atol=1e-5,
    )


@pytest.mark.parametrize(
    "order", list(itertools.permutations(("brightness", "contrast", "saturation")))
)
def test_colours_are_the_published_jitter_in_any_order(order):
    """Each operation mixes the image with black, its mean luminance, or its luminance.

    The factor is in 0.6..1.4.
    """
    batch, drawn = images(), draw(6)
    grey = lambda image: (
        (image * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1))
        .sum(0, keepdim=True)
        .expand(3, -1, -1)
    )
    others = {
        "brightness": torch.zeros_like,
        "contrast": lambda image: grey(image).mean().expand_as(image),
        "saturation": grey,
    }
    expected = []
    for number, image in enumerate(batch):
        for name in order:
            image = image.lerp(others[name](image), 1 - getattr(drawn, name)[number].item())
        expected.append(image + drawn.light[number])
    factors = {
        name: getattr(drawn, name) for name in ("brightness", "contrast", "saturation", "light")
    }
    assert torch.allclose(photographic.coloured(batch, **factors), torch.stack(expected), atol=1e-5)


def test_factors_and_light_have_the_published_spread():
    drawn = draw(20_000)
    for name in ("brightness", "contrast", "saturation"):
        values = getattr(drawn, name)
        assert (
            0.6 <= values.min() < 0.601
            and 1.399 < values.max() <= 1.4
            and values.mean() == pytest.approx(1, abs=0.01)
        )
    assert drawn.flip.float().mean() == pytest.approx(0.5, abs=0.02)
    axes, values = torch.tensor(photographic.AXES), torch.tensor(photographic.EIGENVALUES)
    covariance = axes @ torch.diag((0.1 * values) ** 2) @ axes.T
    assert torch.allclose(
        torch.cov(drawn.light.flatten(1).T), covariance, atol=0.03 * covariance.max().item()
    )


def test_all_of_it_is_box_flip_and_colour_of_the_image_in_0_to_1():
    batch, drawn = images(), draw(6)
    expected = photographic.resized_crop(batch, drawn.box)
    expected = torch.where(drawn.flip, expected.flip(3), expected)
    expected = photographic.coloured(
        expected, drawn.brightness, drawn.contrast, drawn.saturation, drawn.light
    )
    assert torch.allclose(
        AUGMENTATION.apply(normalised(batch), drawn), normalised(expected), atol=1e-4
    )
    assert torch.equal(
        AUGMENTATION(normalised(batch), seeds.generator(0)),
        AUGMENTATION.apply(normalised(batch), drawn),
    )
    assert drawn.flip.any() and not drawn.flip.all()


def test_a_draw_does_not_touch_the_global_generator():
    before = torch.random.get_rng_state()
    assert torch.equal(draw(3).box, draw(3).box) and not torch.equal(
        draw(3).light, draw(3, seed=1).light
    )
    assert torch.equal(torch.random.get_rng_state(), before)


def test_bad_input_is_named():
    with pytest.raises(
        ValueError, match="augmentation='imagenet' takes images of 3 channels, got mean of 1"
    ):
        Photographic((0.5,), (0.2,))
    with pytest.raises(
        ValueError, match=r"images must have shape \[2, 3, S, S\].*got \[3, 3, 24, " r"24\]"
    ):
        AUGMENTATION.apply(images(3), draw(2))
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        draw(0)
    with pytest.raises(TypeError, match="images must"):
        AUGMENTATION.apply(images().long(), draw(6))
