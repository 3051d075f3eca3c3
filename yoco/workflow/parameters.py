"""The typed parameters of every notebook, declared once for notebooks and command line."""

import ast
import contextlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar, Optional

from pydantic import Field, ValidationError

from yoco.condense.methods import METHODS as CONDENSATIONS
from yoco.utils import checks
from yoco.workflow import notebooks
from yoco.workflow import parameter_types as types
from yoco.workflow.options import Described
from yoco.workflow.shared_parameters import Parameters
from yoco.workflow.study_parameters import Ablations, Noise, Pruning


class Condensation(Parameters):
    """A set from its start to its result, beside the other methods."""

    shown: ClassVar[tuple[str, ...]] = (
        "dataset",
        "method",
        "ipc",
        "preset",
        "time_budget",
        "seeds",
    )

    seeds: types.Count = Field(1, description="networks trained on the start, and on the result")
    compare: types.Filled[types.Condensers] = types.all_of(
        "condensation methods compared", lambda: CONDENSATIONS
    )
    compare_seconds: types.Seconds = Field(
        4.0,
        gt=0,
        description="seconds to condense by each method that has no set in the run or the zoo",
    )
    compare_seeds: types.Count = Field(
        1, description="networks trained on the start, and on the result, of each compared method"
    )

    @property
    def seeds_taken(self) -> int:
        return max(self.seeds, self.compare_seeds)


class Scores(Parameters):
    """What the scores say about a set."""

    shown: ClassVar[tuple[str, ...]] = ("dataset", "seed", "top_k", "within")

    dataset: types.DatasetOrZoo = Field(
        "zoo:cifar10-idc-ipc10", description="as in 01, or zoo:NAME for a set that ships with yoco"
    )
    top_k: Optional[types.Count] = Field(
        None, description="number of epochs that LBPE averages (none: the paper's)"
    )
    within: Optional[types.Count] = Field(
        None, description="LBPE chooses among this many first epochs (none: the paper's)"
    )

    def recording(self, size: int) -> dict[str, Any]:
        """Return arguments for `record`: those of training, and what LBPE will need."""
        return {
            **super().recording(size),
            "top_k": self.top_k,
            "windows": None if self.within is None else [self.within],
        }


class Balance(Scores):
    """What each rule does to the classes."""

    shown: ClassVar[tuple[str, ...]] = ("dataset", "seed", "ipc_to", "run_dir")

    ipc_to: types.DifferentCounts = Field([1, 2, 5], description="budgets, IPC_T")


class Gallery(Scores):
    """Every figure."""

    shown: ClassVar[tuple[str, ...]] = ("dataset", "seed", "budget", "run_dir")

    budget: types.Count = Field(1, description="IPC_T in the figures about pruning")


NOTEBOOKS: dict[str, type[Parameters]] = {
    "01_condensation": Condensation,
    "02_scores": Scores,
    "03_class_balance": Balance,
    "04_pruning": Pruning,
    "05_ablations": Ablations,
    "06_noise": Noise,
    "07_gallery": Gallery,
}


TAG = "parameters"  # of the cell that papermill sets
MARK = "# Parameters"  # the beginning of cells that set parameters


def validated(
    notebook: str, values: Mapping[str, Any], explicit: Collection[str] | None = None
) -> Parameters:
    """Return the parameters of a notebook ("01_condensation") from `values`.

    The others take their defaults. explicit: those that were given, not filled in (None: all of
    `values`). Raises a ValueError that names every wrong parameter, what came and what is allowed.
    """
    model = NOTEBOOKS[checks.one_of("notebook", notebook, NOTEBOOKS)]
    for name in values:
        checks.one_of("parameter", name, model.model_fields)
    try:
        return model(**values).given(values if explicit is None else explicit)
    except ValidationError as error:
        raise ValueError(
            f"parameters of {notebook}: {'; '.join(map(_wrong, error.errors()))}"
        ) from None


def typed(notebook: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the values that a notebook takes, checked as by `validated`."""
    own = {name: values[name] for name in NOTEBOOKS[notebook].model_fields if name in values}
    return validated(notebook, own).model_dump(include=set(own))


def _wrong(error: Mapping[str, Any]) -> str:
    """Describe one of pydantic's errors: the parameter, what came and what is allowed.

    Errors of our own checks are passed on unchanged.
    """
    text = str(error["ctx"]["error"]) if error["type"] == "value_error" else error["msg"]
    place = ".".join(map(str, error["loc"]))
    return (
        text
        if not place or text.startswith(f"{error['loc'][0]}=")
        else (f"{place}={error['input']!r}: {text}")
    )


def check(notebook: str, namespace: Mapping[str, Any]) -> Parameters:
    """Return the parameters of the running notebook from its globals, checked before any work.

    A notebook's cell shows the parameters that matter most (`shown`). The others are taken from
    that cell too if a reader adds them, and from the one into which papermill writes its `-p`
    values; both begin with "# Parameters". Papermill only warns about a misspelt name; here it is
    an error.

    Args:
        notebook: its name.
        namespace: its globals. Without IPython's `In`, every known name in it is a parameter.

    Raises:
        ValueError: as `validated`, and if a shown parameter is missing.
    """
    model = NOTEBOOKS[checks.one_of("notebook", notebook, NOTEBOOKS)]
    missing = [name for name in model.shown if name not in namespace]
    if missing:
        raise ValueError(f"parameter {', '.join(missing)} is not set in the cell tagged parameters")
    if "In" not in namespace:
        return validated(notebook, {n: namespace[n] for n in model.model_fields if n in namespace})
    # of a cell that was edited and run again, the last run
    cells = {cell.partition("\n")[0]: cell for cell in namespace["In"] if cell.startswith(MARK)}
    names = dict.fromkeys([*model.shown, *(n for cell in cells.values() for n in assigned(cell))])
    values = {name: namespace[name] for name in names}
    edited = {n for n, f in model.model_fields.items() if n in values and values[n] != f.default}
    return validated(notebook, values, {*edited, *assigned(cells.get(MARK, ""))})


def assigned(source: str) -> dict[str, ast.expr | None]:
    """Return what the top level of a cell assigns, by name; IPython's commands are skipped."""
    plain = (line for line in source.splitlines() if not line.lstrip().startswith(("%", "!")))
    return {
        target.id: node.value
        for node in ast.parse("\n".join(plain)).body
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }


def of_cell(path: Path) -> dict[str, Any]:
    """Return the values in a notebook's cell of parameters, except those that are computed.

    Raises ValueError if the file is no notebook, or the cell is not Python.
    """
    cells = notebooks.read(path)["cells"]
    tagged = (cell["source"] for cell in cells if TAG in cell["metadata"].get("tags", ()))
    values = {}
    try:
        given = assigned("".join(next(tagged, "")))
    except SyntaxError as error:
        raise ValueError(f"{path}: its cell of parameters is not Python: {error}") from error
    for name, value in given.items():
        with contextlib.suppress(ValueError):
            values[name] = ast.literal_eval(value)  # type: ignore[arg-type]
    return values


def described() -> dict[str, list[Described]]:
    """Return the parameters of every notebook for `--help`, notebook cells and documents."""
    return {
        name: [types.described(*item) for item in model.model_fields.items()]
        for name, model in NOTEBOOKS.items()
    }
