"""The parameters of every notebook, typed, once: read by the notebooks and by the command line."""

import ast
from collections.abc import Mapping
from itertools import product
from typing import Any, Optional, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from yoco import zoo
from yoco.condense.methods import METHODS as CONDENSATIONS
from yoco.condense.presets import SCALES, default_model
from yoco.dynamics.dynamics import LBPE_FORMED, LBPE_SINGLE
from yoco.experiments import ablations, corruption, noise
from yoco.prune.methods import compared
from yoco.utils import checks
from yoco.workflow import parameter_types as types
from yoco.workflow.options import Described
from yoco.zoo import PREFIX as ZOO


def _scale_of(dataset: str) -> str:
    """The preset of a dataset if none is given."""
    return "smoke" if dataset == "digits" or dataset.startswith(f"{ZOO}digits-") else "laptop"


class Parameters(BaseModel):
    """What all notebooks take."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: types.Dataset = Field(
        "digits",
        description="digits, cifar10, cifar100, imagenet10, folder:PATH, hf:NAME or "
        "package.module:function",
    )
    root: Optional[types.Text] = Field(
        None, description="where the dataset is, or is downloaded to (none: ~/.cache/yoco)"
    )
    run_dir: Optional[types.Text] = Field(
        None, description="the run's folder (none: runs/ and the dataset's name)"
    )
    seed: types.Seed = Field(0, description="seed of everything that is drawn")
    size: Optional[types.Side] = Field(None, description="resize the real images to this side")
    method: types.Filled[types.Condenser] = types.by_preset(
        "condensation method", smoke="idc", otherwise="ncfm"
    )
    ipc: types.Count = Field(10, description="images per class of the condensed set, IPC_F")
    factor: Optional[types.Count] = Field(
        None, description="cells along a side of a condensed image (none: the method's own)"
    )
    preset: Optional[types.Preset] = Field(
        None, description="scale of all settings (none: smoke on digits, else laptop)"
    )
    epochs: Optional[types.Count] = Field(
        None, description="epochs of each training (none: 1000, 200 or 10, by preset)"
    )
    protocol: types.Protocol = Field(
        "even",
        description="how trainings split an epoch: evenly, or with a small last batch, as "
        "published",
    )
    augmentation: types.Augmentation = Field(
        "dsa", description="augmentation of trainings, of DSA or as published for ImageNet-10"
    )
    model: Optional[types.Model] = Field(
        None,
        description="network of all trainings (none: convnet, or resnet10ap for images of 64 "
        "pixels "
        "or "
        "more)",
    )
    width: Optional[types.Count] = Field(
        None, description="channels of the ConvNet (none: 128, or 24 in smoke)"
    )
    precision: types.Precision = Field("auto", description="number format of convolutions")

    outer_loops: Optional[types.Count] = Field(
        None, description="fresh networks in idc, dream and dsa (none: by preset)"
    )
    inner_loops: Optional[types.Count] = Field(
        None, description="image steps with each network in idc, dream and dsa (none: by preset)"
    )
    iterations: Optional[types.Count] = Field(
        None, description="image steps of mtt, kip and ncfm (none: by preset)"
    )
    pool_networks: Optional[types.Count] = Field(
        None, description="networks in the pool of ncfm (none: by preset)"
    )
    pool_epochs: Optional[types.Count] = Field(
        None, description="epochs of each network in the pool of ncfm (none: by preset)"
    )
    nested: Optional[types.Nested] = Field(
        None, description="budgets whose prefixes ncfm matches too, or true for 1, 2, 3, 5, …"
    )
    start: Optional[types.Start] = Field(
        None,
        description="set that the method condenses further: a file or zoo:NAME (none: packed real "
        "images)",
    )
    time_budget: Optional[types.Seconds] = Field(
        None, description="seconds after which condensing stops; run again to go on"
    )

    @model_validator(mode="before")
    @classmethod
    def _filled_by_preset(cls, values: dict[str, Any]) -> dict[str, Any]:
        """With the defaults that the preset decides, of parameters that are not given."""
        dataset = str(values.get("dataset", cls.model_fields["dataset"].default))
        smoke = (values.get("preset") or _scale_of(dataset)) == "smoke"
        fills = {
            name: types.fill(field)
            for name, field in cls.model_fields.items()
            if values.get(name) is None
        }
        return values | {name: fill(smoke) for name, fill in fills.items() if fill}

    @model_validator(mode="after")
    def _seeds_from_there_on(self) -> Self:
        """The runs after the first take the seeds that follow."""
        if self.seed + self.seeds_taken - 1 > checks.MOST_SEED:
            raise ValueError(
                f"seed must be at most {checks.MOST_SEED} less the {self.seeds_taken - 1} runs "
                f"that follow the first, got {self.seed}"
            )
        return self

    @property
    def seeds_taken(self) -> int:
        """Seeds that the runs take, from `seed` on."""
        return 1

    @property
    def scale(self) -> str:
        """The preset, with its default filled in."""
        return self.preset or _scale_of(self.dataset)

    @property
    def real_dataset(self) -> str:
        """The name that real images are loaded by."""
        return self.dataset

    def condensation(self, method: str | None = None) -> dict[str, Any]:
        """Arguments for `workflow.get_condensed`; of another method than the run's, those that it
        has.
        """
        if method is None or method == self.method:
            given = {
                name: getattr(self, name)
                for name in ("nested", "start")
                if getattr(self, name) is not None
            }
            return {**self.packing(), "time_budget": self.time_budget, **given}
        known = {
            "method",
            "preset",
            "ipc",
            "factor",
            "seed",
            "precision",
            *self._settings_of(method),
        }
        other = self.model_copy(update={"method": method, "factor": None})
        return {
            name: value
            for name, value in other.condensation().items()
            if name in known | {"time_budget"}
        }

    def _settings_of(self, method: str) -> set[str]:
        """Names of a condensation method's settings, which are the same at every size."""
        return {*CONDENSATIONS[method].settings_for(self.scale, self.size or 1, 1, {}).record()}

    def packing(self) -> dict[str, Any]:
        """Arguments for `start_set`."""
        networks = {"model", "width"} & self._settings_of(self.method)  # a kernel has neither
        steps = ("outer_loops", "inner_loops", "iterations", "pool_networks", "pool_epochs")
        names = {"method", "ipc", "factor", "seed", "precision", *steps, *networks}
        return {"preset": self.scale, **self.model_dump(include=names, exclude_none=True)}

    def training(self, size: int) -> dict[str, Any]:
        """Arguments for `record`, `evaluate_many` and `study.run` on images of side `size`."""
        scale, model = SCALES[self.scale], self.model or default_model(size)
        width = self.width or (scale.width if model == "convnet" else None)
        shape = {"model": model, "width": width, "batch_size": scale.batch_size}
        how = {"protocol": self.protocol, "augmentation": self.augmentation}
        return {"epochs": self.epochs or scale.epochs, **how, **shape, "precision": self.precision}

    def recording(self, size: int) -> dict[str, Any]:
        """Arguments for `record` and `record_many`: those of training, but for the epochs."""
        return {**self.training(size), "epochs": self.epochs or SCALES[self.scale].recorded}


class Condensation(Parameters):
    """01_condensation"""

    seeds: types.Count = Field(2, description="networks trained on the start, and on the result")
    compare: types.Filled[types.Condensers] = types.all_of(
        "condensation methods compared", lambda: CONDENSATIONS
    )
    compare_seconds: types.Seconds = Field(
        4.0,
        gt=0,
        description="seconds of condensing by each of those whose set neither the run nor the zoo "
        "has",
    )
    compare_seeds: types.Count = Field(
        1, description="networks trained on each start and result of those"
    )

    @property
    def seeds_taken(self) -> int:
        """Seeds that the runs take, from `seed` on."""
        return max(self.seeds, self.compare_seeds)


class Scores(Parameters):
    """02_scores"""

    dataset: types.DatasetOrZoo = Field(
        "zoo:cifar10-idc-ipc10", description="as in 01, or zoo:NAME for a set that ships with yoco"
    )
    top_k: Optional[types.Count] = Field(
        None, description="epochs that LBPE averages (none: the paper's)"
    )
    within: Optional[types.Count] = Field(
        None, description="first epochs that LBPE chooses among (none: the paper's)"
    )

    def recording(self, size: int) -> dict[str, Any]:
        """Arguments for `record`: those of training, and what LBPE will be asked for."""
        return {
            **super().recording(size),
            "top_k": self.top_k,
            "windows": None if self.within is None else [self.within],
        }


class Balance(Scores):
    """03_class_balance"""

    ipc_to: types.DifferentCounts = Field([1, 2, 5], description="budgets, IPC_T")


class Gallery(Scores):
    """07_gallery"""

    budget: types.Count = Field(1, description="IPC_T of the figures about pruning")


class Study(Parameters):
    """What notebooks take that train on pruned sets."""

    ipc_to: types.DifferentCounts = Field([1, 2, 5], description="budgets, IPC_T")
    dynamics: types.Count = Field(3, description="training runs recorded")
    seeds: types.Count = Field(
        1, description="networks trained on each pruned set, for each recorded run"
    )
    dynamics_epochs: Optional[types.Count] = Field(
        None, description="epochs of each recorded run (none: as epochs; 20 in smoke)"
    )
    methods: types.Filled[types.Methods] = types.all_of("pruning methods", compared)

    @property
    def seeds_taken(self) -> int:
        """Seeds that the runs take, from `seed` on."""
        return max(self.seeds, self.dynamics)

    def recording(self, size: int) -> dict[str, Any]:
        """As of every notebook, with the epochs of its own."""
        return super().recording(size) | (
            {"epochs": self.dynamics_epochs} if self.dynamics_epochs else {}
        )

    def schedule(self, size: int) -> dict[str, Any]:
        """Arguments for `study.grid`: those of training, the budgets and the seeds."""
        return {
            **self.training(size),
            "ipc_to": self.ipc_to,
            "seeds": range(self.seed, self.seed + self.seeds),
        }


class Pruning(Study):
    """04_pruning"""

    ipc_to: types.Filled[types.DifferentCounts] = types.by_preset(
        "budgets, IPC_T", smoke=[1, 2], otherwise=[1, 2, 5]
    )
    dynamics: types.Filled[types.Count] = types.by_preset(
        "training runs recorded", smoke=2, otherwise=3
    )
    epochs_to: Optional[types.Counts] = Field(
        None, description="epochs at each of ipc_to, in its order (none: as epochs)"
    )
    also: types.OptionalCondensers = Field(
        ["dream"],
        description="condensations whose sets, pruned at random, are columns as well; may be empty",
    )
    bytes_epochs: Optional[types.Count] = Field(
        None, description="epochs of the trainings on one file's prefixes (none: as epochs)"
    )
    prefix_epochs: Optional[types.Count] = types.by_preset(
        ("epochs of the trainings beside a nested set"), smoke=40, otherwise=None
    )
    set_path: Optional[types.Text] = Field(
        None,
        description="a condensed set to prune, an author's file or yoco's (none: one condensed "
        "now); "
        "also "
        "is then empty",
    )

    def condensation(self, method: str | None = None) -> dict[str, Any]:
        """As of every notebook, with the file that the run's own set is read from."""
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
        """As of every study, with the epochs at each budget."""
        plain = super().schedule(size)
        return plain | (
            {"epochs": dict(zip(self.ipc_to, self.epochs_to))} if self.epochs_to else {}
        )


class Ablations(Study):
    """05_ablations"""

    ipc_to: types.DifferentCounts = Field([1], description="budgets, IPC_T")
    dynamics: types.Count = Field(2, description="training runs recorded")
    methods: types.Filled[types.Methods] = types.all_of(
        ("pruning methods whose ends and balance are taken apart"), compared
    )
    top_k: types.DifferentCounts = Field(
        list(ablations.TOP_K), description="epochs that LBPE averages"
    )
    within: types.DifferentCounts = Field(
        list(ablations.WITHIN), description="first epochs that LBPE chooses them among"
    )
    compare: types.Filled[types.Condensers] = types.all_of(
        ("condensation methods whose sets are pruned"), lambda: CONDENSATIONS
    )
    networks: types.Filled[types.Models] = types.by_preset(
        "networks trained on what is left",
        smoke=["convnet", "convnet-d2-w32"],
        otherwise=["convnet", "resnet10-w32"],
    )

    def early(self, size: int, record_on: str = "augmented") -> dict[str, Any]:
        """Arguments for `record_many` of runs that stop where LBPE needs no more, with every logit
        that is asked for here.
        """
        full = self.recording(size)
        paper_k, paper_windows = zip(*LBPE_FORMED.values(), *LBPE_SINGLE.values())
        windows, most = sorted({*self.within, *paper_windows}), max(*self.top_k, *paper_k)
        return {
            **full,
            "until": min(windows[-1], full["epochs"]),
            "record_on": record_on,
            "top_k": most,
            "windows": windows,
        }


class Noise(Study):
    """06_noise"""

    dataset: types.DatasetOrZoo = Field(
        "zoo:digits-idc-ipc10", description="as in 01, or zoo:NAME for a set that ships with yoco"
    )
    real: Optional[types.Dataset] = Field(
        None,
        description="real images that a set of the zoo is tested on (none: the dataset that it "
        "tells)",
    )
    ipc_to: types.DifferentCounts = Field([1, 5], description="budgets, IPC_T")
    trained_to: Optional[types.DifferentCounts] = Field(
        None, description="those of ipc_to at which networks are trained (none: the smallest)"
    )
    dynamics: types.Filled[types.Count] = types.by_preset(
        "training runs recorded, of each set", smoke=1, otherwise=2
    )
    rates: types.Filled[types.Percents] = types.by_preset(
        "percent of the labels that are wrong", smoke=[40], otherwise=[5, 10, 20, 40]
    )
    kinds: types.Filled[types.DamageKinds] = types.by_preset(
        "damage done to the condensed set",
        smoke=["symmetric", "occlusion"],
        otherwise=list(corruption.KINDS),
    )
    image_rates: Optional[types.Percents] = Field(
        None, description="percent of images blurred, noisy or covered (none: the highest of rates)"
    )
    condensed_kinds: types.Filled[types.DamageKinds] = types.by_preset(
        "damage done before condensing", smoke=["symmetric"], otherwise=list(corruption.KINDS)
    )
    condensed_rates: Optional[types.Percents] = Field(
        None, description="percent of real images damaged before that (none: the highest of rates)"
    )

    @model_validator(mode="after")
    def _trained_to_of_ipc_to(self) -> Self:
        if odd := [budget for budget in self.trained_to or () if budget not in self.ipc_to]:
            raise ValueError(f"trained_to must hold budgets of ipc_to, {self.ipc_to}, got {odd}")
        return self

    @property
    def real_dataset(self) -> str:
        """The name that real images are loaded by.

        Raises ValueError if a set of the zoo is of a folder that `real` does not tell.
        """
        if self.real or not self.dataset.startswith(ZOO):
            return self.real or self.dataset
        told = zoo.load(self.dataset.removeprefix(ZOO)).info["dataset"]
        if told.startswith("folder:"):
            raise ValueError(
                f"real must name the folder of the images of {self.dataset} (real=folder:PATH): "
                f"it was made from {told}"
            )
        return told

    @property
    def seeds_taken(self) -> int:
        """Seeds that the runs take, from `seed` on: each training run's networks have their own."""
        return self.dynamics * self.seeds

    def formed_damage(self) -> list[tuple[str, int]]:
        """Kind and percent of the damage done to formed images; that of none first."""
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
        """Kind and percent of the damage done to real images before condensing; that of none
        first.
        """
        return [
            (noise.CLEAN, 0),
            *product(self.condensed_kinds, self.condensed_rates or [max(self.rates)]),
        ]

    def comparison(self, size: int) -> dict[str, Any]:
        """Arguments for `noise.compare`."""
        trained_to = self.trained_to or [min(self.ipc_to)]
        return {
            **self.training(size),
            "ipc_to": self.ipc_to,
            "trained_to": trained_to,
            "seed": self.seed,
            "seeds": self.seeds,
        }


NOTEBOOKS: dict[str, type[Parameters]] = {
    str(model.__doc__): model
    for model in (Condensation, Scores, Balance, Pruning, Ablations, Noise, Gallery)
}


def validated(notebook: str, values: Mapping[str, Any]) -> Parameters:
    """The parameters of a notebook, by name ("01_condensation"), from `values`; the others take
    their defaults.

    Raises ValueError that names every wrong parameter, what came and what is allowed.
    """
    model = NOTEBOOKS[checks.one_of("notebook", notebook, NOTEBOOKS)]
    for name in values:
        checks.one_of("parameter", name, model.model_fields)
    try:
        return model(**values)
    except ValidationError as error:
        raise ValueError(
            f"parameters of {notebook}: {'; '.join(map(_wrong, error.errors()))}"
        ) from None


def _wrong(error: Mapping[str, Any]) -> str:
    """One of pydantic's errors: the parameter, what came and what is allowed.

    Errors of our own checks are told as they are.
    """
    text = str(error["ctx"]["error"]) if error["type"] == "value_error" else error["msg"]
    place = ".".join(map(str, error["loc"]))
    return (
        text
        if not place or text.startswith(f"{error['loc'][0]}=")
        else (f"{place}={error['input']!r}: {text}")
    )


def check(notebook: str, namespace: Mapping[str, Any]) -> Parameters:
    """The parameters of the running notebook from its globals, checked before any work.

    Papermill writes its `-p` values into a cell that begins with "# Parameters", and only warns at
    a misspelt name; here it is an error. Raises ValueError as `validated`, also if a parameter is
    missing.
    """
    known = NOTEBOOKS[checks.one_of("notebook", notebook, NOTEBOOKS)].model_fields
    injected = [
        name
        for cell in namespace.get("In", [])
        if cell.startswith("# Parameters")
        for name in assigned(cell)
    ]
    missing = [name for name in known if name not in namespace]
    if missing:
        raise ValueError(f"parameter {', '.join(missing)} is not set in the cell tagged parameters")
    names = dict.fromkeys([*known, *injected])
    return validated(notebook, {name: namespace[name] for name in names})


def assigned(source: str) -> list[str]:
    """Names that the top level of a cell assigns to."""
    targets: list[ast.expr] = []
    for node in ast.parse(source).body:
        targets += (
            node.targets
            if isinstance(node, ast.Assign)
            else [node.target]
            if isinstance(node, ast.AnnAssign)
            else []
        )
    return [target.id for target in targets if isinstance(target, ast.Name)]


def described() -> dict[str, list[Described]]:
    """The parameters of every notebook as readers are told of them: in `--help`, notebook cells and
    documents.
    """
    return {
        name: [types.described(*item) for item in model.model_fields.items()]
        for name, model in NOTEBOOKS.items()
    }
