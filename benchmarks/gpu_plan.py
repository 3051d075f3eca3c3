"""How large the work of `benchmarks.gpu` is: sets and how they are made, for a card and tiny."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks import cases, gpu_steps

# networks that all sets of NCFM share; those of the paper take 12 minutes on an H100
POOL = {"pool_networks": 5, "pool_epochs": 20}
# as the zoo's sets were made, with better networks
NCFM = {"preset": "laptop", **POOL}
CONTINUED = {"image_lr": 0.005, "final_lr": 0.0005, "prefix_share": 0.5}
# ten times the paper's rate, for the few thousand steps that fit; the paper takes 200,000
MATCHING = {"preset": "paper", "image_lr": 0.05}
ALONE = {**NCFM, "iterations": 12_000}  # as many as `nested`, with what it continues
BOTH = ("paper", "even")


@dataclass(frozen=True)
class Recipe:
    """A set: how it is made, and what is measured with it.

    Attributes:
        method, ipc: as for `condense`.
        given: a set that exists ("zoo:NAME"); it is not made.
        start: name of the set that it continues.
        settings: further arguments of `condense`.
        most: seconds after which it is taken as it is, for methods whose rate is constant; None:
            all steps, in as many calls as they need.
        protocols: of its accuracy, and of its block of Table 2.
        block: seconds below which its block is not begun, as none of it might be kept; None: it has
            no block.
        least: seconds below which no other measurement with it is begun.
    """

    method: str = "ncfm"
    ipc: int = 10
    given: str | None = None
    start: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    most: float | None = None
    protocols: Sequence[str] = BOTH
    block: float | None = None
    least: float = 45.0


@dataclass(frozen=True)
class Plan:
    """How large the work is.

    Attributes:
        sets: by name, in order; a set comes after the one that it continues.
        training: options of every training on a set.
        budgets: IPC_T of the blocks, and the prefixes of a nested set that are tested.
        seeds: of each accuracy, and of the dynamics.
        steps: steps that are timed, of `gpu_steps.WORK`.
        cases: cases of the benchmark with their options.
        repeats: timed runs of each side of a case.
        short: settings of NCFM for a set in `short_seconds`, networks included; none: no such set.
        terms: sets, IPC and seeds of `benchmarks.ncfm_terms`, and its epochs.
        last: sets that are made when all else is done.
    """

    sets: Mapping[str, Recipe]
    training: Mapping[str, Any]
    budgets: Sequence[int] = (1, 2, 5)
    seeds: Sequence[int] = range(3)
    steps: Sequence[str] = tuple(gpu_steps.WORK)
    cases: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    repeats: int = 3
    short: Mapping[str, Any] = field(default_factory=dict)
    short_seconds: float = 0.0
    terms: tuple[Sequence[str], Sequence[int], int, int | None] = ((), (), 0, None)
    last: Mapping[str, Recipe] = field(default_factory=dict)

    @property
    def recipes(self) -> dict[str, Recipe]:
        """Every set by name."""
        return {**self.sets, **self.last}


# CIFAR-10 on one H100 or H200
PLAN = Plan(
    cases={name: {} for name in cases.CASES},
    short={
        "preset": "paper",
        **POOL,
        "iterations": 2900,
        "real_batch": 128,
        "frequencies": 2048,
        "image_lr": 0.01,
        "final_lr": 0.001,
    },
    short_seconds=110.0,
    sets={
        "flat": Recipe(given="zoo:cifar10-ncfm-ipc10", block=120.0),
        "zoo-nested": Recipe(given="zoo:cifar10-nested-ipc10", protocols=()),
        "nested": Recipe(
            start="zoo-nested",
            settings={**NCFM, **CONTINUED, "iterations": 3000, "nested": (1, 2, 3, 5, 7, 10)},
        ),
        **{f"alone-{ipc}": Recipe(ipc=ipc, settings=ALONE, least=20.0) for ipc in (1, 2, 5)},
        "idc": Recipe("idc", start="flat", settings=MATCHING, most=150.0, block=120.0),
        # its dynamics are too large to travel: a block must fit in one call
        "flat-50": Recipe(ipc=50, settings={**NCFM, "iterations": 4000}, block=360.0),
        "dream": Recipe("dream", start="flat", settings=MATCHING, most=150.0, block=120.0),
    },
    training={"epochs": 1000},
    terms=(("flat", "nested", "alone-1", "flat-50"), (1, 10, 50), 3, None),
    last={"paper": Recipe(settings={"preset": "paper"})},
)

# the other blocks of Table 2, at 300 epochs
LONG = {**NCFM, "iterations": 2500}
CIFAR100 = Plan(
    sets={
        "zoo": Recipe(given="zoo:cifar100-ncfm-ipc10", protocols=()),
        "flat": Recipe(
            start="zoo", settings={**NCFM, "iterations": 1500}, block=240.0, least=120.0
        ),
        "flat-20": Recipe(ipc=20, settings=LONG, protocols=("even",), least=200.0),
    },
    training={"epochs": 300},
)
IMAGENETTE = Plan(
    sets={"flat": Recipe(settings={**LONG, "model": "convnet-d5"}, block=240.0, least=120.0)},
    training={"epochs": 300, "model": "convnet-d5"},
)

SMALL = {"preset": "smoke", "pool_epochs": 1, "pool_images": 64, "width": 8}
# a minute on a CPU, to rehearse
TINY = Plan(
    steps=(),
    cases={"train_40": {"epochs": 1}},
    repeats=1,
    short={**SMALL, "iterations": 3},
    short_seconds=30.0,
    sets={
        "flat": Recipe(given="zoo:digits-ncfm-ipc10", block=5.0, least=5.0),
        "zoo-nested": Recipe(given="zoo:digits-nested-ipc10", protocols=()),
        "nested": Recipe(
            start="zoo-nested",
            settings={**SMALL, "iterations": 2, "nested": (1, 2, 10)},
            protocols=("even",),
            least=5.0,
        ),
        "alone-1": Recipe(ipc=1, settings={**SMALL, "iterations": 6}, least=5.0),
        "idc": Recipe(
            "idc",
            start="flat",
            settings={"preset": "smoke", "outer_loops": 1, "inner_loops": 2, "width": 8},
            most=20.0,
            protocols=("even",),
            least=5.0,
        ),
    },
    budgets=(1,),
    seeds=range(2),
    training={"epochs": 2, "width": 8},
    terms=(("nested",), (1,), 1, 2),
)
PLANS = {"cifar10": PLAN, "cifar100": CIFAR100, "imagenette": IMAGENETTE, "tiny": TINY}
