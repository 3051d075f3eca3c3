"""Random numbers: one generator a run, derived seeds, and the global state left as it was found."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Generator, Tensor

from yoco.utils import checks
from yoco.utils.device import is_gpu


def generator(seed: int, stream: int = 0) -> Generator:
    """A CPU generator for `seed`; `stream` separates the uses of one seed.

    It starts every run: the weights of networks and the real images that a set starts from are the
    same on every device (see `for_device` for the rest).

    Raises TypeError or ValueError if seed is no whole number in 0..2**32-1.
    """
    return Generator().manual_seed(checks.seed("seed", seed) * 1_000_003 + stream)


def draw_seed(source: Generator) -> int:
    """The next seed from `source`, for something that can only be seeded by a number."""
    return int(torch.randint(2**31, (1,), generator=source))


def for_device(source: Generator, device: torch.device) -> Generator:
    """Return the generator for the draws of a loop whose tensors are on `device`.

    That is `source` itself, or for a CUDA device a generator of its own, seeded from `source`:
    drawing there waits for nothing, and can be recorded in a CUDA graph. Its numbers are other ones
    than the CPU's.
    """
    if not is_gpu(device):
        return source
    return Generator(device).manual_seed(draw_seed(source))


def states(source: Generator, own: Generator) -> dict[str, Tensor]:
    """Return the states of a run's generator and of the one that `for_device` made from it, by
    name.
    """
    state = {"generator": source.get_state()}
    return state if own is source else {**state, "device_generator": own.get_state()}


def restore(state: Mapping[str, Tensor], source: Generator, own: Generator) -> None:
    """Go back to what `states` returned.

    A state from another kind of device is resumed too, though with other draws.
    """
    source.set_state(state["generator"])
    if own is not source and "device_generator" in state:
        own.set_state(state["device_generator"])
    elif own is not source:
        own.manual_seed(draw_seed(source))


@contextlib.contextmanager
def torch_seeded(seed: int) -> Iterator[None]:
    """Inside, torch's global generator starts from `seed` (layers draw their weights from it);
    afterwards it is as before.
    """
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
            raise ValueError(
                f"there is no test split, and class {int(label)} has one image, which cannot be "
                "spared for it"
            )
        drawn[
            members[
                choice(
                    len(members), min(max(round(len(members) * share), 1), len(members) - 1), source
                )
            ]
        ] = True
    return drawn


def choice(count: int, n: int, source: Generator) -> Tensor:
    """`n` different indices out of 0..count-1, in random order, on the generator's device."""
    return torch.randperm(count, generator=source, device=source.device)[:n]
