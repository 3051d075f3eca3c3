"""Neural tangent kernels of infinitely wide ReLU networks, fully connected and convolutional.

They are computed analytically. Sources: Jacot et al. 2018 (the kernel), Cho & Saul 2009 (arc-cosine
kernels), Arora et al. 2019 and Novak et al. 2019 (convolutions and pooling). The networks are those
of KIP (Nguyen et al., ICLR 2021 and NeurIPS 2021) in the NTK parametrisation: weights of standard
deviation sqrt(2) / sqrt(fan-in), biases of 0.1.
"""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.utils.checkpoint import checkpoint

from yoco.utils import checks

WEIGHT, BIAS = 2.0, 0.01  # variances: of a weight times its fan-in, and of a bias
# limit for one pair of the convolutional kernel, and for a block of pairs on a GPU
PAIR_BYTES = 2**30
CPU_BLOCK_BYTES = 2**26  # limit for a block on a CPU, where larger ones are slower
# float64 tensors of the first layer's size at the peak of a block's backward pass (measured)
LIVE_TENSORS = 22
# units in the last place within which a cosine counts as 1: the angle would be rounding error
ROUNDING = 64


def fc_kernel(
    x: Float[Tensor, "images *item"], y: Float[Tensor, "others *item"], depth: int
) -> Float[Tensor, "images others"]:
    """NTK of a fully connected ReLU network with `depth` hidden layers and a linear readout.

    Args:
        x, y: floating point [N, ...] and [M, ...], of one dtype and shape per item (flattened).
        depth: at least 1.

    Returns:
        [N, M] of that dtype, differentiable once in x and y; for identical inputs, the angle
            between them has subgradient 0.

    Raises:
        TypeError, ValueError: for other input or a depth below 1.
    """
    _check_inputs(x, y, depth)
    x, y = x.flatten(1), y.flatten(1)
    covariance = WEIGHT / x.shape[1] * (x @ y.T) + BIAS
    of_x, of_y = (WEIGHT * values.square().mean(1) + BIAS for values in (x, y))
    ntk = covariance
    # a ReLU halves the variance and the weights double it: only the bias adds to it
    for layer in range(depth):
        variances = (of_x + layer * BIAS)[:, None] * (of_y + layer * BIAS)
        activation, slope = _Rectify.apply(covariance, variances)
        covariance = WEIGHT * activation + BIAS
        ntk = covariance + WEIGHT * ntk * slope
    return ntk


def conv_kernel(
    x: Float[Tensor, "images channels size size"],
    y: Float[Tensor, "others channels size size"],
    depth: int,
) -> Float[Tensor, "images others"]:
    """NTK of the infinitely wide ConvNet: depth × (conv 3×3, ReLU, average pool 2), readout.

    Convolutions are zero-padded. There are no normalisation layers, unlike in the finite ConvNet.

    Pixel h of x meets only the pixels h' of y that the readout can see together with it, |h - h'| <
    2**depth in each direction: S² (2**(depth+1) - 1)² covariances per pair (`conv_entries`). Pairs
    are processed in blocks, which the backward pass recomputes, so memory grows with the images and
    not with the pairs.

    Cost at depth 3, float64, one CPU core: 1,000 pairs take 0.8, 1.2, 5.0 s at S = 8, 16, 32, and
    1.6, 4.7, 22 s with the backward pass (`python -m benchmarks.kernels`); a block stays near 64
    MiB up to S = 32. A CPU can thus do a few thousand pairs per step at 16 × 16, a few hundred at
    32 × 32; larger images run, up to S = 164, but belong on a GPU.

    Args:
        x, y: floating point [N, C, S, S] and [M, C, S, S], of one dtype.
        depth: at least 1.

    Returns:
        [N, M] of that dtype, differentiable as `fc_kernel`.

    Raises:
        TypeError, ValueError: before any work, for other input, if 2**depth exceeds S, or if a
            single pair takes more than PAIR_BYTES.
    """
    _check_inputs(x, y, depth)
    rows, columns = _block_shape(x, depth)
    of_x, of_y = (_variances(values, depth, rows * columns) for values in (x, y))
    lines = [
        [
            _checkpointed(_pairs, row, column, of_row, of_column)
            for column, of_column in _blocks(y, of_y, columns)
        ]
        for row, of_row in _blocks(x, of_x, rows)
    ]
    return torch.cat([torch.cat(line, 1) for line in lines])


def conv_entries(size: int, depth: int) -> int:
    """Return the covariances per pair in the first, largest layer of `conv_kernel`.

    The cost is proportional to them. Raises ValueError if `depth` poolings leave nothing of images
    of this size, or one pair takes more than PAIR_BYTES.
    """
    if 2 ** checks.whole("depth", depth, 1) > size:
        raise ValueError(
            f"depth must be at most {int(math.log2(size))} for images of side {size}, which each "
            f"layer halves, got {depth}"
        )
    entries = size**2 * (2 ** (depth + 1) - 1) ** 2
    if _bytes(entries) > PAIR_BYTES:
        raise ValueError(
            f"the convolutional kernel of depth {depth} takes {_bytes(entries) / 2**20:,.0f} MiB "
            f"for one pair of images of side {size}, "
            f"allowed: {PAIR_BYTES / 2**20:,.0f}; shrink the images or use the fully connected "
            "kernel"
        )
    return entries


def _bytes(entries: int) -> int:
    return entries * LIVE_TENSORS * 8


def _check_inputs(x: Tensor, y: Tensor, depth: int) -> None:
    checks.whole("depth", depth, 1)
    for name, values in (("x", x), ("y", y)):
        if not isinstance(values, Tensor) or not values.is_floating_point():
            raise TypeError(
                f"{name} must be a floating point tensor, got "
                f"{getattr(values, 'dtype', type(values).__name__)}"
            )
    if x.dtype != y.dtype or x.shape[1:] != y.shape[1:] or x.ndim < 2 or 0 in (*x.shape, *y.shape):
        raise ValueError(
            f"x and y must be non-empty and have one dtype and shape per item, got {x.dtype} "
            f"{list(x.shape)} and {y.dtype} {list(y.shape)}"
        )


def _block_shape(x: Tensor, depth: int) -> tuple[int, int]:
    """Return how many images of x and of y make a block."""
    if x.ndim != 4 or x.shape[2] != x.shape[3]:
        raise ValueError(f"x and y must be square images [N, C, S, S], got {list(x.shape)}")
    pair = _bytes(conv_entries(x.shape[-1], depth))
    most = max(1, (PAIR_BYTES if x.is_cuda else CPU_BLOCK_BYTES) // pair)
    rows = math.isqrt(most)
    return rows, most // rows


def _blocks(
    images: Tensor, maps: Sequence[Tensor], size: int
) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
    """Return blocks of at most `size` images, each with its part of the variance maps."""
    return zip(images.split(size), zip(*(values.split(size) for values in maps)))


def _checkpointed(function, *arguments):
    """Return `function(*arguments)`, keeping only the arguments for the backward pass."""
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)


def _variances(x: Tensor, depth: int, count: int) -> list[Tensor]:
    """Return the variance of each pixel before each ReLU: `depth` maps [N, s, s].

    The side s halves from map to map. `count` images are processed at a time.
    """
    blocks = [_checkpointed(_variance_maps, part, depth) for part in x.split(count)]
    return [torch.cat(maps) for maps in zip(*blocks)]


def _variance_maps(x: Tensor, depth: int) -> list[Tensor]:
    maps = []
    covariance = _products(x, x, 2**depth - 1)
    for layer in range(depth):
        covariance = WEIGHT * _Box.apply(covariance) + BIAS
        middle = covariance.shape[-3] // 2
        maps.append(covariance[..., middle, middle, :, :])
        if layer < depth - 1:
            activation, _ = _Rectify.apply(
                covariance, _variance_products(maps[-1], maps[-1], middle)
            )
            covariance = _pooled(activation)
    return maps


def _pairs(x: Tensor, y: Tensor, of_x: Sequence[Tensor], of_y: Sequence[Tensor]) -> Tensor:
    """Return the kernel of every image of x with every image of y, [N, M], given variance maps."""
    covariance = _products(x[:, None], y[None], 2 ** len(of_x) - 1)
    ntk: Tensor | None = None
    for x_map, y_map in zip(of_x, of_y):
        covariance = WEIGHT * _Box.apply(covariance) + BIAS
        ntk = covariance if ntk is None else covariance + WEIGHT * _Box.apply(ntk)
        reach = covariance.shape[-3] // 2
        activation, slope = _Rectify.apply(
            covariance, _variance_products(x_map[:, None], y_map[None], reach)
        )
        covariance, ntk = _pooled(activation), _pooled(ntk * slope)
    return WEIGHT * (covariance if ntk is None else covariance + ntk).mean((-4, -3, -2, -1)) + BIAS


def _band(y: Tensor, reach: int, outside: float) -> Tensor:
    """[..., S, S] -> [..., D, D, S, S] with D = 2 reach + 1.

    Entry (d, e, h, w) is pixel (h + d - reach, w + e - reach) of y.
    """
    size = y.shape[-1]
    return (
        F.pad(y, (reach, reach, reach, reach), value=outside)
        .unfold(-2, size, 1)
        .unfold(-2, size, 1)
    )


def _products(x: Tensor, y: Tensor, reach: int) -> Tensor:
    """Pixels of x [..., C, S, S] times nearby ones of y, channel mean: [..., D, D, S, S]."""
    near = _band(y, reach, 0.0)
    return (
        sum(a[..., None, None, :, :] * b for a, b in zip(x.unbind(-3), near.unbind(-5)))  # type: ignore[return-value]  # there is at least one channel
        / x.shape[-3]
    )


def _variance_products(x_map: Tensor, y_map: Tensor, reach: int) -> Tensor:
    """As `_products`, for variance maps [..., s, s].

    Outside y the variance is 1, so that nothing is divided by 0; `_pooled` drops it.
    """
    return x_map[..., None, None, :, :] * _band(y_map, reach, 1.0)


def _pooled(values: Tensor) -> Tensor:
    """Average pool 2 of both images: [..., 2E+1, 2E+1, s, s] -> [..., E, E, s // 2, s // 2].

    Entries whose second pixel is outside are 0.
    """
    across = _HalfPool.apply(values).transpose(-4, -3).transpose(-2, -1)
    pooled = _HalfPool.apply(across).transpose(-4, -3).transpose(-2, -1)
    inside = _band(pooled.new_ones(pooled.shape[-2:]), pooled.shape[-3] // 2, 0.0)
    return pooled * inside


class _Rectify(Function):
    """Map covariance k and variance product p of two Gaussians to E[relu relu] and E[relu' relu'].

    With s = sqrt(p - k²) and the angle t = atan2(s, k) these are (s + (π - t) k) / 2π and (π - t) /
    2π (Cho & Saul 2009). The second has slope 1 / (2π s) in k, which is infinite between identical
    inputs; there it counts as 0.
    """

    @staticmethod
    def forward(ctx, covariance, variances):
        square = torch.addcmul(variances, covariance, covariance, value=-1)
        apart = square > ROUNDING * torch.finfo(square.dtype).eps * variances
        sine = torch.where(apart, square, 0.0).sqrt_()
        slope = torch.atan2(sine, covariance).neg_().add_(math.pi).mul_(0.5 / math.pi)
        ctx.save_for_backward(covariance, variances, sine, slope)
        return torch.addcmul(sine * (0.5 / math.pi), slope, covariance), slope

    @staticmethod
    def backward(ctx, of_activation, of_slope):
        covariance, variances, sine, slope = ctx.saved_tensors
        steep = torch.where(sine > 0, of_slope / sine, 0.0).mul_(0.5 / math.pi)
        of_covariance = torch.addcmul(steep, of_activation, slope)
        across = (of_activation * sine).mul_(0.5 / math.pi).addcmul_(steep, covariance, value=-1)
        return of_covariance, across.div_(2 * variances)


class _Box(Function):
    """Mean over the 3×3 neighbourhood in the last two dimensions, with 0 beyond the edge.

    It is its own adjoint.
    """

    @staticmethod
    def forward(ctx, values):
        rows = values / 9
        total = rows.clone()
        total[..., 1:, :] += rows[..., :-1, :]
        total[..., :-1, :] += rows[..., 1:, :]
        result = total.clone()
        result[..., 1:] += total[..., :-1]
        result[..., :-1] += total[..., 1:]
        return result

    backward = forward


class _HalfPool(Function):
    """Average pool 2 along the rows of both images: [..., 2E+1, D, s, w] -> [..., E, D, s // 2, w].

    Rows h and h' of one pooled pair differ by 2e, 2e + 1 (h even, h' odd) or 2e - 1 (h odd, h'
    even).
    """

    @staticmethod
    def forward(ctx, values):
        ctx.shape = values.shape
        first, second, third, fourth = (values[where] for where in _pool_slices(values.shape[-2]))
        return (first + second).add_(third).add_(fourth).div_(4)

    @staticmethod
    def backward(ctx, gradient):
        spread = gradient.new_zeros(ctx.shape)
        for where in _pool_slices(ctx.shape[-2]):
            spread[where] = gradient / 4
        return spread


def _pool_slices(size: int) -> list[tuple]:
    """Return where the four entries of a pooled one lie: the differences h' - h, and the rows h."""
    even, odd = slice(0, size // 2 * 2, 2), slice(1, size // 2 * 2, 2)
    same, more, less = slice(1, -1, 2), slice(2, None, 2), slice(0, -1, 2)
    every = slice(None)
    return [
        (..., d, every, h, every) for d, h in ((same, even), (same, odd), (more, even), (less, odd))
    ]
