"""Blocks of a ConvNet on a GPU in bfloat16: each layer in few passes over its images.

Instance norm, ReLU and average pool are one Triton kernel each way (`fused_kernels`) instead of
more than twenty passes, and the images stay in channels-last memory, as cuDNN's convolutions need
them. This is 4.2 times as fast as PyTorch's own layers (256 images, forward and backward, H200).
"""

import functools
import importlib.util
import os
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

# input channels up to which a convolution is a matrix product: cuDNN takes up to 80 times as long
# for its gradients, if the images of several classes or networks are together
FEW = 4


@functools.cache
def available() -> bool:
    """Return whether Triton's kernels can run here; it comes with PyTorch for CUDA on Linux.

    `YOCO_FUSED=0` turns them off.
    """
    if os.environ.get("YOCO_FUSED", "1") == "0":
        return False
    return torch.cuda.is_available() and importlib.util.find_spec("triton") is not None


def in_bfloat16(images: Tensor) -> bool:
    """Return whether convolutions of these images run in bfloat16 on a CUDA GPU."""
    return images.device.type == "cuda" and torch.is_autocast_enabled("cuda")


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
    epsilon: float = 1e-5,
) -> Float[Tensor, "images channels half_height half_width"]:
    """Return instance norm with scale and shift, ReLU and average pool 2 of images on a GPU.

    Statistics are float32. The result has the images' dtype and lies in channels-last memory. It
    can be differentiated once.
    """
    return _NormReluPool.apply(images, scale, shift, epsilon)[0]


class _NormReluPool(torch.autograd.Function):
    """Of images [N, C, H, W], or of R networks at once: [N, R, C, H, W], scale and shift [R, C]."""

    @staticmethod
    def forward(x: Tensor, scale: Tensor, shift: Tensor, epsilon: float) -> tuple[Tensor, ...]:
        from yoco.utils import fused_kernels

        runs = x if x.ndim == 5 else x.unsqueeze(1)
        n, r, c, h, w = runs.shape
        y = runs.new_empty(n, h // 2, w // 2, r, c).permute(0, 3, 4, 1, 2)
        scale, shift = scale.float().contiguous(), shift.float().contiguous()
        mean, rate = fused_kernels.forward(runs, scale, shift, y, epsilon)
        return y if x.ndim == 5 else y.squeeze(1), mean, rate

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs[:3], *output[1:])
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        from yoco.utils import fused_kernels

        x, scale, shift, mean, rate = ctx.saved_tensors
        runs, dy = (t if t.ndim == 5 else t.unsqueeze(1) for t in (x, dy))
        given = scale.float().contiguous(), shift.float().contiguous()
        dx, d_scale, d_shift = fused_kernels.backward(runs, *given, mean, rate, dy)
        return dx.view_as(x), d_scale.sum(0).view_as(scale), d_shift.sum(0).view_as(shift), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Any, Any]:
        """Take the networks' images as they lie in memory: no copy, whatever dimension they are."""
        x, scale, shift = (
            t.unsqueeze(0).expand(info.batch_size, *t.shape) if dim is None else t.movedim(dim, 0)
            for t, dim in zip(inputs[:3], in_dims)
        )
        y, mean, rate = _NormReluPool.apply(x.movedim(0, 1), scale, shift, inputs[3])
        return (y, mean, rate), (1, 1, 1)
