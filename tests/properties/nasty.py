"""Values that nobody should pass, for the property tests, and how a public function may react."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

DENSE = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
NAN, INF = float("nan"), float("inf")
# never a count, wherever at least 1 is asked for
WRONG_COUNTS = (
    0,
    -1,
    True,
    np.True_,
    1.0,
    NAN,
    INF,
    "2",
    None,
    [],
    (2,),
    {},
    torch.tensor(2),
    np.array([2]),
    np.float32(2),
    -(2**70),
    b"2",
    2j,
)
# never a seed
WRONG_SEEDS = (-1, 2**32, 2**64, True, 1.0, NAN, "0", None, [0], np.int64(-1), torch.tensor(0))
WRONG_FLAGS = (0, 1, "no", "False", [], None, np.int8(1))
SIZES = st.integers(1, 6)


def documented(call: Callable[[], Any], *names: str) -> Any:
    """Return what `call` returns, or None if it raises a documented error.

    That is a ValueError or TypeError that contains one of `names`. Any other error fails the test,
    an internal message of torch included.
    """
    try:
        return call()
    except (ValueError, TypeError) as error:
        assert any(name in str(error) for name in names), f"{error!r} names none of {names}"
        return None


@st.composite
def images(draw: st.DrawFn, sizes: st.SearchStrategy[int] = SIZES) -> Any:
    """Batches of images: good ones of every type and layout, and bad ones."""
    count, channels, size = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(sizes)
    good = torch.rand(count, channels, size, size)
    bad = st.sampled_from(
        [
            good[0],
            good[:0],
            good[..., :0],
            good[:, :, :, 1:],
            good - 1,
            good * 3,
            good / 0,
            good * NAN,
            good.to(torch.int8),
            good > 0.5,
            good.to(torch.complex64),
            good.to("meta"),
            good.to_sparse(),
            good.to(torch.float8_e4m3fn),
            good.numpy(),
            good.tolist(),
            None,
            "images",
            3,
        ]
    )
    fine = st.sampled_from(
        [
            *(good.to(dtype) for dtype in DENSE),
            (good * 255).byte(),
            good.mT,
            good.clone().requires_grad_(),
            good.repeat(1, 1, 1, 2)[..., ::2],
            good.contiguous(memory_format=torch.channels_last),
            good[:1].expand(count, -1, -1, -1),
            torch.zeros_like(good),
        ]
    )
    return draw(st.one_of(fine, bad))


def scores_of(count: int) -> list[Tensor]:
    """Score vectors [count] of every kind, good and bad."""
    good = torch.randn(count)
    return [
        good,
        good.double() * 1e300,
        good.half(),
        torch.zeros(count),
        torch.arange(count),
        good.clone().requires_grad_(),
        good * NAN,
        good / 0,
        good > 0,
        good[None],
        good[:0],
        good.to("meta"),
        good.to(torch.complex64),
        good.tolist(),
        None,
    ]
