"""Random numbers: one generator per run, derived seeds; the global state is left as it was."""

import contextlib
import contextvars
import random
from collections.abc import Callable, Iterator, Mapping

import torch
from jaxtyping import Bool, Int, Shaped, UInt8
from torch import Generator, Tensor

from yoco.utils import checks
from yoco.utils.device import is_gpu

_ON_HOST = contextvars.ContextVar("on_host", default=False)


def generator(seed: int, stream: int = 0) -> Generator:
    """Return a CPU generator for `seed`; `stream` separates the uses of one seed.

    Every run starts from it: initial weights and the real images that a set starts from are the
    same on every device (see `for_device` for the other draws).

    Raises TypeError or ValueError if seed is not a whole number in 0..2**32-1.
    """
    return Generator().manual_seed(checks.seed("seed", seed) * 1_000_003 + stream)


def draw_seed(source: Generator) -> int:
    """Return the next seed from `source`, for something that can only be seeded by a number."""
    return int(torch.randint(2**31, (1,), generator=source))


def for_device(source: Generator, device: torch.device) -> Generator:
    """Return the generator for the draws of a loop whose tensors are on `device`.

    That is `source` itself, or on a CUDA device a new generator seeded from `source`: drawing on
    the GPU does not wait for the host and can be recorded in a CUDA graph. Its numbers differ from
    the CPU's (see `drawn_on_host`).
    """
    if not is_gpu(device) or _ON_HOST.get():
        return source
    return Generator(device).manual_seed(draw_seed(source))


@contextlib.contextmanager
def drawn_on_host() -> Iterator[None]:
    """Let all work that begins inside draw on the CPU, also if its tensors are on a GPU.

    It is slower, and nothing is recorded in CUDA graphs, but every device gets the CPU's numbers.
    """
    before = _ON_HOST.set(True)
    try:
        yield
    finally:
        _ON_HOST.reset(before)


def states(source: Generator, own: Generator) -> dict[str, UInt8[Tensor, "bytes"]]:
    """Return, by name, the states of a run's generator and of its device generator."""
    state = {"generator": source.get_state()}
    return state if own is source else {**state, "device_generator": own.get_state()}


def restore(state: Mapping[str, Shaped[Tensor, "..."]], source: Generator, own: Generator) -> None:
    """Restore what `states` returned.

    A state from another kind of device is accepted, but the draws then differ.
    """
    source.set_state(state["generator"])
    if own is not source and "device_generator" in state:
        own.set_state(state["device_generator"])
    elif own is not source:
        own.manual_seed(draw_seed(source))


@contextlib.contextmanager
def torch_seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator inside the block, for layers that draw weights from it.

    Its state is restored afterwards.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def choice(count: int, n: int, source: Generator) -> Int[Tensor, "chosen"]:
    """Return `n` different indices out of 0..count-1 in random order, on the generator's device."""
    return torch.randperm(count, generator=source, device=source.device)[:n]


def choice_by_class(
    labels: Int[Tensor, "images"], count: Callable[[int], int], source: Generator
) -> Bool[Tensor, "images"]:
    """Return which images are drawn: of a class of n, ascending by class, `count(n)`."""
    drawn = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        members = torch.nonzero(labels == label).flatten()
        drawn[members[choice(len(members), count(len(members)), source)]] = True
    return drawn


def choice_of_each(
    sizes: Int[Tensor, "rows 1"], most: int, n: int, source: Generator
) -> Int[Tensor, "rows {n}"]:
    """Return, for each of `sizes`, `n` different indices out of 0..size-1 in random order.

    One draw serves all rows, and nothing is read on the host.

    Args:
        sizes: on the generator's device.
        most: the largest of them.
        n: indices per row, at most `most`. A row of a smaller size has each of its indices first;
            the rest of the row is meaningless.
        source: generator.

    Returns:
        Indices on the generator's device, every value below `most`.
    """
    keys = torch.rand(len(sizes), most, generator=source, device=source.device)
    absent = torch.arange(most, device=source.device) >= sizes
    return keys.masked_fill(absent, -1).topk(n).indices


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Keep Python's global random state, which the first import of scikit-learn advances."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)
