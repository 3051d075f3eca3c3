import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.conftest import make_data
from yoco.condense import kip_kernels
from yoco.condense.base import packed, start_choice
from yoco.condense.kip import KernelInducingPoints, settings_for
from yoco.data import to_floats
from yoco.data.normalise import normalise
from yoco.training import resumable
from yoco.utils import seeds

KERNELS = {"fc": kip_kernels.fc_kernel, "conv": kip_kernels.conv_kernel}


def draws(count, size, channels=1, seed=0):
    source = seeds.generator(seed)
    return torch.randn(count, channels, size, size, generator=source, dtype=torch.float64)


def method(data, ipc=2, factor=1, seed=0, **settings):
    chosen = settings_for("smoke", data.size, ipc, settings)
    return KernelInducingPoints(
        data, ipc, factor, chosen, seeds.generator(seed), torch.device("cpu"), "float32", False
    )


# the literal twin: one pair of images, one pair of pixels at a time, acos and cos


def relu_moments(k, p, q):
    angle = math.acos(max(-1.0, min(1.0, k / math.sqrt(p * q))))
    return math.sqrt(p * q) / (2 * math.pi) * (
        math.sin(angle) + (math.pi - angle) * math.cos(angle)
    ), (math.pi - angle) / (2 * math.pi)


def literal_fc(x, y, depth):
    k, p, q = (
        2 * float(a.flatten() @ b.flatten()) / a.numel() + 0.01 for a, b in ((x, y), (x, x), (y, y))
    )
    ntk = k
    for _ in range(depth):
        activation, slope = relu_moments(k, p, q)
        k, p, q = (
            2 * activation + 0.01,
            2 * relu_moments(p, p, p)[0] + 0.01,
            2 * relu_moments(q, q, q)[0] + 0.01,
        )
        ntk = k + 2 * slope * ntk
    return ntk


def convolved(values, bias):
    size, result = len(values), np.zeros_like(values)
    for h, w, i, j in np.ndindex(values.shape):
        for a, b in itertools.product((-1, 0, 1), repeat=2):
            if all(0 <= place < size for place in (h + a, w + b, i + a, j + b)):
                result[h, w, i, j] += 2 / 9 * values[h + a, w + b, i + a, j + b]
    return result + bias


def pooled(values):
    half = len(values) // 2
    result = np.zeros((half,) * 4)
    for place in np.ndindex(result.shape):
        result[place] = np.mean(
            [
                values[tuple(2 * c + o for c, o in zip(place, offset))]
                for offset in itertools.product((0, 1), repeat=4)
            ]
        )
    return result


def rectified(k, p, q):
    """Both moments of the ReLU for every pair of pixels."""
    moments = [relu_moments(k[h, w, i, j], p[h, w], q[i, j]) for h, w, i, j in np.ndindex(k.shape)]
    return (np.array(values).reshape(k.shape) for values in zip(*moments))


def literal_conv(x, y, depth):
    """All four-dimensional tensors in full: of (x, y), (x, x), (y, y)."""
    pairs = [np.einsum("chw,cij->hwij", a, b) / len(a) for a, b in ((x, y), (x, x), (y, y))]
    ntk = np.zeros_like(pairs[0])
    for _ in range(depth):
        pairs = [convolved(k, 0.01) for k in pairs]
        ntk = pairs[0] + convolved(ntk, 0)
        variances = [np.einsum("hwhw->hw", k) for k in pairs[1:]]
        (activation, slope), *own = (
            rectified(k, variances[i], variances[j]) for k, i, j in zip(pairs, (0, 0, 1), (1, 0, 1))
        )
        pairs, ntk = [pooled(activation), *(pooled(k) for k, _ in own)], pooled(ntk * slope)
    both = 2 * np.einsum("hwhw->hw", pairs[0]).mean() + 0.01
    return both + 2 * np.einsum("hwhw->hw", ntk).mean()


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_fc_kernel_is_the_literal_recursion(depth):
    x, y = draws(4, 3, 2), draws(3, 3, 2, seed=1)
    y[0], y[1] = x[0], -x[1]  # cosines of 1 and nearly -1
    expected = [[literal_fc(a, b, depth) for b in y] for a in x]
    assert np.allclose(kip_kernels.fc_kernel(x, y, depth), expected, rtol=1e-7)


@pytest.mark.parametrize("size, channels, depth", [(4, 1, 1), (4, 3, 2), (5, 1, 1), (6, 1, 2)])
def test_conv_kernel_is_the_literal_recursion(size, channels, depth):
    """Pooling 5 and 6 pixels to 3 drops a row."""
    x, y = draws(1, size, channels), draws(1, size, channels, seed=1)
    expected = [literal_conv(x[0].numpy(), b.numpy(), depth) for b in (y[0], x[0])]
    assert np.allclose(kip_kernels.conv_kernel(x, torch.cat([y, x]), depth), [expected], rtol=1e-7)


def empirical(network, shapes, inputs, seed):
    """Gram matrix of the gradients of a finite network with standard normal parameters."""
    source = seeds.generator(seed)
    parameters = [torch.randn(shape, generator=source).requires_grad_() for shape in shapes]
    rows = [
        torch.cat(
            [
                g.flatten()
                for g in torch.autograd.grad(network(x[None], parameters).sum(), parameters)
            ]
        )
        for x in inputs
    ]
    return torch.stack(rows) @ torch.stack(rows).T


def affine(x, weight, bias):
    scaled, shift = weight * math.sqrt(2 / weight[0].numel()), 0.1 * bias
    return F.conv2d(x, scaled, shift, padding=1) if weight.ndim == 4 else F.linear(x, scaled, shift)


def wide_fc(x, parameters):
    x = x.flatten(1)
    for weight, bias in zip(parameters[0:-2:2], parameters[1:-2:2]):
        x = F.relu(affine(x, weight, bias))
    return affine(x, *parameters[-2:])


def wide_conv(x, parameters):
    for weight, bias in zip(parameters[0:-2:2], parameters[1:-2:2]):
        x = F.avg_pool2d(F.relu(affine(x, weight, bias)), 2)
    return affine(x.flatten(1), *parameters[-2:])


def test_kernels_are_those_of_very_wide_networks():
    """What both recursions could get wrong in the same way: gradients of random networks.

    They are averaged over a few draws.
    """
    inputs, width = draws(3, 4, 2), 256
    fc = [(width, 32), (width,), (width, width), (width,), (1, width), (1,)]
    conv = [(width, 2, 3, 3), (width,), (width, width, 3, 3), (width,), (1, width), (1,)]
    for kernel, network, shapes in (
        (kip_kernels.fc_kernel, wide_fc, fc),
        (kip_kernels.conv_kernel, wide_conv, conv),
    ):
        measured = torch.stack(
            [empirical(network, shapes, inputs.float(), seed) for seed in range(64)]
        ).mean(0)
        assert torch.allclose(measured.double(), kernel(inputs, inputs, 2), rtol=0.05)


@pytest.mark.parametrize("name", KERNELS)
def test_gradients_are_finite_differences(name):
    kernel, x, y = KERNELS[name], draws(2, 4).requires_grad_(), draws(2, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: kernel(a, b, 2), (x, y))
    # the diagonal is of identical inputs, and smooth
    assert torch.autograd.gradcheck(lambda a: kernel(a, a, 2), (x,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", KERNELS)
def test_gradients_are_finite_between_identical_and_empty_images(name, dtype):
    images = torch.cat([draws(2, 8), torch.zeros(1, 1, 8, 8)]).to(dtype)
    x, y = images.clone().requires_grad_(), images.clone().requires_grad_()
    values = KERNELS[name](x, y, 3)
    gradients = torch.autograd.grad(values.sum(), (x, y))
    assert values.dtype == dtype and all(torch.isfinite(t).all() for t in (values, *gradients))
    assert torch.allclose(
        values.diagonal(),
        KERNELS[name](images.double(), images.double(), 3).diagonal().to(dtype),
        rtol=1e-3,
    )


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_are_symmetric_and_positive_semidefinite(name):
    x = draws(10, 8)
    x[1], x[3] = x[0], x[2] + 1e-4 * x[4]  # a duplicate, a near one
    values = KERNELS[name](x, x, 3)
    assert torch.allclose(values, values.T, rtol=1e-12)
    eigenvalues = torch.linalg.eigvalsh(values)
    assert eigenvalues[0] > -1e-8 * eigenvalues[-1] and eigenvalues[2] > 1e-5


def test_blocks_change_no_result_and_store_no_graph(monkeypatch):
    x, y, kept, results = draws(5, 8, 2).requires_grad_(), draws(4, 8, 2, seed=1), [], []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    for most in (1, 4 * kip_kernels.LIVE_TENSORS * 8 * kip_kernels.conv_entries(8, 2), 2**30):
        monkeypatch.setattr(kip_kernels, "CPU_BLOCK_BYTES", most)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            values = kip_kernels.conv_kernel(x, y, 2)
        results.append((values, torch.autograd.grad(values.square().sum(), x)[0]))
    for values, gradient in results[1:]:
        assert torch.allclose(values, results[0][0], rtol=1e-12) and torch.allclose(
            gradient, results[0][1], rtol=1e-9
        )
    # a tenth of one layer of the 60 pairs
    assert sum(kept) < 60 * kip_kernels.conv_entries(8, 2) / 10


@pytest.mark.parametrize(
    "arguments, error, match",
    [
        (
            (draws(1, 224), draws(1, 224), 3),
            ValueError,
            ("depth 3 takes 1,895 MiB for one pair of images of side 224, allowed: 1,024"),
        ),
        (
            (draws(1, 4), draws(1, 4), 3),
            ValueError,
            ("depth must be at most 2 for images of side 4.*got 3"),
        ),
        ((draws(1, 4), draws(1, 4), 0), ValueError, "depth must be at least 1, got 0"),
        ((draws(1, 4), draws(1, 5), 1), ValueError, "one dtype and shape per item"),
        ((draws(1, 4), draws(1, 4).float(), 1), ValueError, "one dtype and shape per item"),
        ((draws(1, 4)[..., :3], draws(1, 4)[..., :3], 1), ValueError, "square images"),
        (
            (draws(1, 4), draws(1, 4).long(), 1),
            TypeError,
            ("y must be a floating point tensor, got torch.int64"),
        ),
    ],
)
def test_kernel_refuses_bad_input_before_work(monkeypatch, arguments, error, match):
    monkeypatch.setattr(kip_kernels, "_variances", lambda *_: pytest.fail("work began"))
    with pytest.raises(error, match=match):
        kip_kernels.conv_kernel(*arguments)


@pytest.mark.parametrize("factor", [1, 2])
def test_loss_is_half_the_squared_error_of_the_batch(factor):
    """By hand: drawn real images, formed synthetic ones, centred one-hot labels, numpy's solve."""
    toy = make_data(size=8)
    ours = method(toy, 2, factor, real_batch=20, kernel="fc")
    chosen = torch.randperm(72, generator=torch.Generator().set_state(ours.source.get_state()))[:20]
    formed = (
        ours.images
        if factor == 1
        else torch.cat(
            [
                F.interpolate(im[None, :, i : i + 4, j : j + 4], (8, 8), mode="bilinear")
                for im in ours.images
                for i in (0, 4)
                for j in (0, 4)
            ]
        )
    )
    x, real = (
        normalise(images, toy.mean, toy.std).double()
        for images in (formed, to_floats(toy.train_images[chosen]))
    )
    among, towards = (
        kip_kernels.fc_kernel(x, x, 3).numpy(),
        kip_kernels.fc_kernel(real, x, 3).numpy(),
    )
    labels, targets = (
        np.eye(3)[np.repeat(range(3), 2 * factor**2)] - 1 / 3,
        np.eye(3)[toy.train_labels[chosen]] - 1 / 3,
    )
    predicted = towards @ np.linalg.solve(
        among + 1e-6 * among.trace() / len(among) * np.eye(len(among)), labels
    )
    assert ours.step(0) == pytest.approx(0.5 * np.mean((predicted - targets) ** 2), rel=1e-5)


def test_images_move_as_adam_on_normalised_images_moves_them():
    toy = make_data(size=8)
    ours = method(toy, 1, kernel="fc", real_batch=72)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (toy.mean, toy.std))
    parameter = normalise(ours.images, toy.mean, toy.std).requires_grad_()
    optimiser = torch.optim.Adam([parameter], lr=0.04)
    for number in range(4):
        predicted = ours.predict(parameter * std + mean, ours.labels, toy.train_images)
        loss = 0.5 * F.mse_loss(predicted, F.one_hot(toy.train_labels, 3) - 1 / 3)
        parameter.grad = torch.autograd.grad(loss, parameter)[0]
        optimiser.step()
        parameter.data = ((parameter.data * std + mean).clamp(0, 1) - mean) / std
        ours.step(number)
    assert torch.allclose(ours.images, parameter.data * std + mean, atol=1e-3 * 0.04)


@pytest.mark.parametrize(
    "settings", [{"kernel": "fc"}, {"kernel": "fc", "learn_labels": True}, {"kernel": "conv"}]
)
def test_a_few_steps_lower_the_loss(settings):
    ours = method(make_data(per_class=4, size=8), 1, real_batch=12, **settings)
    losses = [ours.step(number) for number in range(10)]
    assert losses[-1] < 0.7 * losses[0]
    assert ours.images.min() >= 0 and ours.images.max() <= 1 and ours.images.dtype == torch.float32


def test_start_is_shared_and_labels_stay_unless_learned():
    toy = make_data(size=8)
    ours = method(toy, 2, 2, seed=5, kernel="fc")
    assert torch.equal(ours.images, packed(toy, start_choice(toy, 2, 2, seeds.generator(5)), 2))
    labels, classes = ours.labels.clone(), torch.arange(3).repeat_interleave(8)
    ours.step(0)
    assert torch.equal(ours.labels, labels)
    assert torch.allclose(labels, F.one_hot(classes, 3) - 1 / 3)


def test_learned_labels_move_and_changes_are_counted():
    ours = method(make_data(size=8), 2, kernel="fc", learn_labels=True)
    before = ours.labels.clone()
    ours.step(0)
    moved = (ours.labels - before).abs()
    assert moved.max() == pytest.approx(0.04, rel=1e-3) and ours.outcome()["changed_classes"] == 0
    ours.labels[1] = torch.tensor([0.0, 0.0, 1.0])
    assert ours.outcome()["changed_classes"] == 1
    assert ours.labels.argmax(1).tolist() == [
        0,
        2,
        1,
        1,
        2,
        2,
    ]


@pytest.mark.parametrize("learn_labels", [False, True])
def test_going_on_from_a_state_gives_what_not_stopping_gives(learn_labels):
    toy = make_data(size=8)
    settings = {"kernel": "fc", "real_batch": 16, "learn_labels": learn_labels}
    whole, other = method(toy, **settings), method(toy, seed=9, **settings)
    for number in range(3):
        whole.step(number)
    other.restore({name: tensor.clone() for name, tensor in whole.state().items()})
    for number in range(3, 6):
        assert whole.step(number) == other.step(number)
    assert torch.equal(whole.images, other.images) and torch.equal(whole.labels, other.labels)


def test_same_seed_same_images():
    first, second, other = (
        method(make_data(size=8), seed=seed, kernel="fc", real_batch=16) for seed in (3, 3, 4)
    )
    assert first.step(0) == second.step(0) != other.step(0) and torch.equal(
        first.images, second.images
    )


def test_a_loss_that_is_not_finite_stops_the_loop():
    ours = method(make_data(size=8), kernel="fc")
    start = ours.images.clone()
    ours.labels[0, 0] = math.inf
    with pytest.raises(FloatingPointError, match="loss is (nan|inf) at step 0"):
        resumable.run(ours, 3, {}, progress=False)
    assert torch.equal(ours.images, start)


def test_auto_takes_the_convolutional_kernel_if_affordable():
    assert method(make_data(per_class=2, size=8), 1, iterations=10, real_batch=6).kernel == "conv"
    assert method(make_data(per_class=2, size=8), 1, iterations=10**6, real_batch=6).kernel == "fc"
    assert (
        method(make_data(per_class=1, size=224, channels=1), 1, iterations=1, real_batch=1).kernel
        == "fc"
    )
    # too small for three poolings
    assert method(make_data(per_class=2, size=4), 1, iterations=1, real_batch=1).kernel == "fc"


def test_presets():
    paper, laptop, smoke = (
        settings_for(preset, 32, 10, {}) for preset in ("paper", "laptop", "smoke")
    )
    assert (paper.kernel, paper.depth, paper.lr, paper.ridge, paper.real_batch) == (
        "conv",
        3,
        0.04,
        1e-6,
        5000,
    )
    assert (
        paper.steps > laptop.steps > smoke.steps
        and not paper.learn_labels
        and laptop.record()["kernel"] == "auto"
    )


@pytest.mark.parametrize(
    "preset, overrides, error, match",
    [
        ("huge", {}, ValueError, "preset='huge' is unknown.*paper, laptop, smoke"),
        (
            "smoke",
            {"kernal": "fc"},
            ValueError,
            "setting='kernal' is unknown .did you mean 'kernel'",
        ),
        ("smoke", {"kernel": "rbf"}, ValueError, "kernel='rbf' is unknown.*fc, conv, auto"),
        ("smoke", {"depth": 0}, ValueError, "depth must be at least 1, got 0"),
        ("smoke", {"iterations": 2.0}, TypeError, "iterations must be a whole number, got 2.0"),
        ("smoke", {"real_batch": 0}, ValueError, "real_batch must be at least 1"),
        ("smoke", {"lr": -1}, ValueError, "lr must be"),
        ("smoke", {"ridge": math.nan}, ValueError, "ridge must be"),
        (
            "smoke",
            {"learn_labels": "no"},
            TypeError,
            "learn_labels must be True or False, got 'no'",
        ),
        ("paper", {"depth": 6}, ValueError, "depth must be at most 5 for images of side 32"),
    ],
)
def test_bad_settings_are_named(preset, overrides, error, match):
    with pytest.raises(error, match=match):
        settings_for(preset, 32, 10, overrides)


def test_images_too_large_for_the_kernel_are_refused():
    with pytest.raises(ValueError, match="one pair of images of side 224, allowed"):
        settings_for("paper", 224, 10, {})
