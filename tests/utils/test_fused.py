"""The fast layers of a GPU, against PyTorch's own: their kernels run where Triton is.

`TRITON_INTERPRET=1` in the environment runs them on a CPU.
"""

import importlib.util
import os
import sys

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from yoco import architectures, models
from yoco.selfcheck import checks
from yoco.utils import device as devices
from yoco.utils import fused

RUNS, CHANNELS = 3, 20


def plain(x, scale, shift):
    return F.avg_pool2d(F.relu(F.group_norm(x, x.shape[1], scale, shift)), 2)


class Reference:
    """The two launches of `fused_kernels` in PyTorch's own operations."""

    LARGEST = 1024

    @staticmethod
    def _forward(x, scale, shift):
        return torch.stack([plain(*each) for each in zip(x.unbind(1), scale, shift)], 1)

    @classmethod
    def forward(cls, x, scale, shift, y, epsilon):
        y.copy_(cls._forward(x, scale.view(x.shape[1], -1), shift.view(x.shape[1], -1)))
        return x.mean((3, 4)), x.var((3, 4), correction=0).add(epsilon).rsqrt()

    @classmethod
    def backward(cls, x, scale, shift, mean, rate, dy):
        given = [t.view(x.shape[1], -1).expand(len(x), -1, -1) for t in (scale, shift)]
        leaves = [t.detach().clone().requires_grad_() for t in (x, *given)]
        with torch.enable_grad():
            images = zip(leaves[0].split(1), *leaves[1:])
            made = torch.cat([cls._forward(*each) for each in images])
        return torch.autograd.grad(made, leaves, dy)


@pytest.fixture(params=["reference", "kernels"])
def device(request, monkeypatch):
    """Return where the layers are tried, with PyTorch's operations or with Triton's kernels."""
    torch.manual_seed(0)
    if request.param == "reference":
        monkeypatch.setattr("yoco.utils.fused_kernels", Reference, raising=False)
        monkeypatch.setitem(sys.modules, "yoco.utils.fused_kernels", Reference)
        return torch.device("cpu")
    if importlib.util.find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("needs Triton, and TRITON_INTERPRET=1")
    return torch.device("cpu")


def drawn(shape, device, layout=torch.contiguous_format):
    return torch.randn(shape, device=device).contiguous(memory_format=layout).requires_grad_()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(8, 8), (2, 12), (4, 4)])
def test_one_network(device, layout, size):
    x = drawn((2, CHANNELS, *size), device, layout)
    given = [x, drawn(CHANNELS, device), drawn(CHANNELS, device)]
    made, expected = fused.norm_relu_pool(*given), plain(*given)
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-4)
    assert made.is_contiguous(memory_format=torch.channels_last)
    ahead = torch.randn_like(expected)
    found, right = (torch.autograd.grad(y, given, ahead) for y in (made, expected))
    torch.testing.assert_close(found, right, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_networks_at_once(device, dim):
    x = drawn((RUNS, 2, CHANNELS, 4, 4), device).movedim(0, dim)
    given = [x, drawn((RUNS, CHANNELS), device), drawn((RUNS, CHANNELS), device)]
    made = torch.vmap(fused.norm_relu_pool, (dim, 0, 0))(*given)
    expected = torch.vmap(plain, (dim, 0, 0))(*given)
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-4)
    ahead = torch.randn_like(expected)
    found, right = (torch.autograd.grad(y, given, ahead) for y in (made, expected))
    torch.testing.assert_close(found, right, atol=1e-4, rtol=1e-4)


@pytest.fixture
def on_a_gpu(device, monkeypatch):
    """Let networks take their fast forms."""
    monkeypatch.setattr(devices, "in_bfloat16", lambda device: True)
    monkeypatch.setattr(fused, "available", lambda device: True)
    with torch.autocast("cpu", torch.bfloat16):
        yield


def networks():
    return [models.build_seeded(seed, "convnet", 3, 4, 8, width=16) for seed in range(RUNS)]


def test_a_network_is_the_same_up_to_rounding(on_a_gpu, monkeypatch):
    network, images = networks()[0], torch.randn(5, 3, 8, 8, requires_grad=True)
    given = [images, network.body[0].weight, network.body[5].bias, network.head.weight]
    found = network(images)
    found = [found, *torch.autograd.grad(found.square().sum(), given)]
    monkeypatch.undo()
    right = network(images)
    right = [right, *torch.autograd.grad(right.square().sum(), given)]
    assert all(checks.relative(*pair) < 0.15 for pair in zip(found, right))


def test_networks_at_once_are_each_alone(on_a_gpu):
    each, images = networks(), torch.randn(RUNS, 5, 3, 8, 8)
    named = [dict(network.named_parameters()) for network in each]
    stacked = {
        name: torch.stack([own[name].detach() for own in named]).requires_grad_()
        for name in named[0]
    }
    call = lambda parameters, batch: functional_call(each[0], parameters, (batch,))
    torch.vmap(call)(stacked, images).square().sum().backward()
    for number, network in enumerate(each):
        network(images[number]).square().sum().backward()
        for name, parameter in network.named_parameters():
            own = stacked[name].grad
            assert (own is None) == (parameter.grad is None), name
            assert own is None or checks.relative(own[number], parameter.grad) < 0.05, name


def test_a_network_that_is_differentiated_twice(on_a_gpu):
    network, images = networks()[0], torch.randn(5, 3, 8, 8, requires_grad=True)
    weight = network.body[0].weight
    with pytest.raises(RuntimeError, match="twice|once_differentiable"):
        (slope,) = torch.autograd.grad(network(images).square().sum(), weight, create_graph=True)
        slope.square().sum().backward()
    twice = architectures.differentiable_twice(network)
    weight = twice.body[0].weight
    (slope,) = torch.autograd.grad(twice(images).square().sum(), weight, create_graph=True)
    slope.square().sum().backward()
    assert images.grad.isfinite().all() and images.grad.any() and network.body.once


@pytest.mark.parametrize("channels", [3, 8])
def test_a_convolution_is_pytorch_s_without_bias(channels):
    images, weight = torch.randn(2, channels, 6, 6), torch.randn(5, channels, 3, 3)
    given = [images.bfloat16().float().requires_grad_(), weight.bfloat16().float().requires_grad_()]
    made, expected = fused.convolution(*given), F.conv2d(*given, padding=1)
    torch.testing.assert_close(made.float(), expected, atol=0.05, rtol=0.02)
    ahead = torch.randn_like(expected).bfloat16().float()
    found = torch.autograd.grad(made, given, ahead.bfloat16(), create_graph=True)
    right = torch.autograd.grad(expected, given, ahead, create_graph=True)
    torch.testing.assert_close(found, right, atol=0.1, rtol=0.05)
    twice = torch.autograd.grad(found[1].square().sum(), given[0])
    torch.testing.assert_close(
        twice, torch.autograd.grad(right[1].square().sum(), given[0]), atol=2.0, rtol=0.05
    )


def broken(where, dtype):
    raise RuntimeError("no compiler")


def rough(where, dtype):
    return 0.4 if dtype == torch.bfloat16 else 1e-6


@pytest.mark.parametrize(
    "tried, words",
    [(broken, "no compiler"), (rough, "0.4 in .*bfloat16"), (lambda where, dtype: 0.5, "0.5")],
)
def test_kernels_that_do_not_work_are_told_once(monkeypatch, tried, words):
    fused.available.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(fused, "_tried", tried)
    with pytest.warns(UserWarning, match=f"several times as long .*{words}"):
        assert not fused.available(torch.device("cpu"))
    assert not fused.available(torch.device("cpu"))
    monkeypatch.setattr(fused, "_tried", lambda where, dtype: 1e-6)
    for setting, expected in (("0", False), ("1", True)):
        monkeypatch.setenv("YOCO_FUSED", setting)
        fused.available.cache_clear()
        assert fused.available(torch.device("cpu")) is expected
    fused.available.cache_clear()


def test_what_is_no_number_stays_none(device):
    images = drawn((2, CHANNELS, 8, 8), device).detach()
    images[0, 3, 1, 1] = torch.nan
    made = fused.norm_relu_pool(images, torch.ones(CHANNELS), torch.zeros(CHANNELS))
    expected = plain(images, torch.ones(CHANNELS), torch.zeros(CHANNELS))
    assert made.isnan().any() and torch.equal(made.isnan(), expected.isnan())
