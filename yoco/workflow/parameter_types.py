"""The types of the notebooks' parameters: what each may be, how text from a command line becomes it, and what readers are told."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo
from pydantic.fields import FieldInfo

from yoco import zoo
from yoco.condense.methods import METHODS as CONDENSATIONS
from yoco.condense.presets import SCALES
from yoco.data.datasets import LEAST_SIZE, MOST_SIZE, check_name
from yoco.experiments import corruption
from yoco.models import MATCHABLE, MODELS, check_matchable, named
from yoco.prune.methods import METHODS
from yoco.training.network import AUGMENTATIONS, PROTOCOLS
from yoco.utils import checks
from yoco.workflow.options import Described
from yoco.zoo import PREFIX as ZOO


@dataclass(frozen=True, eq=False)
class Told:
    """What readers are told of a type: a word for it, and the names that it allows, if it does allow names."""

    word: str
    allowed: Iterable[str] = ()



def _zoo_name(name: str) -> str:
    return ZOO + checks.one_of("zoo set", name.removeprefix(ZOO), zoo.names())


def _split(value: Any) -> Any:
    """"1,2,5" from a command line, or a single value, as a list."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, (int, float)) else value


def _true_or_split(value: Any) -> Any:
    """True, or "true" from a command line, as True; anything else as a list."""
    return True if value is True or str(value).strip().lower() == "true" else _split(value)


def _number(value: Any) -> Any:
    """A number, or text of one: pydantic takes True for 1, and bytes."""
    value = checks.plain(value)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"must be a number, got {checks.shown(value)}")
    return value


def _name(word: str, allowed: Iterable[str]) -> Any:
    """The type of one of some names, those that are registered by the time it is checked."""

    def check(value: str, info: ValidationInfo) -> str:
        return checks.one_of(info.field_name, value, allowed)

    return Annotated[str, AfterValidator(check), Told(word, allowed)]


def _different(values: list[Any]) -> list[Any]:
    """What stands twice would be trained and counted twice."""
    return checks.different("they", values)


def _names(one: Any, allowed: Iterable[str]) -> Any:
    """The type of a list of different names, at least one."""
    return Annotated[list[one], Field(min_length=1), BeforeValidator(_split), AfterValidator(_different), Told("names", allowed)]


PATH = "package.module:name"  # of the user's own
Text = Annotated[str, Told("text")]
Seed = Annotated[int, Field(ge=0, le=checks.MOST_SEED), BeforeValidator(_number), Told("whole number")]
Count = Annotated[int, Field(ge=1), BeforeValidator(_number), Told("whole number")]
Side = Annotated[int, Field(ge=LEAST_SIZE, le=MOST_SIZE), BeforeValidator(_number), Told("whole number")]
Percent = Annotated[int, Field(ge=1, le=90), BeforeValidator(_number)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_number), Told("number")]
Counts = Annotated[list[Count], Field(min_length=1), BeforeValidator(_split), Told("whole numbers")]
DifferentCounts = Annotated[Counts, AfterValidator(_different)]
Percents = Annotated[list[Percent], Field(min_length=1), BeforeValidator(_split), AfterValidator(_different), Told("whole numbers")]
Nested = Annotated[Literal[True] | DifferentCounts, BeforeValidator(_true_or_split), Told("whole numbers")]
Dataset = Annotated[str, AfterValidator(check_name), Told("text")]
DatasetOrZoo = Annotated[str, AfterValidator(lambda name: _zoo_name(name) if name.startswith(ZOO) else check_name(name)), Told("text")]
Start = Annotated[str, AfterValidator(lambda name: _zoo_name(name) if name.startswith(ZOO) else name), Told("text")]  # else a file
Condenser = _name("name", CONDENSATIONS)
Condensers = _names(Condenser, CONDENSATIONS)
OptionalCondensers = Annotated[list[Condenser], BeforeValidator(_split), AfterValidator(_different), Told("names", CONDENSATIONS)]
Methods = _names(_name("name", METHODS), METHODS)
DamageKinds = _names(_name("name", corruption.KINDS), corruption.KINDS)
Preset = _name("name", SCALES)
Protocol = _name("name", PROTOCOLS)
Augmentation = _name("name", AUGMENTATIONS)
Precision = _name("name", ("auto", "float32", "bfloat16"))
Model = Annotated[str, AfterValidator(check_matchable), Told("name", (*MATCHABLE, PATH))]  # condensing uses it as well
Models = _names(Annotated[str, AfterValidator(named)], (*MODELS, PATH))


def by_preset(meaning: str, *, smoke: Any, otherwise: Any) -> Any:
    """A parameter whose default is the preset's to decide."""
    default = f"{_shown(otherwise)}; {_shown(smoke)} in smoke"
    return Field(None, description=meaning, json_schema_extra={"fill": lambda small: smoke if small else otherwise, "default": default})


def all_of(meaning: str, names: Callable[[], Iterable[str]]) -> Any:
    """A parameter that is all of some names by default, those registered later as well."""
    return Field(None, description=meaning, json_schema_extra={"fill": lambda small: list(names()), "default": "all"})


def fill(field: FieldInfo) -> Callable[[bool], Any] | None:
    """What gives the value of a parameter that none is given for, from whether the preset is smoke."""
    return (field.json_schema_extra or {}).get("fill")


def told(field: FieldInfo) -> Told:
    """What readers are told of a parameter's type."""
    inside = (_told(get_args(part)[1:]) for part in get_args(field.annotation))  # of Optional[Annotated[...]]
    return _told(field.metadata) or next(filter(None, inside), Told("text"))


def _told(metadata: Iterable[Any]) -> Told | None:
    return next((part for part in metadata if isinstance(part, Told)), None)


def described(name: str, field: FieldInfo) -> Described:
    """A parameter as readers are told of it."""
    kind = told(field)
    default = (field.json_schema_extra or {}).get("default") or _shown(field.default)
    allowed = f"; allowed: {', '.join(kind.allowed)}" if kind.allowed else ""
    return Described(name, kind.word, default, f"{field.description}{allowed}")


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "none" if value is None else str(value)
