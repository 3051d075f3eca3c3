"""The parameters of every notebook, typed, once: read by the notebooks and by the command line."""

import ast
from collections.abc import Mapping
from itertools import product
from typing import Any, ClassVar, Optional, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from yoco import ablations, checks, damage, fields, noise, zoo
from yoco.condense import METHODS as CONDENSATIONS
from yoco.condense.settings import SCALES, default_model
from yoco.dynamics import LBPE_FORMED, LBPE_SINGLE
from yoco.models import MODELS
from yoco.prune import METHODS
from yoco.runs import ZOO


def _scale_of(dataset: str) -> str:
    """The preset of a dataset if none is given."""
    return "smoke" if dataset == "digits" or dataset.startswith(f"{ZOO}digits-") else "laptop"


class Parameters(BaseModel):
    """What all notebooks take."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    by_preset: ClassVar[dict[str, tuple[Any, Any]]] = {}  # defaults that the preset decides: smoke's, and the others'

    dataset: fields.Dataset = Field("digits", description="digits, cifar10, cifar100, imagenet10 or folder:PATH")
    root: Optional[str] = Field(None, description="where the dataset is, or is downloaded to (none: ~/.cache/yoco)")
    run_dir: Optional[str] = Field(None, description="the run's folder (none: runs/ and the dataset's name)")
    seed: fields.Seed = Field(0, description="seed of everything that is drawn")
    size: Optional[fields.Side] = Field(None, description="resize the real images to this side")
    method: fields.Condenser = Field("idc", description=f"of condensation: {', '.join(CONDENSATIONS)}")
    ipc: fields.Count = Field(10, description="images per class of the condensed set, IPC_F")
    factor: Optional[fields.Count] = Field(None, description="cells along a side of a condensed image (none: the method's own)")
    preset: Optional[fields.Preset] = Field(None, description="paper, laptop or smoke (none: smoke on digits, else laptop)")
    epochs: Optional[fields.Count] = Field(None, description="of each training (none: 1000, 200 or 10, by preset)")
    protocol: fields.Protocol = Field("even", description="of trainings: even (batches split evenly) or paper (a small last batch, as published)")
    model: Optional[fields.Model] = Field(None, description="network of all trainings (none: convnet, or resnet10ap for images of 64 pixels or more)")
    width: Optional[fields.Count] = Field(None, description="channels of the ConvNet (none: 128, or 24 in smoke)")
    precision: fields.Precision = Field("auto", description="of convolutions: auto, float32 or bfloat16")

    outer_loops: Optional[fields.Count] = Field(None, description="of idc, dream and dsa: fresh networks (none: by preset)")
    inner_loops: Optional[fields.Count] = Field(None, description="of idc, dream and dsa: image steps with each network (none: by preset)")
    iterations: Optional[fields.Count] = Field(None, description="of mtt, kip and ncfm: image steps (none: by preset)")
    pool_networks: Optional[fields.Count] = Field(None, description="of ncfm: networks of its pool (none: by preset)")
    pool_epochs: Optional[fields.Count] = Field(None, description="of ncfm: epochs of each of them (none: by preset)")
    nested: Optional[fields.Nested] = Field(None, description="of ncfm: budgets whose prefixes are matched too, or true for 1, 2, 3, 5, …")
    time_budget: Optional[fields.Seconds] = Field(None, description="seconds after which condensing stops; run again to go on")

    @model_validator(mode="before")
    @classmethod
    def _filled_by_preset(cls, values: dict[str, Any]) -> dict[str, Any]:
        """With the values of `by_preset` that are not given."""
        dataset = str(values.get("dataset", cls.model_fields["dataset"].default))
        smoke = (values.get("preset") or _scale_of(dataset)) == "smoke"
        filled = {name: short if smoke else full for name, (short, full) in cls.by_preset.items() if values.get(name) is None}
        return values | filled

    @model_validator(mode="after")
    def _seeds_from_there_on(self) -> Self:
        """The runs after the first take the seeds that follow."""
        if self.seed + self.seeds_taken - 1 > checks.MOST_SEED:
            raise ValueError(f"seed must be at most {checks.MOST_SEED} less the {self.seeds_taken - 1} runs that follow the first, got {self.seed}")
        return self

    @property
    def seeds_taken(self) -> int:
        """Seeds that the runs take, from `seed` on."""
        return max(getattr(self, name, 1) for name in ("seeds", "dynamics", "compare_seeds"))

    @property
    def scale(self) -> str:
        """The preset, with its default filled in."""
        return self.preset or _scale_of(self.dataset)

    @property
    def real_dataset(self) -> str:
        """The name that real images are loaded by."""
        return self.dataset

    def condensation(self, method: str | None = None) -> dict[str, Any]:
        """Arguments for `condense`; of another method than the run's, those that it has."""
        if method in (None, self.method):
            nested = {} if self.nested is None else {"nested": self.nested}
            return {**self.start(), "time_budget": self.time_budget, **nested}
        size = self.size or 1  # settings have the same names at every size
        known = {"method", "preset", "ipc", "factor", "seed", "precision", *CONDENSATIONS[method].settings_for(self.scale, size, 1, {}).record()}
        other = self.model_copy(update={"method": method, "factor": None})
        return {name: value for name, value in other.condensation().items() if name in known | {"time_budget"}}

    def start(self) -> dict[str, Any]:
        """Arguments for `start_set`."""
        networks = () if self.method == "kip" else ("model", "width")  # a kernel has neither
        steps = ("outer_loops", "inner_loops", "iterations", "pool_networks", "pool_epochs")
        names = ("method", "ipc", "factor", "seed", "precision", *steps, *networks)
        chosen = {name: getattr(self, name) for name in names}
        return {"preset": self.scale, **{name: value for name, value in chosen.items() if value is not None}}

    def training(self, size: int) -> dict[str, Any]:
        """Arguments for `record`, `evaluate_many` and `study.run` on images of side `size`."""
        scale, model = SCALES[self.scale], self.model or default_model(size)
        width = self.width or (scale.width if model == "convnet" else None)
        shape = {"model": model, "width": width, "batch_size": scale.batch_size}
        return {"epochs": self.epochs or scale.epochs, "protocol": self.protocol, **shape, "precision": self.precision}

    def recording(self, size: int) -> dict[str, Any]:
        """Arguments for `record` and `record_many`: those of training, but for the epochs."""
        return {**self.training(size), "epochs": self.epochs or SCALES[self.scale].recorded}


class Condensation(Parameters):
    """01_condensation"""

    seeds: fields.Count = Field(2, description="networks trained on the start, and on the result")
    compare: fields.Condensers = Field(list(CONDENSATIONS), description="condensation methods compared")
    compare_seconds: fields.Seconds = Field(4.0, gt=0, description="of condensing, for each of those whose set neither the run nor the zoo has")
    compare_seeds: fields.Count = Field(1, description="networks trained on each start and result of those")


class Scores(Parameters):
    """02_scores"""

    dataset: fields.DatasetOrZoo = Field("zoo:cifar10-idc-ipc10", description="as in 01, or zoo:NAME for a set that ships with yoco")
    top_k: Optional[fields.Count] = Field(None, description="epochs that LBPE averages (none: the paper's)")
    within: Optional[fields.Count] = Field(None, description="first epochs that LBPE chooses among (none: the paper's)")

    def recording(self, size: int) -> dict[str, Any]:
        """Arguments for `record`: those of training, and what LBPE will be asked for."""
        return {**super().recording(size), "top_k": self.top_k, "windows": None if self.within is None else [self.within]}


class Balance(Scores):
    """03_class_balance"""

    ipc_to: fields.DifferentCounts = Field([1, 2, 5], description="budgets, IPC_T")


class Gallery(Scores):
    """07_gallery"""

    budget: fields.Count = Field(1, description="of the figures about pruning, IPC_T")


class Study(Parameters):
    """What notebooks take that train on pruned sets."""

    ipc_to: fields.DifferentCounts = Field([1, 2, 5], description="budgets, IPC_T")
    dynamics: fields.Count = Field(3, description="training runs recorded")
    seeds: fields.Count = Field(1, description="networks trained on each pruned set, for each of those")
    dynamics_epochs: Optional[fields.Count] = Field(None, description="of each recorded run (none: as epochs; 20 in smoke)")
    methods: fields.Methods = Field(list(METHODS), description="pruning methods")

    def recording(self, size: int) -> dict[str, Any]:
        """As of every notebook, with the epochs of its own."""
        return super().recording(size) | ({"epochs": self.dynamics_epochs} if self.dynamics_epochs else {})

    def schedule(self, size: int) -> dict[str, Any]:
        """Arguments for `study.grid`: those of training, the budgets and the seeds."""
        return {**self.training(size), "ipc_to": self.ipc_to, "seeds": range(self.seed, self.seed + self.seeds)}


class Pruning(Study):
    """04_pruning"""

    by_preset = {"ipc_to": ([1, 2], [1, 2, 5]), "dynamics": (2, 3)}
    ipc_to: Optional[fields.DifferentCounts] = Field(None, description="budgets, IPC_T (none: 1, 2, 5, or 1, 2 in smoke)")
    dynamics: Optional[fields.Count] = Field(None, description="training runs recorded (none: 3, or 2 in smoke)")
    epochs_to: Optional[fields.Counts] = Field(None, description="epochs at each of ipc_to, in its order (none: as epochs)")
    also: fields.OptionalCondensers = Field(["dream"], description="condensations whose sets, pruned at random, are columns as well; may be empty")
    bytes_epochs: Optional[fields.Count] = Field(None, description="of the trainings on one file's prefixes (none: as epochs)")
    set_path: Optional[str] = Field(
        None, description="a condensed set to prune, an author's file or yoco's (none: one condensed now); also is then empty"
    )

    def condensation(self, method: str | None = None) -> dict[str, Any]:
        """As of every notebook, with the file that the run's own set is read from."""
        own = {"path": self.set_path} if method in (None, self.method) and self.set_path else {}
        return {**super().condensation(method), **own}

    @model_validator(mode="after")
    def _an_epoch_count_a_budget(self) -> "Pruning":
        if self.epochs_to is not None and len(self.epochs_to) != len(self.ipc_to):
            raise ValueError(f"epochs_to must hold as many numbers as ipc_to, {len(self.ipc_to)}, got {len(self.epochs_to)}")
        return self

    def schedule(self, size: int) -> dict[str, Any]:
        """As of every study, with the epochs at each budget."""
        plain = super().schedule(size)
        return plain | ({"epochs": dict(zip(self.ipc_to, self.epochs_to))} if self.epochs_to else {})


class Ablations(Study):
    """05_ablations"""

    by_preset = {"networks": (["convnet", "convnet-d2-w32"], ["convnet", "resnet10"])}
    ipc_to: fields.DifferentCounts = Field([1], description="budgets, IPC_T")
    dynamics: fields.Count = Field(2, description="training runs recorded")
    methods: fields.Methods = Field(list(METHODS), description="pruning methods whose ends and balance are taken apart")
    top_k: fields.DifferentCounts = Field(list(ablations.TOP_K), description="epochs that LBPE averages")
    within: fields.DifferentCounts = Field(list(ablations.WITHIN), description="first epochs that it chooses them among")
    compare: fields.Condensers = Field(list(CONDENSATIONS), description="condensation methods whose sets are pruned")
    networks: Optional[fields.Models] = Field(
        None, description=f"networks trained on what is left, of {', '.join(MODELS)} (none: convnet, resnet10; convnet, convnet-d2-w32 in smoke)"
    )

    def early(self, size: int, record_on: str = "augmented") -> dict[str, Any]:
        """Arguments for `record_many` of runs that stop where LBPE needs no more, with every logit that is asked for here."""
        full = self.recording(size)
        paper_k, paper_windows = zip(*LBPE_FORMED.values(), *LBPE_SINGLE.values())
        windows, most = sorted({*self.within, *paper_windows}), max(*self.top_k, *paper_k)
        return {**full, "until": min(windows[-1], full["epochs"]), "record_on": record_on, "top_k": most, "windows": windows}


class Noise(Study):
    """06_noise"""

    by_preset = {
        "rates": ([40], [5, 10, 20, 40]),
        "kinds": (["symmetric", "occlusion"], list(damage.KINDS)),
        "condensed_kinds": (["symmetric"], list(damage.KINDS)),
    }
    dataset: fields.DatasetOrZoo = Field("zoo:digits-idc-ipc10", description="as in 01, or zoo:NAME for a set that ships with yoco")
    real: Optional[fields.Dataset] = Field(None, description="real images that a set of the zoo is tested on (none: the dataset that it tells)")
    ipc_to: fields.DifferentCounts = Field([1, 5], description="budgets, IPC_T")
    trained_to: Optional[fields.DifferentCounts] = Field(None, description="those of ipc_to at which networks are trained (none: the smallest)")
    dynamics: fields.Count = Field(2, description="training runs recorded")
    rates: Optional[fields.Percents] = Field(None, description="percent of the labels that are wrong (none: 5, 10, 20, 40, or 40 in smoke)")
    kinds: Optional[fields.DamageKinds] = Field(
        None, description="damage done to the condensed set (none: every kind, or symmetric and occlusion in smoke)"
    )
    image_rates: Optional[fields.Percents] = Field(None, description="percent of images blurred, noisy or covered (none: the highest of rates)")
    condensed_kinds: Optional[fields.DamageKinds] = Field(None, description="damage done before condensing (none: every kind, or symmetric in smoke)")
    condensed_rates: Optional[fields.Percents] = Field(None, description="percent of the real images that it does (none: the highest of rates)")

    @model_validator(mode="after")
    def _trained_to_of_ipc_to(self) -> Self:
        if odd := [budget for budget in self.trained_to or () if budget not in self.ipc_to]:
            raise ValueError(f"trained_to must hold budgets of ipc_to, {self.ipc_to}, got {odd}")
        return self

    @property
    def real_dataset(self) -> str:
        """The name that real images are loaded by. Raises ValueError where a set of the zoo is of a folder that `real` does not tell."""
        if self.real or not self.dataset.startswith(ZOO):
            return self.real or self.dataset
        told = zoo.load(self.dataset.removeprefix(ZOO)).info["dataset"]
        if told.startswith("folder:"):
            raise ValueError(f"real must name the folder of the images of {self.dataset} (real=folder:PATH): it was made from {told}")
        return told

    @property
    def seeds_taken(self) -> int:
        """Seeds that the runs take, from `seed` on: each training run's networks have their own."""
        return self.dynamics * self.seeds

    def formed_damage(self) -> list[tuple[str, int]]:
        """Kind and percent of the damage done to formed images; that of none first."""
        rates = {kind: sorted(self.rates if kind in damage.LABEL_KINDS else self.image_rates or [max(self.rates)]) for kind in self.kinds}
        return [(noise.CLEAN, 0), *((kind, percent) for kind in self.kinds for percent in rates[kind])]

    def real_damage(self) -> list[tuple[str, int]]:
        """Kind and percent of the damage done to real images before condensing; that of none first."""
        return [(noise.CLEAN, 0), *product(self.condensed_kinds, self.condensed_rates or [max(self.rates)])]

    def comparison(self, size: int) -> dict[str, Any]:
        """Arguments for `noise.compare`."""
        trained_to = self.trained_to or [min(self.ipc_to)]
        return {**self.training(size), "ipc_to": self.ipc_to, "trained_to": trained_to, "seed": self.seed, "seeds": self.seeds}


NOTEBOOKS: dict[str, type[Parameters]] = {model.__doc__: model for model in (Condensation, Scores, Balance, Pruning, Ablations, Noise, Gallery)}


def validated(notebook: str, values: Mapping[str, Any]) -> Parameters:
    """The parameters of a notebook, by name ("01_condensation"), from `values`; the others take their defaults.

    Raises ValueError that names every wrong parameter, what came and what is allowed.
    """
    model = NOTEBOOKS[checks.one_of("notebook", notebook, NOTEBOOKS)]
    for name in values:
        checks.one_of("parameter", name, model.model_fields)
    try:
        return model(**values)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc']))}={e['input']!r}: {e['msg']}" if e["loc"] else e["msg"] for e in error.errors()]
        raise ValueError(f"parameters of {notebook}: {'; '.join(wrong)}") from None


def check(notebook: str, namespace: Mapping[str, Any]) -> Parameters:
    """The parameters of the running notebook from its globals, checked before any work.

    Papermill writes its `-p` values into a cell that begins with "# Parameters", and only warns at a misspelt name; here
    it is an error. Raises ValueError as `validated`, also where a parameter is missing.
    """
    known = NOTEBOOKS[checks.one_of("notebook", notebook, NOTEBOOKS)].model_fields
    injected = [name for cell in namespace.get("In", []) if cell.startswith("# Parameters") for name in assigned(cell)]
    missing = [name for name in known if name not in namespace]
    if missing:
        raise ValueError(f"parameter {', '.join(missing)} is not set in the cell tagged parameters")
    names = dict.fromkeys([*known, *injected])
    return validated(notebook, {name: namespace[name] for name in names})


def assigned(source: str) -> list[str]:
    """Names that the top level of a cell assigns to."""
    targets = []
    for node in ast.parse(source).body:
        targets += node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def table(notebook: str) -> str:
    """A Markdown table of a notebook's parameters: name, type, default, meaning."""
    rows = ["| parameter | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in NOTEBOOKS[checks.one_of("notebook", notebook, NOTEBOOKS)].model_fields.items():
        default = ", ".join(map(str, field.default)) if isinstance(field.default, list) else field.default
        rows.append(f"| `{name}` | {fields.type_name(field.annotation)} | {default} | {field.description} |")
    return "\n".join(rows)
