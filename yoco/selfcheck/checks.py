"""What is computed on the device and compared with what a CPU got.

Exact checks draw on the host in float32, so that devices differ by rounding alone. Checks as used
take the default precision, the device's own draws and CUDA graphs, so that only means can agree.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from yoco import condense, data, dynamics, evaluate, prune
from yoco.data.image_data import ImageData
from yoco.sets.condensed_set import CondensedSet
from yoco.utils import seeds

Measured = dict[str, Shaped[Tensor, "..."]]
WIDTH = 8  # of the networks: narrow, so that a slow processor needs seconds
EXACT: dict[str, Any] = {"precision": "float32", "compiled": False}
MATCHING = {"outer_loops": 1, "inner_loops": 3, "real_batch": 16, "width": WIDTH}
POOL = {"pool_networks": 1, "pool_epochs": 1, "pool_images": 100, "width": WIDTH}
# three image steps of every method (of KIP one, whose kernel is slow on a CPU), with its networks
STEPS: dict[str, dict[str, Any]] = {
    "idc": {**MATCHING, "network_images": 64},
    "dream": {**MATCHING, "network_images": 64, "renew_every": 2},
    "dsa": {**MATCHING, "network_epochs": 1},
    "mtt": {
        "iterations": 3,
        "width": WIDTH,
        "student_steps": 2,
        "experts": 1,
        "buffer_epochs": 2,
        "max_start_epoch": 1,
        "buffer_images": 100,
    },
    "kip": {"iterations": 1, "kernel": "conv", "real_batch": 5},
    "ncfm": {**POOL, "iterations": 3, "real_batch": 16, "frequencies": 64},
}
# longer than the calls before a CUDA graph is recorded
LONGER: dict[str, dict[str, Any]] = {
    "idc": {**STEPS["idc"], "inner_loops": 12},
    "ncfm": {**STEPS["ncfm"], "iterations": 12},
}
# limits of their mean losses: over seeds, IDC's has a standard deviation of 0.19, relatively
SPREAD = {"idc": 0.6, "ncfm": 0.2}
BUDGET = 1  # IPC_T of what is pruned
LONG = 60  # epochs after which an accuracy's spread over seeds is 3 points


def relative(got: Float[Tensor, "*shape"], expected: Float[Tensor, "*shape"]) -> float:
    """Return the norm of the difference, relative to that of what is expected."""
    return ((got - expected).norm() / expected.norm()).item()


def points(got: Float[Tensor, "*runs"], expected: Float[Tensor, "*runs"]) -> float:
    """Return the difference of two accuracies in percentage points."""
    return (got - expected).abs().max().item()


def exchanged(got: Int[Tensor, "rows kept"], expected: Int[Tensor, "rows kept"]) -> float:
    """Return the largest share of a row of `expected` that `got` lacks."""
    lacking = [1 - torch.isin(e, g).double().mean().item() for g, e in zip(got, expected)]
    return max(lacking)


@dataclass(frozen=True)
class Rule:
    """How far a measured tensor may be from what is expected.

    Attributes:
        deviation: (measured, expected) -> distance.
        allowed: largest distance that is right.
    """

    deviation: Callable[[Tensor, Tensor], float]
    allowed: float


@dataclass(frozen=True)
class Check:
    """One computation.

    Attributes:
        measure: device -> tensors by name, on the CPU.
        rules: one for each of these tensors.
        exact: whether it draws on the host and in float32, so that it has to agree up to rounding.
    """

    measure: Callable[[torch.device], Measured]
    rules: Mapping[str, Rule]
    exact: bool = True


def digits() -> ImageData:
    """Return the data of all checks: real images that ship with scikit-learn."""
    return data.load("digits", progress=False)


def small_set(device: torch.device) -> CondensedSet:
    """Return a set of 80 formed images, which is the same on every device."""
    return condense.start_set(digits(), "idc", 2, device=device, precision="float32")


def condensed(method: str, device: torch.device) -> Measured:
    """Return what three image steps change in one condensed image per class."""
    options: dict[str, Any] = {"preset": "smoke", **STEPS[method]}
    start = condense.start_set(digits(), method, 1, device=device, precision="float32", **options)
    made = condense.condense(digits(), method, 1, device=device, progress=False, **EXACT, **options)
    return {"images": made.images - start.images}


def condensed_as_used(method: str, device: torch.device) -> Measured:
    """Return the mean loss of twelve image steps."""
    options: dict[str, Any] = {"preset": "smoke", "progress": False, **LONGER[method]}
    made = condense.condense(digits(), method, 1, device=device, **options)
    return {"loss": torch.tensor(made.info["loss"]).mean()}


def recorded(device: torch.device) -> Measured:
    """Return dynamics, their scores and what every method keeps."""
    small = small_set(device)
    run = dynamics.record(
        small, epochs=6, seed=0, width=WIDTH, device=device, progress=False, **EXACT
    )
    table = prune.score_table(small, run)
    kept = [prune.prune(small, run, name, BUDGET, seed=0) for name in prune.compared(small)]
    return {
        "logits": run.logits,
        "scores": torch.tensor(table[prune.score_names(table)].to_numpy()),
        "kept": torch.stack([selection.indices for selection in kept]),
    }


def evaluated(device: torch.device, **options: Any) -> Measured:
    """Return the test accuracy of a network trained on the formed images."""
    settings: dict[str, Any] = {"epochs": 20, "seed": 0, "width": 2 * WIDTH, **options}
    found = evaluate.evaluate(*small_set(device).form(), digits(), device=device, **settings)
    return {"accuracy": torch.tensor(found)}


def evaluated_at_once(device: torch.device) -> Measured:
    """Return the mean accuracy of two such networks, which a GPU trains at once."""
    subsets = {"small": small_set(device).form()}
    options: dict[str, Any] = {"epochs": LONG, "width": 2 * WIDTH, "jobs": 1, "progress": False}
    found = evaluate.evaluate_many(subsets, digits(), seeds=(0, 1), device=device, **options)
    return {"accuracy": torch.tensor(found["accuracy"].mean())}


ROUNDING = Rule(relative, 0.002)
# rounding decides which of two images is nearer to a centre
LOOSER = {"dream": Rule(relative, 0.1)}
CHECKS: dict[str, Check] = {
    **{
        f"condense {name}": Check(partial(condensed, name), {"images": LOOSER.get(name, ROUNDING)})
        for name in STEPS
    },
    "dynamics": Check(
        recorded, {"logits": ROUNDING, "scores": ROUNDING, "kept": Rule(exchanged, 0.1)}
    ),
    "evaluate": Check(partial(evaluated, **EXACT), {"accuracy": Rule(points, 2.0)}),
    **{
        f"condense {name}, as used": Check(
            partial(condensed_as_used, name), {"loss": Rule(relative, SPREAD[name])}, False
        )
        for name in LONGER
    },
    "evaluate, as used": Check(
        partial(evaluated, epochs=LONG), {"accuracy": Rule(points, 12.0)}, False
    ),
    "evaluate two, as used": Check(evaluated_at_once, {"accuracy": Rule(points, 9.0)}, False),
}


@contextlib.contextmanager
def only_rounding(exact: bool) -> Iterator[None]:
    """Let an exact check differ from a CPU's result by rounding alone."""
    if not exact:
        yield
        return
    with seeds.drawn_on_host(), torch.backends.cudnn.flags(allow_tf32=False):
        yield
