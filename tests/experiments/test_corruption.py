"""Damage, to the byte and to its stated strength."""

from dataclasses import replace

import pytest
import torch

from tests.conftest import make_data
from yoco import condense, formation
from yoco.experiments import corruption


def flat(values, size=16):
    """Training images that are each of one value."""
    data = make_data(per_class=-(-len(values) // 3), size=size, channels=1)
    images = torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, size, size)
    labels = data.train_labels[: len(values)]
    return replace(data, train_images=images.contiguous(), train_labels=labels)


def test_bytes_are_rounded_not_cut():
    """Grey is 127.5, and a blurred flat image is itself, up to the rounding of floats."""
    covered, _ = corruption.damage_data(flat([0] * 6), "occlusion", 100)
    assert covered.train_images.unique().tolist() == [0, 128]
    every = flat(list(range(256)))
    blurred, damaged = corruption.damage_data(every, "blur", 100)
    assert damaged.all() and torch.equal(blurred.train_images, every.train_images)


def test_blocks_leave_no_image_out(monkeypatch):
    monkeypatch.setattr(corruption, "BLOCK", 4)
    data, damaged = corruption.damage_data(make_data(), "noise", 50)
    changed = (data.train_images != make_data().train_images).flatten(1).float().mean(1)
    assert torch.equal(changed > 0, damaged) and changed[damaged].min() > 0.5


def test_a_blur_is_as_wide_as_an_eighth_of_the_side():
    size = 64
    image = torch.zeros(1, 1, size, size)
    image[..., size // 2, size // 2] = 1
    seen = corruption._spoiled(image, "blur", torch.Generator())[0, 0].double()
    at = torch.arange(size) - size // 2
    for axis in (0, 1):
        variance = (seen.sum(axis) * at**2).sum() / seen.sum()
        assert variance.sqrt() == pytest.approx(size / 8, rel=0.02)  # cut at three of them
    assert seen.sum() == pytest.approx(1, abs=0.01)


def test_noise_has_the_stated_deviation_and_is_clamped():
    grey = torch.full((4, 3, 64, 64), 0.5)
    seen = corruption._spoiled(grey, "noise", torch.Generator().manual_seed(0))
    inside = seen[(seen > 0) & (seen < 1)]
    assert seen.mean() == pytest.approx(0.5, abs=0.01)
    assert (seen == 0).float().mean() == pytest.approx(0.0478, abs=0.005)  # P(z < -0.5 / 0.3)
    assert inside.std() == pytest.approx(0.237, abs=0.005)
    assert seen.min() == 0 and seen.max() == 1


@pytest.mark.parametrize("side", [16, 15])
def test_a_grey_square_of_half_the_side_lies_anywhere(side):
    seen = corruption._spoiled(torch.zeros(800, 1, side, side), "occlusion", torch.Generator())
    covered = seen == 0.5
    half = round(side / 2)
    assert covered.flatten(1).sum(1).unique().tolist() == [half**2]
    for axis in (2, 3):  # rows, then columns
        first = covered.any(5 - axis).float().argmax(axis - (axis == 3)).flatten()
        assert first.unique().tolist() == list(range(side - half + 1))
    assert not torch.equal(covered.any(3).float().argmax(2), covered.any(2).float().argmax(2))


def test_a_share_is_rounded_and_drawn_anew_by_the_seed():
    data = make_data(per_class=24)
    for percent, count in ((0, 0), (2, 0), (3, 1), (50, 12), (100, 24)):
        _, damaged = corruption.damage_data(data, "symmetric", percent)
        assert damaged.view(3, 24).sum(1).tolist() == [count] * 3
    masks = [corruption.damage_data(data, "symmetric", 50, seed)[1] for seed in (0, 1)]
    assert not torch.equal(*masks)


def test_cells_keep_their_pixels_and_the_set_its_own(toy):
    real = condense.real_set(toy, 2, 2, seed=0)
    spoiled, damaged = corruption.damage_set(real, "class_dependent", 50)
    before, after = (formation.cells(of.images, 2) for of in (real, spoiled))
    sums = lambda cells: sorted(cells[damaged].flatten(1).double().sum(1).tolist())
    assert sums(before) == sums(after)
    assert torch.equal(before[~damaged], after[~damaged])
    kept = {name: getattr(spoiled, name) for name in ("factor", "classes", "mean", "std", "method")}
    assert kept == {name: getattr(real, name) for name in kept}


def test_damage_leaves_the_given_set_as_it_is():
    one_cell = condense.real_set(make_data(), 4, 1, seed=0)
    before = one_cell.images.clone()
    for kind in ("symmetric", "occlusion"):
        spoiled, _ = corruption.damage_set(one_cell, kind, 50)
        assert torch.equal(one_cell.images, before) and not torch.equal(spoiled.images, before)


def test_labels_of_unequal_classes_are_not_called_damaged():
    even = condense.real_set(make_data(), 4, 1, seed=0)
    targets = torch.eye(3)[torch.tensor([0] * 1 + [1] * 7 + [2] * 4)]
    with pytest.raises(ValueError, match=r"100 % of this set are \[1, 7, 4\]"):
        corruption.damage_set(replace(even, labels=targets), "class_dependent", 100)
