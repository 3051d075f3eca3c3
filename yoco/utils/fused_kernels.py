"""Triton kernels of `fused`: instance norm, ReLU and a 2×2 average pool in one pass each way.

A tensor is [N, R, C, H, W] with any strides; statistics are those of each [H, W]. A program works
on up to `P` channels of one [n, r], and on all of their pixels at once, in four parts: those at
the four places of the pool's windows, of which there are Q.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

Statistics = Float[Tensor, "images runs channels"]
LARGEST = 1024  # windows of a channel: above, its pixels do not fit the registers
TILE = 4096  # windows of a program at most


@triton.jit
def _share(R, C, W, Q, P: tl.constexpr, B: tl.constexpr):
    parts = tl.cdiv(C, P)
    n, r = tl.program_id(0) // parts // R, tl.program_id(0) // parts % R
    c = tl.program_id(0) % parts * P + tl.arange(0, P)
    q = tl.arange(0, B)
    return n, r, c, q // W, q % W, (c < C)[:, None] & (q < Q)[None, :]


@triton.jit
def _places(x, n, r, c, h, w, sn, sr, sc, sh, sw):
    return x + n.to(tl.int64) * sn + r * sr + (c * sc)[:, None] + (2 * h * sh + 2 * w * sw)[None, :]


@triton.jit
def _relu(x):
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit(do_not_specialize=["R"])
def _forward(
    x, scale, shift, y, mean, rate,
    R, C, W, Q, xn, xr, xc, xh, xw, yn, yr, yc, yh, yw, epsilon,
    P: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    n, r, c, h, w, inside = _share(R, C, W, Q, P, B)
    at = _places(x, n, r, c, h, w, xn, xr, xc, xh, xw)
    x0 = tl.load(at, inside, 0.0).to(tl.float32)
    x1 = tl.load(at + xw, inside, 0.0).to(tl.float32)
    x2 = tl.load(at + xh, inside, 0.0).to(tl.float32)
    x3 = tl.load(at + xh + xw, inside, 0.0).to(tl.float32)
    m = tl.sum(x0 + x1 + x2 + x3, 1) / (4 * Q)
    x0 = tl.where(inside, x0 - m[:, None], 0.0)
    x1 = tl.where(inside, x1 - m[:, None], 0.0)
    x2 = tl.where(inside, x2 - m[:, None], 0.0)
    x3 = tl.where(inside, x3 - m[:, None], 0.0)
    variance = tl.sum(x0 * x0 + x1 * x1 + x2 * x2 + x3 * x3, 1) / (4 * Q)
    k = 1 / tl.sqrt(variance + epsilon)
    channel, plane = r * C + c, (n * R + r) * C + c
    g = (tl.load(scale + channel, c < C, 0.0) * k)[:, None]
    b = tl.load(shift + channel, c < C, 0.0)[:, None]
    total = _relu(x0 * g + b) + _relu(x1 * g + b)
    total += _relu(x2 * g + b) + _relu(x3 * g + b)
    to = y + n.to(tl.int64) * yn + r * yr + (c * yc)[:, None] + (h * yh + w * yw)[None, :]
    tl.store(to, (total * 0.25).to(y.dtype.element_ty), inside)
    tl.store(mean + plane, m, c < C)
    tl.store(rate + plane, k, c < C)


@triton.jit(do_not_specialize=["R"])
def _backward(
    x, scale, shift, mean, rate, dy, dx, d_scale, d_shift,
    R, C, W, Q, xn, xr, xc, xh, xw, yn, yr, yc, yh, yw,
    P: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    n, r, c, h, w, inside = _share(R, C, W, Q, P, B)
    channel, plane = r * C + c, (n * R + r) * C + c
    m = tl.load(mean + plane, c < C, 0.0)[:, None]
    k = tl.load(rate + plane, c < C, 0.0)[:, None]
    g = tl.load(scale + channel, c < C, 0.0)[:, None]
    b = tl.load(shift + channel, c < C, 0.0)[:, None]
    of = dy + n.to(tl.int64) * yn + r * yr + (c * yc)[:, None] + (h * yh + w * yw)[None, :]
    d = tl.load(of, inside, 0.0).to(tl.float32) * 0.25
    at = _places(x, n, r, c, h, w, xn, xr, xc, xh, xw)
    # normalised
    x0 = (tl.load(at, inside, 0.0).to(tl.float32) - m) * k
    x1 = (tl.load(at + xw, inside, 0.0).to(tl.float32) - m) * k
    x2 = (tl.load(at + xh, inside, 0.0).to(tl.float32) - m) * k
    x3 = (tl.load(at + xh + xw, inside, 0.0).to(tl.float32) - m) * k
    # gradients before the ReLU
    d0, d1 = tl.where(x0 * g + b > 0, d, 0.0), tl.where(x1 * g + b > 0, d, 0.0)
    d2, d3 = tl.where(x2 * g + b > 0, d, 0.0), tl.where(x3 * g + b > 0, d, 0.0)
    of_shift = tl.sum(d0 + d1 + d2 + d3, 1)
    of_scale = tl.sum(d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3, 1)
    tl.store(d_shift + plane, of_shift, c < C)
    tl.store(d_scale + plane, of_scale, c < C)
    u, v = (of_shift / (4 * Q))[:, None], (of_scale / (4 * Q))[:, None]
    to = _places(dx, n, r, c, h, w, xn, xr, xc, xh, xw)
    kind = dx.dtype.element_ty
    tl.store(to, (g * k * (d0 - u - x0 * v)).to(kind), inside)
    tl.store(to + xw, (g * k * (d1 - u - x1 * v)).to(kind), inside)
    tl.store(to + xh, (g * k * (d2 - u - x2 * v)).to(kind), inside)
    tl.store(to + xh + xw, (g * k * (d3 - u - x3 * v)).to(kind), inside)


def forward(
    x: Float[Tensor, "images runs channels height width"],
    scale: Float[Tensor, "runs channels"],
    shift: Float[Tensor, "runs channels"],
    y: Float[Tensor, "images runs channels half_height half_width"],
    epsilon: float,
) -> tuple[Statistics, Statistics]:
    """Write the result for x to y; return means and 1 / standard deviations."""
    mean = torch.empty(x.shape[:3], dtype=torch.float32, device=x.device)
    rate = torch.empty_like(mean)
    grid, sizes, tile = _launch(x)
    strides = (*x.stride(), *y.stride())
    with torch.cuda.device_of(x):  # Triton launches on the current device
        _forward[grid](x, scale, shift, y, mean, rate, *sizes, *strides, epsilon, **tile)
    return mean, rate


def backward(
    x: Float[Tensor, "images runs channels height width"],
    scale: Float[Tensor, "runs channels"],
    shift: Float[Tensor, "runs channels"],
    mean: Statistics,
    rate: Statistics,
    dy: Float[Tensor, "images runs channels half_height half_width"],
) -> tuple[Float[Tensor, "images runs channels height width"], Statistics, Statistics]:
    """Return the gradients of x, and of scale and shift for each image."""
    dx = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)
    d_scale, d_shift = torch.empty_like(mean), torch.empty_like(mean)
    grid, sizes, tile = _launch(x)
    tensors = (x, scale, shift, mean, rate, dy, dx, d_scale, d_shift)
    with torch.cuda.device_of(x):
        _backward[grid](*tensors, *sizes, *x.stride(), *dy.stride(), **tile)
    return dx, d_scale, d_shift


def _launch(x: Tensor) -> tuple[tuple[int], tuple[int, ...], dict[str, int]]:
    """Return the grid, the sizes R, C, W, Q and the tile of a launch."""
    count, runs, channels, height, width = x.shape
    windows = height * width // 4
    pixels = triton.next_power_of_2(windows)
    together = max(1, min(32, TILE // pixels, triton.next_power_of_2(channels)))
    grid = (count * runs * triton.cdiv(channels, together),)
    tile = {"P": together, "B": pixels, "num_warps": 8 if together * pixels >= TILE else 4}
    return grid, (runs, channels, width // 2, windows), tile
