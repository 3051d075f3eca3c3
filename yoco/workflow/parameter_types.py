"""The types of the notebooks' parameters.

They say what is allowed, how text from a command line is converted, and what readers are told.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional, TypeVar, cast, get_args

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo
from pydantic.fields import FieldInfo

from yoco import zoo
from yoco.condense.methods import METHODS as CONDENSATIONS
from yoco.condense.presets import SCALES
from yoco.data.datasets import LEAST_SIZE, MOST_SIZE, check_name
from yoco.experiments import corruption
from yoco.models import MATCHABLE, MODELS, check_matchable, named
from yoco.prune.methods import METHODS
from yoco.training.protocol import AUGMENTATIONS, RECORDED
from yoco.utils import checks, device
from yoco.workflow.options import Described


@dataclass(frozen=True, eq=False)  # hashed by identity: `Optional` hashes the types inside
class Told:
    """What readers are told about a type: a word for it, and the names that it allows, if any."""

    word: str
    allowed: Iterable[str] = ()


def _zoo_name(name: str) -> str:
    return zoo.PREFIX + checks.one_of("zoo set", name.removeprefix(zoo.PREFIX), zoo.names())


def _split(value: Any) -> Any:
    """Return a list: of "1,2,5" from a command line, or of a single value."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, (int, float)) else value


def _true_or_split(value: Any) -> Any:
    """Return True, or "true" from a command line, as True; anything else as a list of numbers."""
    if value is True or str(value).strip().lower() == "true":
        return True
    numbers = _split(value)
    if not isinstance(numbers, list) or not all(str(number).isdigit() for number in numbers):
        raise ValueError(f"must be true or whole numbers such as 1,2,5, got {checks.shown(value)}")
    return numbers


def _number(value: Any) -> Any:
    """Return a number, or its text; unlike pydantic, reject True and bytes."""
    value = checks.plain(value)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"must be a number, got {checks.shown(value)}")
    return value


def _among(allowed: Iterable[str]) -> AfterValidator:
    """Check for one of some names, including those registered later."""

    def check(value: str, info: ValidationInfo) -> str:
        return checks.one_of(str(info.field_name), value, allowed)

    return AfterValidator(check)


# duplicates would be trained and counted twice
_different = partial(checks.different, "they")
Kind = TypeVar("Kind")
AnyNumber = Annotated[list[Kind], BeforeValidator(_split), AfterValidator(_different)]
# at least one; said of the list itself, which makes pydantic's message clearer
Several = Annotated[
    list[Kind], Field(min_length=1), BeforeValidator(_split), AfterValidator(_different)
]
if TYPE_CHECKING:
    Filled = Annotated[Kind, "what is not given is filled in before it is read"]
else:
    Filled = Optional  # pydantic sees the default, None, too

PATH = "package.module:name"  # of the user's own
Seed = Annotated[
    int, Field(ge=0, le=checks.MOST_SEED), BeforeValidator(_number), Told("whole number")
]
Count = Annotated[int, Field(ge=1), BeforeValidator(_number), Told("whole number")]
Side = Annotated[
    int, Field(ge=LEAST_SIZE, le=MOST_SIZE), BeforeValidator(_number), Told("whole number")
]
Percent = Annotated[int, Field(ge=1, le=90), BeforeValidator(_number)]
Seconds = Annotated[
    float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_number), Told("number")
]
Counts = Annotated[list[Count], Field(min_length=1), BeforeValidator(_split), Told("whole numbers")]
DifferentCounts = Annotated[Counts, AfterValidator(_different)]
Percents = Annotated[Several[Percent], Told("whole numbers")]
Nested = Annotated[
    Literal[True] | DifferentCounts, BeforeValidator(_true_or_split), Told("whole numbers")
]
Dataset = Annotated[str, AfterValidator(check_name)]
DatasetOrZoo = Annotated[
    str,
    AfterValidator(
        lambda name: _zoo_name(name) if name.startswith(zoo.PREFIX) else check_name(name)
    ),
]
# else a file
SetName = Annotated[
    str,
    AfterValidator(lambda name: _zoo_name(name) if name.startswith(zoo.PREFIX) else name),
]
Models = Annotated[Several[Annotated[str, AfterValidator(named)]], Told("names", (*MODELS, PATH))]
Condenser = Annotated[str, _among(CONDENSATIONS), Told("name", CONDENSATIONS)]
Condensers = Annotated[Several[Condenser], Told("names", CONDENSATIONS)]
OptionalCondensers = Annotated[AnyNumber[Condenser], Told("names", CONDENSATIONS)]
Methods = Annotated[Several[Annotated[str, _among(METHODS)]], Told("names", METHODS)]
Damage = Annotated[str, _among(corruption.KINDS)]
DamageKinds = Annotated[Several[Damage], Told("names", corruption.KINDS)]
OptionalDamageKinds = Annotated[AnyNumber[Damage], Told("names", corruption.KINDS)]
Preset = Annotated[str, _among(SCALES), Told("name", SCALES)]
Protocol = Annotated[str, _among(RECORDED), Told("name", RECORDED)]
Augmentation = Annotated[str, _among(AUGMENTATIONS), Told("name", AUGMENTATIONS)]
Precision = Annotated[str, _among(device.PRECISIONS), Told("name", device.PRECISIONS)]
# condensing uses it as well
Model = Annotated[str, AfterValidator(check_matchable), Told("name", (*MATCHABLE, PATH))]


def by_preset(meaning: str, *, smoke: Any, otherwise: Any) -> Any:
    """Declare a parameter whose default depends on the preset."""
    default = f"{_shown(otherwise)}; {_shown(smoke)} in smoke"
    extra: Any = {"fill": lambda small: smoke if small else otherwise, "default": default}
    return Field(None, description=meaning, json_schema_extra=extra)


def all_of(meaning: str, names: Callable[[], Iterable[str]]) -> Any:
    """Declare a parameter whose default is all of some names, including those registered later."""
    extra: Any = {"fill": lambda small: list(names()), "default": "all"}
    return Field(None, description=meaning, json_schema_extra=extra)


def filled(field: FieldInfo) -> dict[str, Any]:
    """Return how a default is filled in, if it is.

    "fill" is the function from "the preset is smoke" to the default, "default" its description.
    """
    return cast(dict[str, Any], field.json_schema_extra or {})


def described(name: str, field: FieldInfo) -> Described:
    """Return a parameter as readers see it; without a word for its type, it is text."""
    inside = (get_args(part)[1:] for part in get_args(field.annotation))  # Optional[Annotated[...]]
    told = (part for part in chain(field.metadata, *inside) if isinstance(part, Told))
    kind = next(told, Told("text"))
    default = filled(field).get("default") or _shown(field.default)
    allowed = f"; allowed: {', '.join(kind.allowed)}" if kind.allowed else ""
    return Described(name, kind.word, default, f"{field.description}{allowed}")


def _shown(value: Any) -> str:
    return (
        ", ".join(map(str, value))
        if isinstance(value, list)
        else "none"
        if value is None
        else str(value)
    )
