"""Random numbers: one generator a run, derived seeds, and the global state left as it was found."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from yoco import checks


def generator(seed: int, stream: int = 0) -> Generator:
    """A CPU generator for `seed`; `stream` separates the uses of one seed. Draws are made on the CPU, so that a seed means the same on every device.

    Raises TypeError or ValueError where seed is no whole number in 0..2**32-1.
    """
    return Generator().manual_seed(checks.seed("seed", seed) * 1_000_003 + stream)


def draw_seed(source: Generator) -> int:
    """The next seed from `source`, for something that can only be seeded by a number."""
    return int(torch.randint(2**31, (1,), generator=source))


@contextlib.contextmanager
def torch_seeded(seed: int) -> Iterator[None]:
    """Inside, torch's global generator starts from `seed` (layers draw their weights from it); afterwards it is as before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def drawn_of_each(labels: Tensor, share: float, source: Generator) -> Tensor:
    """Which images are drawn, bool [N]: of each class the rounded share, at least one and not all.

    Raises ValueError if a class has one image alone.
    """
    drawn = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        members = torch.nonzero(labels == label).flatten()
        if len(members) < 2:
            raise ValueError(f"there is no test split, and class {int(label)} has one image, which cannot be spared for it")
        drawn[members[choice(len(members), min(max(round(len(members) * share), 1), len(members) - 1), source)]] = True
    return drawn


def choice(count: int, n: int, source: Generator) -> Tensor:
    """`n` different indices out of 0..count-1, in random order."""
    return torch.randperm(count, generator=source)[:n]
