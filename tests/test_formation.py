import pytest
import torch
import torch.nn.functional as F

from yoco.formation import cell_size, cells, form, pack


def numbered(count: int, size: int) -> torch.Tensor:
    """Constant images whose value is their number, in 0..1."""
    return (torch.arange(count) / count).view(-1, 1, 1, 1).expand(-1, 3, size, size)


@pytest.mark.parametrize("factor, size", [(1, 8), (2, 8), (3, 9), (3, 32), (3, 16), (4, 30)])
def test_form_of_pack_keeps_order_at_any_factor(factor, size):
    images = numbered(2 * factor**2, size)
    condensed = pack(images, factor, size)
    assert condensed.shape == (2, 3, size, size)
    middle = size // 2 - 1  # away from a cell's border, where mid-grey padding is mixed in
    formed = form(condensed, factor)
    assert formed.shape == images.shape
    assert torch.allclose(formed[:, :, middle, middle], images[:, :, middle, middle], atol=1e-6)


@pytest.mark.parametrize("factor, size", [(4, 16), (3, 224)])
def test_white_stays_within_0_and_1(factor, size):
    assert (
        F.interpolate(
            torch.ones(1, 1, size, size), cell_size(size, factor), mode="bilinear", antialias=True
        ).max()
        > 1
    )
    assert pack(torch.ones(factor**2, 1, size, size), factor, size, "antialias").max() == 1


@pytest.mark.parametrize("mode", ["nearest", "antialias"])
def test_a_cell_is_its_image_shrunk_by_the_mode(mode):
    images = torch.rand(4, 3, 32, 32)
    smooth = {"mode": "bilinear", "align_corners": False, "antialias": True}
    expected = (
        images[:, :, ::2, ::2] if mode == "nearest" else F.interpolate(images, (16, 16), **smooth)
    )
    assert torch.allclose(cells(pack(images, 2, 32, mode), 2), expected, atol=1e-6)
    assert torch.equal(pack(images, 2, 32), pack(images, 2, 32, "nearest"))
    with pytest.raises(ValueError, match="mode='bilinear' is unknown.*allowed: nearest, antialias"):
        pack(images, 2, 32, "bilinear")


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_formed_image_is_the_cell_of_its_number_enlarged(factor):
    size = 12
    condensed = torch.rand(3, 1, size, size)
    side = size // factor
    formed = form(condensed, factor)
    for n in range(3):
        for row in range(factor):
            for column in range(factor):
                cell = condensed[
                    n : n + 1, :, row * side : (row + 1) * side, column * side : (column + 1) * side
                ]
                expected = F.interpolate(cell, (size, size), mode="bilinear", align_corners=False)
                assert torch.equal(formed[n * factor**2 + row * factor + column], expected[0])


def test_where_factor_does_not_divide_the_border_is_mid_grey():
    assert cell_size(32, 3) == 11
    parts = cells(torch.zeros(1, 1, 32, 32), 3)
    assert parts.shape == (9, 1, 11, 11)
    # 33 is padded from 32
    assert (parts[8, 0, -1] == 0.5).all() and (parts[8, 0, :, -1] == 0.5).all()
    assert (parts[8, 0, :-1, :-1] == 0).all() and (parts[0] == 0).all()


def test_pack_at_native_size_is_exact():
    """Cells that are not shrunk are copied."""
    images = torch.rand(8, 1, 8, 8)
    assert torch.equal(cells(pack(images, 2, 16), 2), images)


def test_form_is_differentiable():
    condensed = torch.rand(1, 1, 9, 9, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: form(x, 2), condensed)


def test_bad_factors_and_counts():
    with pytest.raises(ValueError, match="factor must be between 1 and 8, got 0"):
        form(torch.rand(1, 1, 8, 8), 0)
    with pytest.raises(ValueError, match="factor must be between 1 and 8, got 9"):
        form(torch.rand(1, 1, 8, 8), 9)
    with pytest.raises(TypeError, match="whole number"):
        form(torch.rand(1, 1, 8, 8), 1.5)
    with pytest.raises(ValueError, match="multiple of factor²=4 images, got 6"):
        pack(torch.rand(6, 1, 8, 8), 2, 8)
