"""Blocks of a ConvNet on a GPU in bfloat16: each layer in few passes over its images.

Instance norm, ReLU and average pool are one Triton kernel each way (`fused_kernels`) instead of
more than twenty passes, and the images stay in channels-last memory, as cuDNN's convolutions need
them. This is 4.2 times as fast as PyTorch's own layers (256 images, forward and backward, H200).
"""

import functools
import importlib.util
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

# input channels up to which a convolution is a matrix product: cuDNN is slow with its gradients if
# several classes or networks are together (4 ms each in IDC, figures/bench/gpu_profile.csv)
FEW = 4
EPSILON = 1e-5  # of nn.GroupNorm
TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 3e-2}  # of a kernel's results of about 1


@functools.cache
def available(device: torch.device) -> bool:
    """Return whether the kernels run on a GPU, which is tried once.

    Triton comes with PyTorch for CUDA on Linux, and needs a C compiler. If it does not work, there
    is a warning, and PyTorch's own layers are used; `YOCO_FUSED=0` chooses them without a warning.
    """
    if os.environ.get("YOCO_FUSED", "1") == "0" or importlib.util.find_spec("triton") is None:
        return False
    try:  # in a thread of its own, where no transform of torch.func and no autocast is active
        with ThreadPoolExecutor(1) as apart:
            tried = {dtype: apart.submit(_tried, device, dtype).result() for dtype in TOLERANCES}
        wrong = [f"{tried[t]:.2g} in {t}" for t, most in TOLERANCES.items() if not tried[t] < most]
        why = f"a result differs by {', '.join(wrong)}" if wrong else ""
    except Exception as error:  # whatever Triton, its compiler or the driver raise
        why = " ".join(str(error).split()[:20]) or type(error).__name__
    if why:
        warnings.warn(
            f"Triton's kernels do not work on this GPU, so training takes several times as long "
            f"({why}; YOCO_FUSED=0 silences this)",
            stacklevel=2,
        )
    return not why


def _tried(device: torch.device, dtype: torch.dtype) -> float:
    """Return how far the kernels are from PyTorch's layers on a small example, both ways."""
    from yoco.utils import fused_kernels

    x = torch.linspace(-1, 1, 2 * 3 * 4 * 4, device=device).sin().view(2, 1, 3, 4, 4).to(dtype)
    scale, shift = torch.linspace(0.5, 1, 6, device=device).view(2, 1, 3)
    y, ahead = x.new_empty(2, 1, 3, 2, 2), x[..., ::2, ::2]
    mean, rate = fused_kernels.forward(x, scale, shift, y, EPSILON)
    dx, *_ = fused_kernels.backward(x, scale, shift, mean, rate, ahead)
    own = x[:, 0].float().requires_grad_()
    layers = F.avg_pool2d(F.relu(F.group_norm(own, 3, scale[0], shift[0], EPSILON)), 2)
    (slope,) = torch.autograd.grad(layers, own, ahead[:, 0].float())
    return max(
        float((y[:, 0] - layers.detach()).abs().max()), float((dx[:, 0] - slope).abs().max())
    )


def convolution(
    images: Float[Tensor, "images channels size size"],
    weight: Float[Tensor, "outputs channels 3 3"],
    channels_last: bool = True,
) -> Float[Tensor, "images outputs size size"]:
    """Return the convolution with padding 1 and without bias, in bfloat16.

    It can be differentiated any number of times. channels_last: how the result of a matrix product
    lies in memory; otherwise it lies as the images do.
    """
    images, weight = images.bfloat16(), weight.bfloat16()
    if weight.shape[1] > FEW:
        return F.conv2d(images, weight, padding=1)
    # F.unfold launches a kernel per image
    windows = F.pad(images, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)  # [n, C, H, W, 3, 3]
    patches = windows.permute(0, 1, 4, 5, 2, 3).flatten(1, 3).flatten(2)  # [n, 9 C, H W]
    factors = weight.flatten(1).mT.contiguous().expand(len(images), -1, -1)
    products = (patches.mT @ factors).mT if channels_last else factors.mT @ patches
    return products.unflatten(2, images.shape[2:])


def fits(images: Float[Tensor, "images channels height width"]) -> bool:
    """Return whether `norm_relu_pool` takes images of this size."""
    from yoco.utils import fused_kernels

    height, width = images.shape[-2:]
    return not (height % 2 or width % 2) and height * width <= 4 * fused_kernels.LARGEST


def norm_relu_pool(
    images: Float[Tensor, "images channels height width"],
    scale: Float[Tensor, "channels"],
    shift: Float[Tensor, "channels"],
) -> Float[Tensor, "images channels half_height half_width"]:
    """Return instance norm with scale and shift, ReLU and average pool 2 of images on a GPU.

    Statistics are float32. The result has the images' dtype and lies in channels-last memory. It
    can be differentiated once.
    """
    return _NormReluPool.apply(images, scale, shift)[0]


def _factors(values: Tensor, runs: int) -> Tensor:
    return values.float().reshape(runs, -1).contiguous()


class _NormReluPool(torch.autograd.Function):
    """Of images [N, C, H, W], or of R networks at once: [N, R, C, H, W], scale and shift [R, C]."""

    @staticmethod
    def forward(x: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, ...]:
        from yoco.utils import fused_kernels

        runs = x if x.ndim == 5 else x.unsqueeze(1)
        n, r, c, h, w = runs.shape
        y = runs.new_empty(n, h // 2, w // 2, r, c).permute(0, 3, 4, 1, 2)
        given = _factors(scale, r), _factors(shift, r)
        mean, rate = fused_kernels.forward(runs, *given, y, EPSILON)
        return y if x.ndim == 5 else y.squeeze(1), mean, rate

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs, *output[1:])
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        from yoco.utils import fused_kernels

        x, scale, shift, mean, rate = ctx.saved_tensors
        runs, dy = (t if t.ndim == 5 else t.unsqueeze(1) for t in (x, dy))
        given = _factors(scale, runs.shape[1]), _factors(shift, runs.shape[1])
        dx, d_scale, d_shift = fused_kernels.backward(runs, *given, mean, rate, dy)
        return dx.view_as(x), d_scale.sum(0).view_as(scale), d_shift.sum(0).view_as(shift)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Any, Any]:
        """Take the networks' images as they lie in memory: no copy, whatever dimension they are."""
        x, scale, shift = (
            t.expand(info.batch_size, *t.shape).contiguous() if dim is None else t.movedim(dim, 0)
            for t, dim in zip(inputs, in_dims)
        )
        y, mean, rate = _NormReluPool.apply(x.movedim(0, 1), scale, shift)
        return (y, mean, rate), (1, 1, 1)
