"""The parameters of the notebooks that train on pruned sets: 04, 05 and 06."""

from itertools import product
from typing import Any, ClassVar, Optional, Self

from pydantic import Field, model_validator

from yoco import zoo
from yoco.condense.methods import METHODS as CONDENSATIONS
from yoco.dynamics.dynamics import LBPE_LARGE, LBPE_SMALL
from yoco.experiments import ablations, corruption, noise
from yoco.prune.methods import compared
from yoco.workflow import parameter_types as types
from yoco.workflow.shared_parameters import Parameters


class Study(Parameters):
    """Parameters of notebooks that train on pruned sets."""

    ipc_to: types.DifferentCounts = Field([1, 2, 5], description="budgets, IPC_T")
    dynamics: types.Count = Field(3, description="training runs to record")
    seeds: types.Count = Field(
        1, description="networks trained on each pruned set, for each recorded run"
    )
    dynamics_epochs: Optional[types.Count] = Field(
        None, description="epochs of each recorded run (none: as epochs; 20 in smoke)"
    )
    methods: types.Filled[types.Methods] = types.all_of("pruning methods", compared)

    @property
    def seeds_taken(self) -> int:
        return max(self.seeds, self.dynamics)

    @property
    def recorded_seeds(self) -> range:
        """The seeds of the training runs to record."""
        return range(self.seed, self.seed + self.dynamics)

    def condensation(self, method: str | None = None) -> dict[str, Any]:
        """As for every notebook, with the budgets to which the run's set will be pruned."""
        own = {"ipc_to": self.ipc_to} if method in (None, self.method) else {}
        return {**super().condensation(method), **own}

    def recording(self, size: int) -> dict[str, Any]:
        """As for every notebook, with its own epochs."""
        return super().recording(size) | (
            {"epochs": self.dynamics_epochs} if self.dynamics_epochs else {}
        )

    def schedule(self, size: int) -> dict[str, Any]:
        """Return arguments for `study.grid`: those of training, the budgets and the seeds."""
        return {
            **self.training(size),
            "ipc_to": self.ipc_to,
            "seeds": range(self.seed, self.seed + self.seeds),
        }


class Pruning(Study):
    """A set, pruned by every method to every budget."""

    shown: ClassVar[tuple[str, ...]] = (
        "dataset",
        "set_path",
        "ipc_to",
        "methods",
        "dynamics",
        "seeds",
    )

    ipc_to: types.Filled[types.DifferentCounts] = types.by_preset(
        "budgets, IPC_T", smoke=[1, 2], otherwise=[1, 2, 5]
    )
    dynamics: types.Filled[types.Count] = types.by_preset(
        "training runs to record", smoke=2, otherwise=3
    )
    epochs_to: Optional[types.Counts] = Field(
        None, description="epochs for each budget of ipc_to, in order (none: as epochs)"
    )
    also: types.OptionalCondensers = Field(
        ["dream"],
        description="condensation methods whose sets, pruned at random, get columns too; may be "
        "empty",
    )
    bytes_epochs: Optional[types.Count] = Field(
        None, description="epochs of training on the prefixes of one file (none: as epochs)"
    )
    prefix_epochs: Optional[types.Count] = types.by_preset(
        "epochs of training in the comparison of a nested set", smoke=40, otherwise=None
    )
    set_path: Optional[types.SetName] = Field(
        None,
        description="condensed set to prune: an author's file, yoco's, or zoo:NAME (none: condense "
        "one); `also` is then ignored",
    )

    def condensation(self, method: str | None = None) -> dict[str, Any]:
        """As for every notebook, with the set that the run takes instead."""
        own = {"path": self.set_path} if method in (None, self.method) and self.set_path else {}
        return {**super().condensation(method), **own}

    @model_validator(mode="after")
    def _an_epoch_count_a_budget(self) -> "Pruning":
        if self.epochs_to is not None and len(self.epochs_to) != len(self.ipc_to):
            raise ValueError(
                f"epochs_to must hold as many numbers as ipc_to, {len(self.ipc_to)}, got "
                f"{len(self.epochs_to)}"
            )
        return self

    def schedule(self, size: int) -> dict[str, Any]:
        """As for every study, with the epochs at each budget."""
        plain = super().schedule(size)
        return plain | (
            {"epochs": dict(zip(self.ipc_to, self.epochs_to))} if self.epochs_to else {}
        )


class Ablations(Study):
    """What each part of YOCO does."""

    shown: ClassVar[tuple[str, ...]] = (
        "dataset",
        "ipc_to",
        "dynamics",
        "compare",
        "networks",
        "run_dir",
    )

    ipc_to: types.DifferentCounts = Field([1], description="budgets, IPC_T")
    dynamics: types.Count = Field(2, description="training runs to record")
    methods: types.Filled[types.Methods] = types.all_of(
        "pruning methods whose end and balance are varied", compared
    )
    top_k: types.DifferentCounts = Field(
        list(ablations.TOP_K), description="numbers of epochs that LBPE averages"
    )
    within: types.DifferentCounts = Field(
        list(ablations.WITHIN), description="numbers of first epochs that LBPE chooses them among"
    )
    compare: types.Filled[types.Condensers] = types.all_of(
        "condensation methods whose sets are pruned", lambda: CONDENSATIONS
    )
    networks: types.Filled[types.Models] = types.by_preset(
        "networks trained on the pruned sets",
        smoke=["convnet", "convnet-d2-w32"],
        otherwise=["convnet", "resnet10-w32"],
    )

    def early(self, size: int, record_on: str = "augmented") -> dict[str, Any]:
        """Return arguments for `record_many` for runs that stop when LBPE has what it needs.

        They keep all logits that this notebook reads.
        """
        full = self.recording(size)
        own = [method.lbpe for method in CONDENSATIONS.values() if method.lbpe]
        paper_k, paper_windows = zip(LBPE_SMALL, LBPE_LARGE, *own)
        windows, most = sorted({*self.within, *paper_windows}), max(*self.top_k, *paper_k)
        return {
            **full,
            "until": min(windows[-1], full["epochs"]),
            "record_on": record_on,
            "top_k": most,
            "windows": windows,
        }


class Noise(Study):
    """Damage, and which rules keep it."""

    shown: ClassVar[tuple[str, ...]] = ("dataset", "real", "ipc_to", "kinds", "rates", "dynamics")

    dataset: types.DatasetOrZoo = Field(
        "zoo:digits-idc-ipc10", description="as in 01, or zoo:NAME for a set that ships with yoco"
    )
    real: Optional[types.Dataset] = Field(
        None,
        description="real images to test a zoo set on (none: the dataset that it names)",
    )
    ipc_to: types.DifferentCounts = Field([1, 5], description="budgets, IPC_T")
    trained_to: Optional[types.DifferentCounts] = Field(
        None, description="budgets of ipc_to at which networks are trained (none: the smallest)"
    )
    dynamics: types.Filled[types.Count] = types.by_preset(
        "training runs to record for each set", smoke=1, otherwise=2
    )
    rates: types.Filled[types.Percents] = types.by_preset(
        "percentages of wrong labels", smoke=[40], otherwise=[5, 10, 20, 40]
    )
    kinds: types.Filled[types.DamageKinds] = types.by_preset(
        "damage done to the condensed set",
        smoke=["symmetric", "occlusion"],
        otherwise=list(corruption.KINDS),
    )
    image_rates: Optional[types.Percents] = Field(
        None,
        description="percentages of blurred, noisy or covered images (none: the highest of rates)",
    )
    condensed_kinds: types.Filled[types.OptionalDamageKinds] = types.by_preset(
        "damage done before condensing; an empty list condenses nothing",
        smoke=["symmetric"],
        otherwise=list(corruption.KINDS),
    )
    condensed_rates: Optional[types.Percents] = Field(
        None,
        description="percentages of real images damaged before condensing (none: the highest of "
        "rates)",
    )

    @model_validator(mode="after")
    def _real_of_a_zoo_set(self) -> Self:
        if self.real and not self.dataset.startswith(zoo.PREFIX):
            raise ValueError(
                f"real={self.real!r} is for a set of the zoo; dataset={self.dataset!r} has real "
                "images of its own"
            )
        return self

    @model_validator(mode="after")
    def _trained_to_of_ipc_to(self) -> Self:
        if odd := [budget for budget in self.trained_to or () if budget not in self.ipc_to]:
            raise ValueError(f"trained_to must hold budgets of ipc_to, {self.ipc_to}, got {odd}")
        return self

    @property
    def real_dataset(self) -> str:
        """The name by which real images are loaded.

        Raises ValueError if a set of the zoo is of a folder that `real` does not name.
        """
        if self.real or not self.dataset.startswith(zoo.PREFIX):
            return self.real or self.dataset
        told = zoo.load(self.dataset.removeprefix(zoo.PREFIX)).info["dataset"]
        if told.startswith("folder:"):
            raise ValueError(
                f"real must name the folder of {self.dataset}'s images (real=folder:PATH): it was "
                f"made from {told}"
            )
        return told

    @property
    def seeds_taken(self) -> int:
        """Number of seeds from `seed` on; each training run's networks have their own."""
        return self.dynamics * self.seeds

    def formed_damage(self) -> list[tuple[str, int]]:
        """Return kind and percent of the damage done to formed images, no damage first."""
        rates = {
            kind: sorted(
                self.rates
                if kind in corruption.LABEL_KINDS
                else self.image_rates or [max(self.rates)]
            )
            for kind in self.kinds
        }
        return [
            (noise.CLEAN, 0),
            *((kind, percent) for kind in self.kinds for percent in rates[kind]),
        ]

    def real_damage(self) -> list[tuple[str, int]]:
        """As `formed_damage`, for the damage done to real images before condensing, if any."""
        damage = product(self.condensed_kinds, self.condensed_rates or [max(self.rates)])
        return [(noise.CLEAN, 0), *damage] if self.condensed_kinds else []

    def comparison(self, size: int) -> dict[str, Any]:
        """Return arguments for `noise.compare`."""
        trained_to = self.trained_to or [min(self.ipc_to)]
        return {
            **self.training(size),
            "ipc_to": self.ipc_to,
            "trained_to": trained_to,
            "seed": self.seed,
            "seeds": self.seeds,
        }
