from dataclasses import replace

import pytest
import torch

from yoco.augment import (
    EVALUATION,
    GEOMETRIC,
    MATCHING,
    OPERATIONS,
    Augmentation,
    colour,
    crop,
    cutmix,
    cutmix_together,
    cutmix_unread,
    cutout_mask,
)
from yoco.utils import seeds

SIZE = 16


def draw(operations=EVALUATION, count=4000, shared=False, seed=0):
    return Augmentation(operations, shared).draw(count, SIZE, seeds.generator(seed))


def test_colour_parameters_are_uniform_in_the_design_s_ranges():
    drawn = draw()
    for values, low, high in (
        (drawn.brightness, -0.5, 0.5),
        (drawn.saturation, 0, 2),
        (drawn.contrast, 0.5, 1.5),
    ):
        assert low <= values.min() < low + 0.01 and high - 0.01 < values.max() <= high
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.03 * (high - low))


def test_crop_shifts_by_an_eighth_each_way_and_flip_is_a_coin():
    drawn = draw()
    assert drawn.shift.unique().tolist() == [-2, -1, 0, 1, 2]
    assert drawn.flip.float().mean() == pytest.approx(0.5, abs=0.03)


def test_scale_and_rotation_stay_in_range():
    scale = draw(("scale",)).theta
    assert 1 / 1.2 <= scale[:, 0, 0].min() < 0.84 and 1.19 < scale[:, 1, 1].max() <= 1.2
    angle = torch.rad2deg(torch.atan2(*draw(("rotate",)).theta[:, :, 0].flip(1).unbind(1)))
    assert -15 <= angle.min() < -14.9 and 14.9 < angle.max() <= 15


def test_one_of_crop_scale_and_rotate_is_drawn_per_batch():
    source = seeds.generator(0)
    drawn = [Augmentation(EVALUATION).draw(1, SIZE, source).operations for _ in range(600)]
    assert all({"color", "flip"} < set(operations) and len(operations) == 3 for operations in drawn)
    geometries = [next(o for o in operations if o in GEOMETRIC) for operations in drawn]
    for kind in ("crop", "scale", "rotate"):
        assert geometries.count(kind) == pytest.approx(200, abs=40)


def test_a_single_one_of_all_operations_is_drawn_per_batch():
    source, augmentation = seeds.generator(0), Augmentation(OPERATIONS, single=True)
    images = torch.rand(4, 3, SIZE, SIZE)
    drawn = [augmentation.draw(4, SIZE, source) for _ in range(600)]
    for kind in OPERATIONS:
        assert sum(d.operations == (kind,) for d in drawn) == pytest.approx(100, abs=35)
    cutout = next(d for d in drawn if d.operations == ("cutout",))
    assert torch.equal(
        augmentation.apply(images, cutout), images * cutout_mask(cutout.cutout, SIZE).unsqueeze(1)
    )


def test_only_a_shared_draw_treats_all_images_alike():
    images = torch.rand(1, 3, SIZE, SIZE).expand(32, -1, -1, -1)
    shared = Augmentation(MATCHING, shared=True)(images, seeds.generator(1))
    assert torch.allclose(shared, shared[:1].expand_as(shared))
    own = Augmentation(MATCHING)(images, seeds.generator(1))
    assert (own.flatten(1).std(0) > 0.01).float().mean() > 0.9


def test_shared_draw_is_the_same_for_real_and_synthetic_halves():
    augmentation = Augmentation(MATCHING, shared=True)
    real, synthetic = torch.rand(5, 3, SIZE, SIZE), torch.rand(3, 3, SIZE, SIZE)
    drawn = augmentation.draw(1, SIZE, seeds.generator(2))
    together = augmentation.apply(torch.cat([real, synthetic]), drawn)
    assert torch.allclose(
        together,
        torch.cat([augmentation.apply(real, drawn), augmentation.apply(synthetic, drawn)]),
        atol=1e-6,
    )


def test_colour_by_hand():
    image = torch.tensor([0.0, 2.0]).view(1, 2, 1, 1)  # two channels of one pixel: grey is 1
    drawn = replace(
        draw(count=1),
        brightness=torch.full((1, 1, 1, 1), 1.0),
        saturation=torch.full((1, 1, 1, 1), 0.5),
    )
    drawn = replace(drawn, contrast=torch.full((1, 1, 1, 1), 2.0))
    # brightness: 1, 3; saturation about 2: 1.5, 2.5; contrast about 2: 1, 3
    assert colour(image, drawn).flatten().tolist() == [1.0, 3.0]


def test_crop_moves_whole_pixels_and_zeros_come_in():
    image = torch.arange(9.0).view(1, 1, 3, 3) + 1
    expected = torch.tensor([[5.0, 6, 0], [8, 9, 0], [0, 0, 0]])
    for shift in (torch.tensor([[1, 1]]), torch.tensor([[1, 1], [0, 0]])):
        moved = crop(image.expand(len(shift), -1, -1, -1), shift)
        assert torch.equal(moved[0, 0], expected)


def test_cutout_is_half_the_side_and_cut_at_the_border():
    masks = cutout_mask(torch.tensor([[8, 8], [0, 0]]), 16)
    assert (masks[0] == 0).sum() == 64 and (masks[0, 4:12, 4:12] == 0).all()
    assert (masks[1] == 0).sum() == 16


def test_gradients_pass_through_all_of_it():
    for geometry in ("crop", "scale", "rotate"):
        augmentation = Augmentation(("color", geometry, "flip", "cutout"))
        images = torch.rand(2, 3, 8, 8, dtype=torch.double, requires_grad=True)
        drawn = augmentation.draw(2, 8, seeds.generator(3))
        double = replace(
            drawn,
            **{
                name: getattr(drawn, name).double()
                for name in ("brightness", "saturation", "contrast", "theta")
            },
        )
        assert torch.autograd.gradcheck(lambda x, a=augmentation, d=double: a.apply(x, d), images)


def test_cutmix_labels_are_the_shares_of_the_pixels():
    images = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 1, SIZE, SIZE)
    labels = torch.arange(6)
    source = seeds.generator(4)
    shares = []
    for _ in range(300):
        mixed, targets = cutmix(images, labels, 6, source, 1.0)
        for k in range(6):
            share = torch.stack([(mixed[i] == k).float().mean() for i in range(6)])
            assert torch.allclose(share, targets[:, k], atol=1e-6)
        shares.append(1 - targets.amax(1).min().item())
    assert max(shares) > 0.4 and min(shares) < 0.05


@pytest.mark.parametrize("mix", [cutmix, cutmix_unread])
def test_the_area_of_the_box_is_uniform(monkeypatch, mix):
    images, middle = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 64, 64), []
    randint = torch.randint

    def centred(most, shape, **how):
        return torch.full_like(randint(most, shape, **how), most // 2)

    monkeypatch.setattr(torch, "randint", centred)
    for seed in range(2000):
        labels = torch.tensor([0, 1]) if mix is cutmix else torch.eye(2)
        how = (2,) if mix is cutmix else ()
        mixed, _ = mix(images, labels, *how, seeds.generator(seed), 1.0)
        if mixed[0, 0, 32, 32] == 1:  # the partner is the other image
            middle.append(mixed[0].mean())
    area = torch.stack(middle)
    assert area.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist() == pytest.approx(
        [0.25, 0.5, 0.75], abs=0.06
    )


def test_cutmix_comes_half_of_the_time():
    source = seeds.generator(5)
    images, labels = torch.rand(4, 1, 8, 8), torch.arange(4)
    same = sum(cutmix(images, labels, 4, source)[0] is images for _ in range(1000))
    assert same == pytest.approx(500, abs=60)


def test_unknown_operation():
    with pytest.raises(ValueError, match="operation='colour' is unknown.*'color'"):
        Augmentation(("colour",))


@pytest.mark.parametrize(
    "operations, single",
    [(EVALUATION, False), (OPERATIONS, True), (("scale",), False), (("crop", "cutout"), False)],
)
def test_a_draw_that_is_not_read_does_what_one_that_is_read_does(operations, single):
    """Operations that were not drawn leave the images unchanged."""
    strategy, images = (
        Augmentation(operations, single=single),
        torch.randn(6, 3, SIZE, SIZE, generator=seeds.generator(0)),
    )
    drawn = set()
    for seed in range(24):
        read = strategy.draw(6, SIZE, seeds.generator(seed))
        source = seeds.generator(seed)
        unread = strategy.unread(
            torch.randint(max(1, len(strategy.exclusive)), (1,), generator=source), 6, SIZE, source
        )
        drawn.add(read.operations)
        assert unread.operations == operations and torch.allclose(
            strategy.apply(images, read), strategy.apply(images, unread), atol=1e-4
        )
    assert len(drawn) == max(1, len(strategy.exclusive))


def test_cutmix_by_a_mask_pastes_the_same_box():
    images, labels = torch.rand(40, 3, SIZE, SIZE, generator=seeds.generator(0)), torch.arange(40)
    targets = torch.nn.functional.one_hot(labels, 40).float()
    for seed in range(12):
        source = seeds.generator(seed)
        mixed, soft = cutmix_unread(images, targets, source, 1.0)
        pasted = (cutmix(images, labels, 40, seeds.generator(seed), 1.0)[0] != images).any(1)
        own = (mixed != images).any(1)
        assert torch.equal(own.any(0), pasted.any(0)), "the same pixels"
        share = own.any(0).float().mean()
        assert torch.allclose(soft.sum(1), torch.ones(40)) and torch.allclose(
            soft.diagonal().min(), 1 - share, atol=1e-6
        )
        for image, (row, own_share) in enumerate(zip(soft, soft.diagonal())):
            partner = (
                row.clone().index_fill_(0, torch.tensor(image), 0).argmax()
                if own_share < 1
                else image
            )
            assert torch.equal(mixed[image][:, own.any(0)], images[partner][:, own.any(0)])
    counts = [
        torch.equal(cutmix_unread(images, targets, seeds.generator(seed), 0.5)[0], images)
        for seed in range(200)
    ]
    assert 70 < sum(counts) < 130


def test_batches_drawn_together_are_those_drawn_in_turn():
    strategy, classes = Augmentation(EVALUATION), 3
    images = torch.rand(2, 5, 3, 16, 16)
    targets = torch.nn.functional.one_hot(torch.arange(10).view(2, 5) % classes, classes).float()
    sources = [[seeds.generator(seed) for seed in range(2)] for _ in range(2)]
    expected = []
    for batch, soft, source in zip(images, targets, sources[0]):
        drawn = torch.randint(len(strategy.exclusive), (1,), generator=source)
        batch = strategy.apply(batch, strategy.unread(drawn, 5, 16, source))
        expected.append(cutmix_unread(batch, soft, source, 0.8))
    draw = strategy.draw_together(5, 16, sources[1])
    together = strategy.apply(images.flatten(0, 1), draw).unflatten(0, (2, 5))
    found = cutmix_together(together, targets, sources[1], 0.8)
    for one, other in zip(found, map(torch.stack, zip(*expected))):
        torch.testing.assert_close(one, other)
