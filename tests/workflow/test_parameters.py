import pytest

from yoco.condense import METHODS as CONDENSATIONS
from yoco.prune import METHODS, compared
from yoco.workflow import parameters


def namespace(notebook="04_pruning", injected="", **values):
    """The globals of a notebook whose parameter cell sets `values` besides its own."""
    model = parameters.NOTEBOOKS[notebook]
    named = {name: model.model_fields[name].default for name in model.shown} | values
    cell = "\n".join(["# Parameters that matter", *(f"{name} = ..." for name in named)])
    return {**named, "In": ["", cell, injected, "check(...)"]}


def test_defaults_are_valid_and_scale_follows_the_dataset():
    for name in parameters.NOTEBOOKS:
        parameters.check(name, namespace(name))
    assert parameters.validated("01_condensation", {}).scale == "smoke"
    assert parameters.validated("01_condensation", {"dataset": "cifar10"}).scale == "laptop"
    assert (
        parameters.validated("01_condensation", {"dataset": "cifar10", "preset": "paper"}).training(
            32
        )["epochs"]
        == 1000
    )
    assert parameters.validated("01_condensation", {"dataset": "imagenet10"}).training(224) == {
        "epochs": 200,
        "protocol": "even",
        "augmentation": "dsa",
        "model": "resnet10ap",
        "width": None,
        "batch_size": 64,
        "precision": "auto",
    }


def test_a_misspelt_papermill_parameter_gets_a_suggestion():
    injected = "# Parameters\nipcto = [1]\nseed = 3\n"
    with pytest.raises(
        ValueError,
        match="parameter='ipcto' is unknown .did you mean 'ipc_to'.*allowed: dataset, root",
    ):
        parameters.check("04_pruning", namespace(injected=injected, ipcto=[1], seed=3))


def test_other_names_of_a_session_are_none_of_our_business():
    session = {**namespace(), "my_own_variable": 1, "width": "a variable, not the parameter"}
    assert parameters.check("04_pruning", session).width is None
    session["In"] += ["# Parameters that matter\nwidht = 8", "# Parameters that matter\nwidth = 8"]
    session["width"] = 8  # the misspelt cell was corrected and run again
    assert parameters.check("04_pruning", session).width == 8
    assert (
        parameters.check(
            "04_pruning", {**session, "In": ["", "# Parameters\nseed = 3"], "seed": 3}
        ).seed
        == 3
    )


def test_without_a_session_every_known_name_is_a_parameter():
    names = namespace(width=8)
    del names["In"]
    assert parameters.check("04_pruning", names).width == 8


@pytest.mark.parametrize(
    "values, match",
    [
        ({"seed": "abc"}, "seed='abc': Input should be a valid integer"),
        ({"ipc": 0}, "ipc=0: Input should be greater than or equal to 1"),
        ({"model": "resnet10"}, "model='resnet10' has batch norm.*allowed: convnet, resnet10ap"),
        ({"preset": "huge"}, "preset='huge' is unknown; allowed: paper, laptop, smoke"),
        ({"methods": ["yocco"]}, "04_pruning: methods='yocco' is unknown .did you mean 'yoco'"),
        ({"ipc_to": []}, "ipc_to=..: List should have at least 1 item"),
        ({"time_budget": -1}, "time_budget=-1"),
        ({"seed": 1.5, "ipc": None}, "seed=1.5.*ipc=None"),
    ],
)
def test_wrong_values_say_what_is_allowed(values, match):
    with pytest.raises(ValueError, match=match) as error:
        parameters.check("04_pruning", namespace(**values))
    assert "Value error" not in str(error.value)


def test_defaults_with_and_without_the_preset():
    smoke, laptop = (
        parameters.validated("04_pruning", {}),
        parameters.validated("04_pruning", {"dataset": "cifar10", "ipc_to": None}),
    )
    assert (smoke.ipc_to, smoke.dynamics, laptop.ipc_to, laptop.dynamics) == (
        [1, 2],
        2,
        [1, 2, 5],
        3,
    )
    assert smoke.methods == compared() and parameters.validated("05_ablations", {}).compare == list(
        CONDENSATIONS
    )
    told = {row.name: row for row in parameters.described()["04_pruning"]}
    assert told["ipc_to"] == ("ipc_to", "whole numbers", "1, 2, 5; 1, 2 in smoke", "budgets, IPC_T")
    assert told["methods"].default == "all" and told["methods"].meaning == (
        f"pruning methods; allowed: {', '.join(METHODS)}"
    )
    assert all(row.meaning and row.type for rows in parameters.described().values() for row in rows)


def test_command_line_text_becomes_typed():
    chosen = parameters.validated(
        "04_pruning",
        {"ipc_to": "1, 2,5", "seed": "3", "methods": "yoco,random", "time_budget": "1.5"},
    )
    assert (chosen.ipc_to, chosen.seed, chosen.methods, chosen.time_budget) == (
        [1, 2, 5],
        3,
        ["yoco", "random"],
        1.5,
    )
    assert parameters.validated("04_pruning", {"ipc_to": 2}).ipc_to == [2]
    nested = [
        parameters.validated("01_condensation", {"nested": given}).nested
        for given in ("True", True, "1, 2", 1, "1", None)
    ]
    assert nested == [True, True, [1, 2], [1], [1], None] and nested[3] is not True


def test_epochs_at_each_budget():
    chosen = parameters.validated(
        "04_pruning",
        {"epochs": "7", "epochs_to": "1000,300", "ipc_to": "1,5", "seed": 2, "seeds": 2},
    )
    schedule = chosen.schedule(32)
    assert (
        schedule["epochs"] == {1: 1000, 5: 300}
        and list(schedule["seeds"]) == [2, 3]
        and chosen.recording(32)["epochs"] == 7
    )
    assert parameters.validated("04_pruning", {"epochs": 7}).schedule(32)["epochs"] == 7
    with pytest.raises(ValueError, match="epochs_to must hold as many numbers as ipc_to, 2, got 1"):
        parameters.validated("04_pruning", {"epochs_to": [4]})
    assert parameters.validated("04_pruning", {"also": ""}).also == []


def test_settings_for_another_method_are_those_it_has():
    chosen = parameters.validated(
        "05_ablations", {"outer_loops": 3, "factor": 4, "width": 8, "time_budget": 5, "ipc": 2}
    )
    common = {"preset": "smoke", "ipc": 2, "seed": 0, "precision": "auto", "time_budget": 5}
    own = chosen.condensation()
    assert own.pop("explicit") == {"factor": 4, "ipc": 2, "outer_loops": 3, "width": 8}
    assert own.pop("ipc_to") == [1]
    assert own == {
        **common,
        "method": "idc",
        "factor": 4,
        "outer_loops": 3,
        "width": 8,
    }
    other = chosen.condensation("dsa")
    assert other.pop("explicit") == {"ipc": 2, "outer_loops": 3, "width": 8}
    assert other == {**common, "method": "dsa", "outer_loops": 3, "width": 8}
    fast = parameters.validated(
        "01_condensation", {"method": "ncfm", "pool_epochs": 2, "iterations": 3, "nested": "1,2"}
    )
    assert (
        fast.condensation()["nested"] == [1, 2]
        and "nested" not in fast.condensation("idc")
        and "nested" not in fast.packing()
    )
    assert (
        fast.packing()["pool_epochs"] == 2
        and "pool_epochs" not in fast.condensation("mtt")
        and fast.condensation("kip")["iterations"] == 3
    )
    plain = lambda of: {k: v for k, v in chosen.condensation(of).items() if k != "explicit"}
    assert plain("mtt") == {**common, "method": "mtt", "width": 8}
    assert plain("kip") == {**common, "method": "kip"}


def test_steps_of_other_methods_are_named_at_once():
    for given, said in (
        ({"iterations": 5}, "iterations is a setting of mtt, kip, ncfm; method='idc' does not"),
        ({"method": "kip", "inner_loops": 5}, "inner_loops is a setting of idc, dream, dsa; meth"),
        ({"method": "mtt", "pool_epochs": 5}, "pool_epochs is a setting of ncfm; method='mtt'"),
    ):
        with pytest.raises(ValueError, match=said):
            parameters.validated("01_condensation", {"dataset": "digits", **given})


def test_a_name_is_suggested_whatever_its_case():
    for given, near in (({"dataset": "CIFAR10"}, "cifar10"), ({"method": "DREAM"}, "dream")):
        with pytest.raises(ValueError, match=f"did you mean '{near}'"):
            parameters.validated("01_condensation", given)


def test_early_dynamics_hold_enough_epochs():
    chosen = parameters.validated(
        "05_ablations", {"top_k": "2", "within": "60,300", "epochs": 1000}
    )
    early = chosen.early(32, "clean")
    assert (early["until"], early["top_k"], early["windows"], early["record_on"]) == (
        300,
        10,
        [10, 50, 60, 100, 200, 300],
        "clean",
    )
    assert parameters.validated("05_ablations", {"epochs": 20}).early(32)["until"] == 20


def test_a_parameter_that_was_deleted_is_missed():
    values = namespace()
    del values["seeds"]
    with pytest.raises(ValueError, match="parameter seeds is not set"):
        parameters.check("04_pruning", values)


def test_unknown_notebook():
    with pytest.raises(ValueError, match="notebook='07' is unknown"):
        parameters.validated("07", {})


def test_every_method_has_settings_at_every_scale():
    for preset in ("paper", "laptop", "smoke"):
        for method in ("idc", "dream", "dsa", "mtt", "kip", "ncfm"):
            chosen = parameters.validated("01_condensation", {"method": method, "preset": preset})
            assert chosen.condensation()["method"] == method
