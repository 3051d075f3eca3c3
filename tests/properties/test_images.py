"""Generated arguments of functions that handle images.

They work as documented, or name the argument in a ValueError or TypeError.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.properties.nasty import DENSE, WRONG_COUNTS, documented, images
from yoco import augment, formation, models
from yoco.sets.condensed_set import CondensedSet
from yoco.utils import checks, device

SIZES = st.integers(1, 12)
ALL = st.lists(st.sampled_from(augment.OPERATIONS), unique=True).map(tuple)


@given(SIZES, st.integers(1, 12), st.integers(1, 3), st.integers(1, 3), st.sampled_from(DENSE))
def test_form_and_pack_of_any_size_factor_and_precision(size, factor, count, channels, dtype):
    condensed = torch.rand(count, channels, size, size).to(dtype)
    if factor > size or (factor - 1) * -(-size // factor) >= size:
        with pytest.raises(ValueError, match=f"factor.*{factor}"):
            formation.form(condensed, factor)
        return
    side = formation.cell_size(size, factor)
    assert (factor - 1) * side < size <= factor * side, "every cell has a pixel, every pixel a cell"
    cells = formation.cells(condensed, factor)
    formed = formation.form(condensed, factor)
    assert (
        cells.shape == (count * factor**2, channels, side, side)
        and cells.dtype == formed.dtype == dtype
    )
    assert formed.shape == (count * factor**2, channels, size, size)
    assert torch.equal(formation.pack(cells, factor, size), condensed)
    packed = formation.pack(formed, factor, size)
    assert packed.shape == condensed.shape and packed.min() >= 0 and packed.max() <= 1


@given(SIZES, st.integers(2, 12))
def test_a_factor_that_leaves_cells_empty_suggests_two(size, factor):
    try:
        formation.cell_size(size, factor)
    except ValueError as error:
        if "nearest" in str(error):
            fewer, more = str(error).split("factors are ")[1].split(" and ")
            assert int(fewer) < factor < int(more)
            formation.cell_size(size, int(fewer))
            formation.cell_size(size, int(more))


@given(images(), st.integers(0, 5))
def test_form_takes_float_images_and_names_what_it_does_not_take(batch, factor):
    formed = documented(lambda: formation.form(batch, factor), "images", "factor")
    assert formed is None or (formed.dtype == batch.dtype and len(formed) == len(batch) * factor**2)


@pytest.mark.parametrize("wrong", WRONG_COUNTS, ids=repr)
def test_counts_that_are_none(wrong):
    for call in (
        lambda: formation.cell_size(8, wrong),
        lambda: formation.cell_size(wrong, 1),
        lambda: models.build("convnet", wrong, 2, 8),
        lambda: models.build("resnet10ap", 1, wrong, 16),
        lambda: models.build("resnet10", 1, 2, wrong),
        lambda: models.ConvNet(1, 2, 8, width=wrong),
        lambda: models.ConvNet(1, 2, 8, depth=wrong),
        lambda: models.ResNetAP(1, 2, 16, depth=wrong),
        lambda: augment.Augmentation(()).draw(wrong, 8, torch.Generator()),
    ):
        with pytest.raises((ValueError, TypeError), match="must be|unknown"):
            call()


@given(
    st.integers(1, 3),
    st.integers(1, 12),
    st.integers(1, 3),
    ALL,
    st.booleans(),
    st.booleans(),
    st.sampled_from(DENSE),
)
def test_augmentation_keeps_shape_type_and_finite_numbers(
    count, size, channels, operations, shared, single, dtype
):
    # no contiguous one
    whole = torch.randn(count, channels, size, size * 2, dtype=dtype)[..., ::2].requires_grad_()
    out = augment.Augmentation(operations, shared, single)(
        whole, torch.Generator().manual_seed(size)
    )
    assert (
        out.shape == whole.shape and out.dtype == checks.wide(whole).dtype and out.isfinite().all()
    )
    labels = torch.arange(count)
    mixed, targets = augment.cutmix(out, labels, count, torch.Generator().manual_seed(count), 1.0)
    assert (
        mixed.shape == out.shape
        and torch.allclose(targets.sum(1), torch.ones(count))
        and (targets >= 0).all()
    )
    mixed.sum().backward()
    assert whole.grad.isfinite().all()


@given(images(), st.sampled_from([-1.0, 2.0, float("nan"), "0.5", True, 0.5]))
def test_augmentation_and_cutmix_name_what_they_do_not_take(batch, probability):
    strategy, source = augment.Augmentation(augment.EVALUATION), torch.Generator()
    if isinstance(batch, torch.Tensor) and batch.ndim == 4:
        documented(lambda: strategy(batch, source), "images", "count", "size")
        documented(
            lambda: augment.cutmix(
                batch, torch.zeros(len(batch), dtype=torch.long), 2, source, probability
            ),
            "images",
            "probability",
        )
        draw = strategy.draw(len(batch) + 2, 8, source)
        with pytest.raises((ValueError, TypeError), match="draw must be for|images must"):
            strategy.apply(batch, draw)
    for wrong in ("crop", ["crop"], ("crap",), (1,), None):
        with pytest.raises((ValueError, TypeError), match="operation"):
            augment.Augmentation(wrong)


@given(images(), st.integers(0, 4), st.data())
def test_condensed_sets_are_held_as_float32_or_refused(batch, factor, data):
    count = len(batch) if isinstance(batch, torch.Tensor) and batch.ndim else 2
    labels = data.draw(
        st.sampled_from(
            [
                torch.arange(count),
                torch.zeros(count).long(),
                torch.arange(count).float(),
                [0, 1],
                None,
                torch.arange(count) - 1,
            ]
        )
    )
    classes = data.draw(
        st.sampled_from([tuple(map(str, range(count))), ("a",), ("a", "a"), "ab", (1, 2), None, ()])
    )
    statistics = data.draw(
        st.sampled_from(
            [
                (0.5,),
                (0.5, 0.5),
                (),
                (float("nan"),),
                (0,),
                ("0.5",),
                0.5,
                None,
                (True,),
                (2,),
                (float("inf"),),
            ]
        )
    )
    made = documented(
        lambda: CondensedSet(batch, labels, factor, classes, statistics, statistics, "real"),
        "images",
        "labels",
        "factor",
        "classes",
        "mean",
        "std",
    )
    if made is not None:
        assert (
            made.images.dtype == torch.float32
            and not made.images.requires_grad
            and min(made.std) > 0
            and len(set(made.classes)) == len(made.classes) > 1
        )
        formed, of = made.form()
        assert (
            formed.dtype == torch.float32 and len(formed) == len(of) and len(made.fingerprint) == 12
        )


@pytest.mark.parametrize("name", models.MODELS)
def test_networks_of_any_shape_tell_images_apart(name):
    least = 8 if name == "convnet" else 16
    with pytest.raises(ValueError, match=f"size must be at least {least}, got {least - 1}"):
        models.build(name, 1, 2, least - 1)
    for channels, classes, size in ((1, 1, least), (2, 300, least + 1), (3, 2, 65)):
        network = models.build(
            name, channels, classes, size, width=4 if name == "convnet" else None
        )
        for mode in (network.train(), network.eval()):
            logits = mode(torch.rand(2, channels, size, size))
            assert (
                logits.shape == (2, classes)
                and logits.isfinite().all()
                and not torch.equal(logits[0], logits[1])
            )
            assert mode(torch.rand(1, channels, size, size)).isfinite().all(), (
                "a last batch of one image"
            )
        assert all(buffer.isfinite().all() for buffer in network.buffers()), (
            "running statistics after a batch of one image"
        )


@pytest.mark.parametrize(
    "wrong",
    ["meta", "cudaa", "", "cpu:x", "cuda:99", torch.device("meta"), None, 0, True, 1.5, ["cpu"]],
    ids=repr,
)
def test_devices_that_cannot_compute(wrong):
    with pytest.raises((ValueError, TypeError), match="device"):
        device.choose(wrong)
    assert device.choose("cpu") == device.choose(torch.device("cpu")) == torch.device("cpu")


@given(
    st.one_of(
        st.integers(),
        st.floats(),
        st.text(),
        st.none(),
        st.booleans(),
        st.lists(st.integers(), max_size=2),
        st.binary(),
    ),
    st.integers(-3, 3),
)
def test_numbers_are_in_range_or_refused(value, low):
    number = documented(lambda: checks.real("share", value, low, 5), "share")
    assert number is None or low <= number <= 5 and type(number) is float
    count = documented(lambda: checks.whole("share", value, low), "share")
    assert count is None or count >= low and type(count) is int
    assert documented(lambda: checks.real("share", value, low), "share") != float("inf")
    assert documented(lambda: checks.seed("share", value), "share") in (None, value)
    documented(lambda: checks.one_of("share", value, ("a", "b")), "share", "unknown")


def test_numbers_too_large_to_print_are_refused():
    for call in (
        lambda: checks.whole("n", -(10**5000), 1),
        lambda: checks.real("n", 10**5000, 0),
        lambda: checks.one_of("n", "x" * 10**5, ["a"]),
    ):
        with pytest.raises(ValueError, match="^n.*(must be|unknown)") as error:
            call()
        assert len(str(error.value)) < 400


@pytest.mark.parametrize("dtype", DENSE)
def test_a_set_is_held_as_float32_outside_of_any_graph(dtype, tmp_path):
    given_images = torch.rand(2, 1, 6, 12).to(dtype).requires_grad_()[..., ::2]
    made = CondensedSet(
        given_images,
        torch.arange(2),
        np.int64(2),
        ["a", "b"],
        np.array([0.5]),
        [np.float32(0.25)],
        "real",
    )
    assert made.images.dtype == torch.float32 and not made.images.requires_grad
    assert torch.equal(made.images, given_images.detach().float()) and (
        made.factor,
        made.classes,
        made.mean,
        made.std,
    ) == (
        2,
        ("a", "b"),
        (0.5,),
        (0.25,),
    )
    assert CondensedSet.load(made.save(tmp_path / "set")).fingerprint == made.fingerprint
