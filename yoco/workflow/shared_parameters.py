"""`Parameters`: the parameters that every notebook has, and the arguments that follow from them."""

from collections.abc import Collection
from typing import Any, ClassVar, Optional, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from yoco import zoo
from yoco.condense.methods import METHODS as CONDENSATIONS
from yoco.condense.presets import SCALES, default_model
from yoco.utils import checks
from yoco.workflow import parameter_types as types

# parameters of condensing that not every method has
STEPS = ("outer_loops", "inner_loops", "iterations", "pool_networks", "pool_epochs")
# parameters that found dynamics must match if they were given, and the arguments they become
RECORDED = {
    **{
        name: name for name in ("epochs", "protocol", "augmentation", "model", "width", "precision")
    },
    "dynamics_epochs": "epochs",
}


def _scale_of(dataset: str) -> str:
    """Return the default preset of a dataset."""
    return (
        "smoke" if dataset == "digits" or dataset.startswith(f"{zoo.PREFIX}digits-") else "laptop"
    )


class Parameters(BaseModel):
    """The parameters of all notebooks."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    shown: ClassVar[tuple[str, ...]]  # those in the notebook's cell; the others can be set as well
    _explicit: frozenset[str] = PrivateAttr(frozenset())

    dataset: types.Dataset = Field(
        "digits",
        description="digits, cifar10 or another built-in name, folder:PATH, hf:NAME or "
        "package.module:function",
    )
    root: Optional[str] = Field(
        None, description="folder of the dataset, or of its download (none: ~/.cache/yoco)"
    )
    run_dir: Optional[str] = Field(
        None, description="the run's folder (none: runs/ plus the dataset's name)"
    )
    seed: types.Seed = Field(0, description="seed of all random choices")
    size: Optional[types.Side] = Field(
        None, description="resize the real images to this side length"
    )
    method: types.Filled[types.Condenser] = types.by_preset(
        "condensation method", smoke="idc", otherwise="ncfm"
    )
    ipc: types.Count = Field(10, description="images per class of the condensed set, IPC_F")
    factor: Optional[types.Count] = Field(
        None, description="cells along a side of a condensed image (none: the method's default)"
    )
    preset: Optional[types.Preset] = Field(
        None, description="scale of all settings (none: smoke on digits, else laptop)"
    )
    epochs: Optional[types.Count] = Field(
        None, description="epochs of each training run (none: 1000, 200 or 10, by preset)"
    )
    protocol: types.Protocol = Field(
        "even",
        description="how an epoch is split into batches: evenly, or with a small last one, as "
        "published",
    )
    augmentation: types.Augmentation = Field(
        "dsa", description="augmentation in training: DSA's, or as published for ImageNet-10"
    )
    model: Optional[types.Model] = Field(
        None,
        description="network to train (none: convnet, or resnet10ap for images of 64 pixels or "
        "more)",
    )
    width: Optional[types.Count] = Field(
        None, description="channels of the ConvNet (none: 128, or 24 in smoke)"
    )
    precision: types.Precision = Field("auto", description="number format for convolutions")

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
        None, description="budgets whose prefixes ncfm also matches, or true for 1, 2, 3, 5, …"
    )
    start: Optional[types.SetName] = Field(
        None,
        description="set to condense further: a file or zoo:NAME (none: packed real images)",
    )
    time_budget: Optional[types.Seconds] = Field(
        None, description="seconds after which condensing stops; run again to resume"
    )

    @model_validator(mode="before")
    @classmethod
    def _filled_by_preset(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Fill in the defaults that depend on the preset."""
        dataset = str(values.get("dataset", cls.model_fields["dataset"].default))
        smoke = (values.get("preset") or _scale_of(dataset)) == "smoke"
        fills = {
            name: types.filled(field)["fill"](smoke)
            for name, field in cls.model_fields.items()
            if values.get(name) is None and types.filled(field)
        }
        return values | fills

    @model_validator(mode="after")
    def _seeds_from_there_on(self) -> Self:
        """Check that the runs after the first, which take the following seeds, have valid ones."""
        if self.seed + self.seeds_taken - 1 > checks.MOST_SEED:
            raise ValueError(
                f"seed must be at most {checks.MOST_SEED} minus the {self.seeds_taken - 1} runs "
                f"that follow the first, got {self.seed}"
            )
        return self

    @model_validator(mode="after")
    def _settings_that_the_method_has(self) -> Self:
        for name in self.model_dump(include={*STEPS}, exclude_none=True):
            having = [method for method in CONDENSATIONS if name in self._settings_of(method)]
            if self.method not in having:
                raise ValueError(
                    f"{name} is a setting of {', '.join(having)}; method={self.method!r} does not "
                    "have it"
                )
        return self

    @property
    def explicit(self) -> frozenset[str]:
        """Names of the parameters that were given: whatever is found must have their values."""
        return self._explicit

    def given(self, names: Collection[str]) -> Self:
        """Record the names of the parameters that were given, not filled in; return self."""
        self._explicit = frozenset(self.model_dump(include={*names}, exclude_none=True))
        return self

    @property
    def seeds_taken(self) -> int:
        """Number of seeds that the runs take, from `seed` on."""
        return 1

    @property
    def scale(self) -> str:
        """The preset, with its default filled in."""
        return self.preset or _scale_of(self.dataset)

    @property
    def real_dataset(self) -> str:
        """The name by which real images are loaded."""
        return self.dataset

    def condensation(self, method: str | None = None) -> dict[str, Any]:
        """Return arguments for `workflow.get_condensed`.

        For another method than the run's, only those that it has.
        """
        if method is None or method == self.method:
            given = self.model_dump(include={"nested", "start"}, exclude_none=True)
            return self._with_explicit({**self.packing(), "time_budget": self.time_budget, **given})
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
        return self._with_explicit(
            {
                name: value
                for name, value in other.condensation().items()
                if name in known | {"time_budget"}
            }
        )

    def _with_explicit(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return arguments of `get_condensed`, including those that a found set must match."""
        values = {"size": self.size, **arguments}
        names = sorted(self.explicit - {"time_budget"})
        told = {name: values[name] for name in names if name in values}
        return {**arguments, "explicit": told} if told else arguments

    def _settings_of(self, method: str) -> set[str]:
        """Return the names of a condensation method's settings; they are the same for all sizes."""
        return {*CONDENSATIONS[method].settings_for(self.scale, self.size or 32, 1, {}).record()}

    def packing(self) -> dict[str, Any]:
        """Return arguments for `start_set`."""
        networks = {"model", "width"} & self._settings_of(self.method)  # KIP has neither
        names = {"method", "ipc", "factor", "seed", "precision", *STEPS, *networks}
        return {"preset": self.scale, **self.model_dump(include=names, exclude_none=True)}

    def training(self, size: int) -> dict[str, Any]:
        """Return arguments for `record`, `evaluate_many`, `study.run` on images of side `size`."""
        scale, model = SCALES[self.scale], self.model or default_model(size)
        return {
            "epochs": self.epochs or scale.epochs,
            "protocol": self.protocol,
            "augmentation": self.augmentation,
            "model": model,
            "width": self.width or (scale.width if model == "convnet" else None),
            "batch_size": scale.batch_size,
            "precision": self.precision,
        }

    @property
    def trains_as_preset(self) -> bool:
        """Whether no parameter changes how the preset trains networks."""
        names = {"epochs", "protocol", "augmentation", "model", "width", "precision"}
        return not self.model_dump(include=names, exclude_defaults=True)

    def recording(self, size: int) -> dict[str, Any]:
        """Return arguments for `record` and `record_many`: those of training except the epochs."""
        told = {RECORDED[name] for name in self.explicit if name in RECORDED}
        return {
            **self.training(size),
            "epochs": self.epochs or SCALES[self.scale].recorded,
            **({"explicit": sorted(told)} if told else {}),
        }
