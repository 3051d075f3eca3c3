"""Generated parameters of every notebook: valid ones pass unchanged.

Invalid ones are named, with what is allowed.
"""

import re
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.properties.nasty import INF, NAN
from tests.workflow.test_parameters import namespace
from yoco.condense import METHODS as CONDENSATIONS
from yoco.condense import presets
from yoco.experiments import corruption
from yoco.models import MATCHABLE, MODELS
from yoco.prune import METHODS
from yoco.workflow import parameters

FIELDS = [
    (notebook, name)
    for notebook, model in parameters.NOTEBOOKS.items()
    for name in model.model_fields
]
NAMED = {
    "method": CONDENSATIONS,
    "compare": CONDENSATIONS,
    "also": CONDENSATIONS,
    "methods": METHODS,
    "networks": MODELS,
    "model": MATCHABLE,
}
NAMED |= {"condensed_kinds": corruption.KINDS, "kinds": corruption.KINDS}
NAMED |= {
    "preset": presets.SCALES,
    "precision": ("auto", "float32", "bfloat16"),
    "protocol": ("even", "paper"),
}
NAMED |= {"augmentation": ("dsa", "imagenet")}
LISTS = (
    "compare",
    "also",
    "methods",
    "networks",
    "ipc_to",
    "epochs_to",
    "top_k",
    "within",
    "trained_to",
    "rates",
    "image_rates",
    "condensed_rates",
    "condensed_kinds",
    "kinds",
)
PERCENTS = ("rates", "image_rates", "condensed_rates")  # 1..90
TEXT = ("dataset", "real", "root", "run_dir", "set_path", "start")
SECONDS = ("time_budget", "compare_seconds")
NO_NUMBERS = [True, False, "many", "", NAN, INF, -INF, "nan", "inf", [], {}, b"1", 2j, object()]
COUNTS_OUT_OF_RANGE = [0, -1, 1.5, "0", "-3", "1.5", -(10**30)]


def is_list(notebook: str, name: str) -> bool:
    return (
        "list[" in str(parameters.NOTEBOOKS[notebook].model_fields[name].annotation)
        and name in LISTS
    )


def wrong_values(notebook: str, name: str) -> list:
    """Values that the parameter must reject."""
    if name in TEXT:
        bad = [1, True, 1.5, [], ["digits"], {}]
        return bad + (
            ["digitz", "", "folder:PATH", "zoo:", "zoo:nothing", None]
            if name == "dataset"
            else ["zoo:nothing"]
            if name == "start"
            else []
        )
    if name in NAMED:
        bad = ["nothing", 1, True, NAN, {}]
        return bad + (
            [["nothing"], [None], [[]], [next(iter(NAMED[name]))] * 2]
            if name in LISTS
            else [" ", [], [*NAMED[name]]]
        )
    if name in SECONDS:
        return [*NO_NUMBERS, -0.5, "-1", -(10**30)]
    if name == "nested":
        return [
            False,
            "many",
            "",
            NAN,
            [],
            {},
            b"1",
            2j,
            object(),
            *COUNTS_OUT_OF_RANGE,
            [0],
            [True],
            [1, 1],
            [None],
            ["x"],
            [[1]],
        ]
    bad = (
        [*NO_NUMBERS, *COUNTS_OUT_OF_RANGE]
        if name != "seed"
        else [*NO_NUMBERS, -1, 2**32, "4294967296", 0.5, None]
    )
    if name == "size":
        bad += [1, 7, 4097]
    if name in PERCENTS:
        bad += [91, "100", [5, 5]]
    return bad + (
        [[0], [True], [1, 1.5], [NAN], [None], ["x"], [[1]]]
        if is_list(notebook, name)
        else [[1, 2], [1]]
    )


@pytest.mark.parametrize("notebook, name", FIELDS)
def test_wrong_values_are_named_with_what_is_allowed(notebook, name):
    for value in wrong_values(notebook, name):
        with pytest.raises(ValueError, match=rf"parameters of {notebook}: .*{name}") as error:
            parameters.check(notebook, namespace(notebook, **{name: value}))
        said = str(error.value)
        assert re.search(
            r"should be|should have|must|allowed|valid|required|placeholder|greater|less", said
        ), said
        if name in NAMED and value == "nothing":
            assert all(allowed in said for allowed in NAMED[name]), said


@pytest.mark.parametrize("notebook", parameters.NOTEBOOKS)
def test_equal_budgets_and_methods_are_refused(notebook):
    for name in {"ipc_to", "methods", "compare", "networks", "top_k", "within"} & set(
        parameters.NOTEBOOKS[notebook].model_fields
    ):
        if is_list(notebook, name):
            default = getattr(parameters.validated(notebook, {}), name)
            with pytest.raises(
                ValueError, match=f"{name}=.*must all differ, got {default[0]!r} more than once"
            ):
                parameters.validated(notebook, {name: [*default, default[0]]})


@given(st.sampled_from(FIELDS), st.integers(1, 2**32), st.floats(0, 1e9), st.data())
def test_right_values_come_back_also_from_text(field, number, seconds, data):
    notebook, name = field
    if name in TEXT:
        value = data.draw(
            st.sampled_from(["digits", "cifar10", "folder:~/pictures", "folder:/a b/c"])
        )
    elif name in NAMED:
        value = data.draw(
            st.lists(st.sampled_from([*NAMED[name]]), min_size=1, unique=True)
            if name in LISTS
            else st.sampled_from([*NAMED[name]])
        )
    elif name in SECONDS:
        value = seconds + 1e-3
    elif is_list(notebook, name):
        first = number % 88 + 1 if name in PERCENTS else number
        value = [first, first + 1, first + 2]
    elif name == "nested":
        value = data.draw(st.sampled_from([True, [number, number + 1]]))
    else:
        value = {"size": number % 4089 + 8, "seed": number % 2**31}.get(name, number % 10**6 + 1)
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    for given_value in (value, text):
        # what it must fit
        beside = {
            "epochs_to": {"ipc_to": [1, 2, 3]},
            "trained_to": {"ipc_to": value},
            "iterations": {"method": "kip"},
            "pool_networks": {"method": "ncfm"},
            "pool_epochs": {"method": "ncfm"},
            "outer_loops": {"method": "idc"},
            "inner_loops": {"method": "dream"},
        }.get(name, {})
        assert (
            getattr(
                parameters.check(notebook, namespace(notebook, **beside, **{name: given_value})),
                name,
            )
            == value
        )


@given(st.text(max_size=12), st.sampled_from([*parameters.NOTEBOOKS]))
def test_wrong_names_say_what_is_allowed(name, notebook):
    if name not in parameters.NOTEBOOKS[notebook].model_fields:
        with pytest.raises(
            ValueError, match="parameter=.* is unknown.*allowed: dataset, root, run_dir, seed"
        ):
            parameters.validated(notebook, {name: 1})
    if name not in parameters.NOTEBOOKS:
        with pytest.raises(ValueError, match="notebook=.*allowed: 01_condensation"):
            parameters.validated(name, {})


def test_seeds_that_follow_the_first_are_seeds_as_well():
    last = 2**32 - 1
    assert (
        parameters.validated("04_pruning", {"seed": last, "seeds": 1, "dynamics": 1}).seed == last
    )
    for counts in ({"seeds": 2, "dynamics": 1}, {"seeds": 1, "dynamics": 2}):
        with pytest.raises(ValueError, match="seed must be at most 4294967295 minus the 1 runs"):
            parameters.validated("04_pruning", {"seed": last, **counts})


def test_every_type_of_parameter_is_covered_here():
    known = {*TEXT, *NAMED, *SECONDS}
    for notebook, model in parameters.NOTEBOOKS.items():
        for name in set(model.model_fields) - known:
            annotation = model.model_fields[name].annotation
            assert (
                int in {annotation, *get_args(annotation)}
                or is_list(notebook, name)
                or "int" in str(annotation)
            ), name


def test_zoo_sets_suit_the_notebooks_without_real_images():
    assert (
        parameters.validated("02_scores", {"dataset": "zoo:cifar10-idc-ipc10"}).dataset
        == "zoo:cifar10-idc-ipc10"
    )
    with pytest.raises(ValueError, match="zoo set='cifar10-idc-ipc1[01]' is unknown|zoo set"):
        parameters.validated("03_class_balance", {"dataset": "zoo:cifar10-idc-ipc11"})
    for notebook in ("01_condensation", "04_pruning", "05_ablations"):
        with pytest.raises(
            ValueError, match="dataset='zoo:cifar10-idc-ipc10'.*allowed: digits, cifar10"
        ):
            parameters.validated(notebook, {"dataset": "zoo:cifar10-idc-ipc10"})
