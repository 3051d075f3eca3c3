"""The types of the notebooks' parameters: what each may be, and how text from a command line becomes it."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from yoco import checks, damage, zoo
from yoco.condense import METHODS as CONDENSATIONS
from yoco.data import LEAST_SIZE, MOST_SIZE, check_name
from yoco.models import check_matchable, factory
from yoco.prune import METHODS
from yoco.runs import ZOO
from yoco.train import PROTOCOLS


def _zoo_name(name: str) -> str:
    return ZOO + checks.one_of("zoo set", name.removeprefix(ZOO), zoo.names())


def _model_name(name: str) -> str:
    factory(name)
    return name


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


Seed = Annotated[int, Field(ge=0, le=checks.MOST_SEED), BeforeValidator(_number)]
Count = Annotated[int, Field(ge=1), BeforeValidator(_number)]
Side = Annotated[int, Field(ge=LEAST_SIZE, le=MOST_SIZE), BeforeValidator(_number)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_number)]
Different = AfterValidator(lambda values: checks.different("they", values))  # what stands twice would be trained and counted twice
Dataset = Annotated[str, AfterValidator(check_name)]
DatasetOrZoo = Annotated[str, AfterValidator(lambda name: _zoo_name(name) if name.startswith(ZOO) else check_name(name))]
Start = Annotated[str, AfterValidator(lambda name: _zoo_name(name) if name.startswith(ZOO) else name)]  # else a file
Counts = Annotated[list[Count], Field(min_length=1), BeforeValidator(_split)]
DifferentCounts = Annotated[Counts, Different]
Nested = Annotated[Literal[True] | DifferentCounts, BeforeValidator(_true_or_split)]
MethodName = Annotated[str, AfterValidator(lambda name: checks.one_of("method", name, METHODS))]
Methods = Annotated[list[MethodName], Field(min_length=1), BeforeValidator(_split), Different]
Condenser = Literal[tuple(CONDENSATIONS)]
Condensers = Annotated[list[Condenser], Field(min_length=1), BeforeValidator(_split), Different]
OptionalCondensers = Annotated[list[Condenser], BeforeValidator(_split), Different]
ModelName = Annotated[str, AfterValidator(_model_name)]
DamageKind = Literal[damage.KINDS]
DamageKinds = Annotated[list[DamageKind], Field(min_length=1), BeforeValidator(_split), Different]
Percents = Annotated[list[Annotated[int, Field(ge=1, le=90), BeforeValidator(_number)]], Field(min_length=1), BeforeValidator(_split), Different]
Models = Annotated[list[ModelName], Field(min_length=1), BeforeValidator(_split), Different]
Preset = Literal["paper", "laptop", "smoke"]
Protocol = Literal[tuple(PROTOCOLS)]
Precision = Literal["auto", "float32", "bfloat16"]
Model = Annotated[str, AfterValidator(check_matchable)]  # condensing uses it as well


def type_name(annotation: Any) -> str:
    """A short name for the type of a parameter."""
    text = str(annotation).replace("typing.", "")
    words = {
        "list[Annotated[str": "names", "list[Literal": "names", "list[": "whole numbers", "Literal": "name", "int": "whole number",
        "float": "number",
    }
    for word, short in words.items():
        if word in text:
            return short
    return "text"
