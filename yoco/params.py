"""The parameters of every notebook, typed, once: read by the notebooks and by the command line."""

import ast
from collections.abc import Mapping
from typing import Annotated, Any, Optional

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from yoco import checks
from yoco.prune import METHODS


def _split(value: Any) -> Any:
    """"1,2,5" from a command line, or a single value, as a list."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, (int, float)) else value


Count = Annotated[int, Field(ge=1)]
Counts = Annotated[list[Count], Field(min_length=1), BeforeValidator(_split)]
Names = Annotated[list[str], Field(min_length=1), BeforeValidator(_split)]


class Parameters(BaseModel):
    """What all notebooks take."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=False)

    dataset: str = Field("digits", description="digits, cifar10, cifar100, imagenet10 or folder:PATH")
    root: Optional[str] = Field(None, description="where the dataset is, or is downloaded to")
    run_dir: Optional[str] = Field(None, description="the run's folder, in place of runs/<dataset>")
    seed: int = Field(0, ge=0, lt=2**32, description="seed of everything that is drawn")
    size: Optional[Count] = Field(None, description="resize the real images to this side")
    ipc: Count = Field(10, description="images per class of the condensed set, IPC_F")
    factor: Count = Field(2, description="cells along a side of a condensed image")
    preset: str = Field("laptop", description="condensation settings: paper, laptop or smoke")
    outer_loops: Optional[Count] = Field(None, description="fresh networks, in place of the preset's")
    inner_loops: Optional[Count] = Field(None, description="image steps with each network, in place of the preset's")
    width: Optional[Count] = Field(None, description="channels of the ConvNet, in place of the paper's 128")
    time_budget: Optional[float] = Field(None, ge=0, description="seconds after which condensing stops; run again to go on")
    precision: str = Field("auto", description="auto, float32 or bfloat16")

    def condensation(self) -> dict[str, Any]:
        """Arguments for `condense`."""
        chosen = {name: getattr(self, name) for name in ("ipc", "factor", "preset", "seed", "time_budget", "precision")}
        settings = {name: getattr(self, name) for name in ("outer_loops", "inner_loops", "width")}
        return {**chosen, **{name: value for name, value in settings.items() if value is not None}}

    def training(self) -> dict[str, Any]:
        """Arguments for `record`, `evaluate` and `study.run`."""
        return {"width": self.width, "precision": self.precision}


class Condensation(Parameters):
    """01_condensation"""

    epochs: Count = Field(100, description="of each training that compares start and result")
    seeds: Count = Field(3, description="networks trained on the start, and on the result")


class Scores(Parameters):
    """02_scores"""

    dataset: str = Field("zoo:cifar10-idc-ipc10", description="as in 01, or zoo:NAME for a set that ships with yoco")
    epochs: Count = Field(1000, description="of the training run that is recorded, where none is found")
    top_k: Optional[Count] = Field(None, description="epochs that LBPE averages, in place of the paper's")
    within: Optional[Count] = Field(None, description="first epochs that LBPE chooses among, in place of the paper's")


class Balance(Scores):
    """03_class_balance"""

    ipc_to: Counts = Field([1, 2, 5], description="budgets, IPC_T")


class Pruning(Parameters):
    """04_pruning"""

    epochs: Count = Field(100, description="of each training on a pruned set")
    dynamics_epochs: Count = Field(100, description="of each recorded training run")
    dynamics: Count = Field(3, description="training runs recorded")
    seeds: Count = Field(1, description="networks trained on each pruned set")
    ipc_to: Counts = Field([1, 2, 5], description="budgets, IPC_T")
    methods: Names = Field(list(METHODS), description="pruning methods")


NOTEBOOKS: dict[str, type[Parameters]] = {model.__doc__: model for model in (Condensation, Scores, Balance, Pruning)}


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
        wrong = [f"{'.'.join(map(str, e['loc']))}={e['input']!r}: {e['msg']}" for e in error.errors()]
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
        rows.append(f"| `{name}` | {type_name(field.annotation)} | {default} | {field.description} |")
    return "\n".join(rows)


def type_name(annotation: Any) -> str:
    """A short name for the type of a parameter."""
    text = str(annotation).replace("typing.", "")
    for word, short in (("list[str", "list of names"), ("list[", "list of whole numbers"), ("int", "whole number"), ("float", "number"), ("str", "text")):
        if word in text:
            return short + (" or none" if "Optional" in text or "None" in text else "")
    return text
