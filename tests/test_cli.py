import functools
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import pytest
import torch

from yoco import CondensedSet, cli, condense, data, workflow, zoo
from yoco.condense import kip
from yoco.utils import owned
from yoco.workflow import condensation, options, parameters

FAST = [
    "-p",
    "outer_loops",
    "1",
    "-p",
    "inner_loops",
    "2",
    "-p",
    "width",
    "8",
    "-p",
    "epochs",
    "2",
    "-p",
    "ipc",
    "2",
]
ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def own_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("YOCO_RUNS", str(tmp_path / "runs"))


def test_condense_then_study_without_jupyter(tmp_path, capsys):
    assert (
        cli.main(
            [
                "condense",
                *(
                    f"--{word}" if flag == "-p" else word
                    for flag, word in zip(["", *FAST], FAST)
                    if word != "-p"
                ),
            ]
        )
        == 0
    )
    path = tmp_path / "runs/digits/condensed.safetensors"
    made = CondensedSet.load(path)
    assert (
        made.ipc == 2
        and made.info["steps"] == 2
        and not (path.parent / "checkpoint.safetensors").exists()
    )
    assert (
        cli.main(
            [
                "study",
                *FAST,
                "-p",
                "ipc_to",
                "1,2",
                "-p",
                "methods",
                "random,yoco",
                "-p",
                "dynamics",
                "1",
            ]
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert "found condensed.safetensors" in printed and any(
        line.startswith("yoco ") and "." in line for line in printed.splitlines()
    )
    assert (path.parent / "results.csv").is_file() and (
        path.parent / "dynamics.safetensors"
    ).is_file()


def test_ablations_without_jupyter_share_the_study_s_trainings(tmp_path, capsys):
    few = [*FAST, "-p", "ipc_to", "1", "-p", "methods", "yoco", "-p", "dynamics", "1"]
    assert cli.main(["study", *few, "-p", "also", ""]) == 0
    only = [
        "-p",
        "top_k",
        "10",
        "-p",
        "within",
        "100",
        "-p",
        "compare",
        "idc",
        "-p",
        "networks",
        "convnet",
    ]
    assert cli.main(["ablations", *few, *only]) == 0
    run = tmp_path / "runs/digits"
    assert (
        "17 rows in" in capsys.readouterr().out
        and len(pd.read_csv(run / "ablations.csv")) == 2 + 1 + 4 + 2 + 4 + 4
    )
    trained = pd.read_csv(run / "results.csv")
    assert trained.fingerprint.is_unique and len(trained) < 12
    shared = pd.read_csv(run / "table2.csv").merge(
        pd.read_csv(run / "ablations.csv"), on="fingerprint"
    )
    assert len(shared) and (shared.accuracy_x == shared.accuracy_y).all()


@pytest.mark.parametrize(
    "method, factor", [("dream", 2), ("dsa", 1), ("mtt", 1), ("kip", 1), ("ncfm", 2)]
)
def test_condense_by_every_method_and_keep_the_run_s_to_one(
    method, factor, tmp_path, capsys, monkeypatch
):
    # the convolutional kernel takes long, and has its own tests
    monkeypatch.setattr(kip, "AFFORDABLE", 0)
    steps = (
        ["outer_loops", "1", "-p", "inner_loops", "2"]
        if method in ("dream", "dsa")
        else ["iterations", "2"]
    )
    fast = [
        "-p",
        "method",
        method,
        "-p",
        "width",
        "8",
        "-p",
        "ipc",
        "2",
        "-p",
        "size",
        "8",
        "-p",
        *steps,
    ]
    assert cli.main(["condense", *fast]) == 0
    made = CondensedSet.load(tmp_path / "runs/digits/condensed.safetensors")
    assert (made.method, made.factor, made.ipc, made.info["steps"]) == (method, factor, 2, 2)
    folders = {path.name for path in (tmp_path / "runs/digits").iterdir() if path.is_dir()}
    assert folders == {"mtt": {"experts"}, "ncfm": {"networks"}}.get(method, set())
    capsys.readouterr()
    assert cli.main(["condense", *FAST]) == 2 and f"method='{method}'" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["idc", "ncfm"])
def test_condense_further_from_a_set_of_the_zoo_or_a_file(method, tmp_path, capsys, monkeypatch):
    run, named = tmp_path / "runs/digits", "digits-kip-ipc10"
    fast = [
        "-p",
        "method",
        method,
        "-p",
        "width",
        "8",
        "-p",
        "outer_loops" if method == "idc" else "iterations",
        "1",
    ]
    fast += (
        ["-p", "inner_loops", "1"]
        if method == "idc"
        else ["-p", "pool_networks", "1", "-p", "pool_epochs", "1"]
    )
    assert cli.main(["condense", *fast, "-p", "start", f"zoo:{named}"]) == 0
    made, start = CondensedSet.load(run / "condensed.safetensors"), zoo.load(named)
    assert (
        made.info["start"] == start.fingerprint
        and made.factor == start.factor == 1
        and made.method == method
    )
    assert (
        (made.images - start.images).abs().mean()
        < 0.1
        < (made.images - condense.start_set(data.load("digits"), method).images).abs().mean()
    )
    chosen = parameters.validated("01_condensation", {"start": f"zoo:{named}"})
    assert workflow.get_start(chosen, None).fingerprint == start.fingerprint
    # a step that does not condense: the zoo's own set began elsewhere
    elsewhere, digits = tmp_path / "elsewhere", data.load("digits")
    short = {
        "method": method,
        "preset": "smoke",
        "ipc": 10,
        "width": 8,
        "outer_loops" if method == "idc" else "iterations": 1,
    }
    made_now = workflow.get_condensed(
        elsewhere, "digits", lambda: digits, start=f"zoo:{named}", time_budget=0, **short
    )
    assert made_now.info["start"] == start.fingerprint

    monkeypatch.chdir(tmp_path)
    made.save("mine.safetensors")
    with_file = ["condense", *fast, "-p", "start", "mine.safetensors"]
    # the folder's began elsewhere
    assert cli.main(with_file) == 2 and f"start='{made.fingerprint}'" in capsys.readouterr().err
    (run / "condensed.safetensors").unlink()
    assert (
        cli.main(with_file) == 0
        and CondensedSet.load(run / "condensed.safetensors").info["start"] == made.fingerprint
    )


@pytest.mark.parametrize(
    "start, error",
    [
        (
            "zoo:digits-idc",
            (
                "start='zoo:digits-idc': zoo set='digits-idc' is unknown (did you mean "
                "'digits-idc-ipc10'?)"
            ),
        ),
        ("nowhere.safetensors", "nowhere.safetensors"),
        ("zoo:cifar10-idc-ipc10", "start does not fit digits: "),
    ],
)
def test_a_start_that_cannot_be_condensed_further_is_named(start, error, tmp_path, capsys):
    assert cli.main(["condense", *FAST[:-3], "-p", "start", start]) == 2
    assert error in capsys.readouterr().err and not list((tmp_path / "runs").rglob("*.safetensors"))


def test_time_budget_leaves_a_checkpoint_to_go_on_from(tmp_path, capsys):
    fast = [
        part if part != "2" or FAST[i - 1] != "inner_loops" else "4" for i, part in enumerate(FAST)
    ]
    assert cli.main(["condense", *fast, "-p", "time_budget", "0"]) == 0
    run = tmp_path / "runs/digits"
    assert (run / "checkpoint.safetensors").is_file() and not CondensedSet.load(
        run / "condensed.safetensors"
    ).info["finished"]
    assert cli.main(["condense", *fast]) == 0
    assert CondensedSet.load(run / "condensed.safetensors").info["steps"] == 4
    assert "resuming" in capsys.readouterr().out and not (run / "checkpoint.safetensors").exists()


@pytest.mark.parametrize(
    "arguments, error",
    [
        (
            ["condense", "-p", "datset", "digits"],
            ("parameter='datset' is unknown (did you mean 'dataset'?)"),
        ),
        (["condense", "-p", "ipc", "many"], "ipc='many'"),
        (
            ["condense", "-p", "dataset", "mnits"],
            "dataset='mnits' is unknown (did you mean 'mnist'?)",
        ),
        (
            ["condense", "-p", "method", "drem"],
            (
                "method='drem' is unknown (did you mean 'dream'?); allowed: idc, dream, dsa, mtt, "
                "kip, "
                "ncfm"
            ),
        ),
        (
            ["condense", "-p", "method", "mtt", "-p", "outer_loops", "3"],
            "outer_loops is a setting of idc, dream, dsa; method='mtt' does not have it",
        ),
        (
            ["condense", "--datset", "digits"],
            (
                "option='--datset' is unknown (did you mean '--dataset'?); allowed: --fresh, "
                "--dataset, --root, --run-dir"
            ),
        ),
        (
            ["condense", "--data", "digits"],
            "option='--data' is unknown (did you mean '--dataset'?)",
        ),
        (["condense", "--compare", "idc"], "option='--compare' is unknown"),
        (["condense", "--ipc"], "argument --ipc: expected one argument"),
        (["condense", "-p", "ipc"], "argument -p: expected 2 arguments"),
        (
            ["study", "--epochs-to", "1,2,3"],
            ("parameters of 04_pruning: epochs_to must hold as many numbers as ipc_to, 2, got 3"),
        ),
        (["study", "digits"], "unexpected argument 'digits'"),
        (
            ["study", "--methods", "yocco"],
            ("parameters of 04_pruning: methods='yocco' is unknown (did you mean 'yoco'?)"),
        ),
        (["condence"], "command='condence' is unknown (did you mean 'condense'?)"),
        (["study", "--ipc-to", "1", "2"], "'2'; commas separate several values"),
        (["study", "--nested", "foo"], "must be true or whole numbers such as 1,2,5"),
        (
            ["noise", "--dataset", "digits", "--real", "cifar10"],
            "real='cifar10' is for a set of the zoo",
        ),
        (["run", "09"], "notebook='09' is unknown"),
        (["run", "-p", "ipcto", "1"], "parameter='ipcto' is unknown"),
        (["run", "01", "--folder", "nowhere"], "no 01_condensation.ipynb in nowhere"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, error, capsys):
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert error in captured.err and len(captured.err.splitlines()) == 1


def test_without_a_command_the_help_is_shown(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    assert ended.value.code == 0 and "run notebooks with papermill" in capsys.readouterr().out


def test_a_parameter_is_an_option_of_its_name_in_the_order_given():
    given = ["--seed", "1", "-p", "width", "8", "--ipc_to=1,2", "--seed", "2"]
    parsed = cli.parsed(options.plain(["study", *given])).parameters
    assert [(name, value) for name, value in parsed] == [
        ("seed", "1"),
        ("width", "8"),
        ("ipc_to", "1,2"),
        ("seed", "2"),
    ]
    parsed = cli.parsed(options.plain(["sweep", "04", "--root", "a_b", "--dataset", "none"]))
    assert options.values_of(parsed.parameters) == {"root": "a_b", "dataset": None}


def test_help_describes_every_parameter_of_a_command(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    told = {}
    for command in ("run", "condense", "study", "ablations", "noise", "sweep"):
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        told[command] = capsys.readouterr().out
    for command, notebook in {
        "study": "04_pruning",
        "ablations": "05_ablations",
        "noise": "06_noise",
    }.items():
        for row in parameters.described()[notebook]:
            line = (
                rf"{options.option(row.name)} \S+\s+{re.escape(row.meaning)} \[{row.type}; "
                rf"default: {re.escape(row.default)}\]"
            )
            assert re.search(line, told[command]), (command, row)
            assert (
                options.option(row.name) in told["run"]
                and options.option(row.name) in told["sweep"]
            )
    assert (
        "default: none (02, 03, 07) | 1, 3, 10, 30 (05)]" in told["run"]
        and "default: 4.0 (01)]" in told["sweep"]
    )
    assert (
        "--ipc N" in told["condense"]
        and "--compare" not in told["condense"]
        and "--ipc-to" not in told["condense"]
    )


def test_a_run_folder_with_another_set_is_refused(toy_set, tmp_path):
    (tmp_path / "runs/digits").mkdir(parents=True)
    toy_set.save(tmp_path / "runs/digits/condensed.safetensors")
    with pytest.raises(ValueError, match="but .* was asked for: choose another folder"):
        workflow.get_condensed(tmp_path / "runs/digits", "digits")
    for ipc, go_on in ((5, True), (10, False)):  # only the step that condenses asks for an IPC
        assert (
            workflow.get_condensed(
                tmp_path / "runs/digits", "toy", go_on=go_on, ipc=ipc, factor=2
            ).ipc
            == 5
        )
    with pytest.raises(ValueError, match="ipc=10 was asked for"):
        workflow.get_condensed(tmp_path / "runs/digits", "toy", go_on=True, ipc=10, factor=2)


def test_a_budget_of_nothing_leaves_the_set_as_it_is(toy, tmp_path):
    fast = {
        "method": "idc",
        "ipc": 1,
        "preset": "smoke",
        "outer_loops": 2,
        "inner_loops": 2,
        "width": 8,
        "progress": False,
    }
    # a step, as there is none
    first = workflow.get_condensed(tmp_path, "toy", lambda: toy, go_on=True, time_budget=0, **fast)
    again = workflow.get_condensed(tmp_path, "toy", lambda: toy, go_on=True, time_budget=0, **fast)
    assert (
        first.info["steps"] == again.info["steps"] == 1
        and (tmp_path / "checkpoint.safetensors").exists()
    )
    assert workflow.get_condensed(tmp_path, "toy", lambda: toy, go_on=True, **fast).info["finished"]


def test_sets_of_other_methods_lie_inside_the_run(tmp_path, capsys):
    digits = data.load("digits")
    chosen = parameters.validated("04_pruning", {"outer_loops": 1, "inner_loops": 1, "width": 8})
    inside, shipped = workflow.get_beside(tmp_path, chosen, "kip", digits)
    assert (
        inside == tmp_path / "kip"
        and shipped.fingerprint == zoo.load("digits-kip-ipc10").fingerprint
    )
    assert "from the zoo: kip of digits" in capsys.readouterr().out
    # the zoo's set was made with other loops than those that were given
    _, made = workflow.get_beside(tmp_path, chosen, "dream", digits)
    assert made.info["steps"] == 1
    small = chosen.model_copy(update={"ipc": 1, "ipc_to": [1]})
    # none of that size ships
    inside, made = workflow.get_beside(tmp_path / "small", small, "dsa", digits)
    assert (
        made.method == "dsa"
        and made.ipc == 1
        and made.info["steps"] == 1
        and (inside / "condensed.safetensors").is_file()
    )
    own, main = workflow.get_beside(tmp_path / "small", small, "idc", digits)
    assert own == tmp_path / "small" and main.method == "idc"


def test_only_the_condensing_step_replaces_a_shipped_set(tmp_path, capsys, monkeypatch):
    digits, chosen = data.load("digits"), parameters.validated("04_pruning", {})
    monkeypatch.setattr(
        condensation,
        "condense",
        lambda *_, **arguments: pytest.fail(f"condensed, seed {arguments['seed']}"),
    )
    take = lambda run, **other: workflow.get_condensed(
        run, "digits", lambda: digits, **chosen.condensation() | other
    )
    assert take(tmp_path / "run").fingerprint == zoo.load("digits-idc-ipc10").fingerprint
    assert (
        "from the zoo: idc of digits" in capsys.readouterr().out
        and (tmp_path / "run/condensed.safetensors").is_file()
    )
    (owned.claim(tmp_path / "stopped") / "checkpoint.safetensors").touch()
    for name, other in (
        ("own", {"go_on": True}),
        ("seed", {"seed": 1}),
        ("width", {"width": 8}),
        ("stopped", {}),
    ):
        with pytest.raises(pytest.fail.Exception, match="condensed, seed"):
            take(tmp_path / name, **other)


def test_early_dynamics_are_recorded_anew_for_other_epochs(toy_set, tmp_path, capsys):
    record = functools.partial(
        workflow.get_all_dynamics,
        tmp_path,
        toy_set,
        "toy",
        [0],
        kind="early-clean",
        record_on="clean",
        epochs=6,
        width=8,
    )
    (first,) = record(until=3, top_k=2, windows=[3])
    assert (
        len(first.correct) == 3
        and (tmp_path / "early-clean.safetensors").is_file()
        and not first.complete
    )
    record(until=3, top_k=2, windows=[3])
    assert "found early-clean.safetensors: 3 epochs" in capsys.readouterr().out
    (longer,) = record(until=4, top_k=2, windows=[3, 4])
    assert len(longer.correct) == 4 and "other settings: recording again" in capsys.readouterr().out
    assert torch.equal(longer.correct[:3], first.correct)


def test_run_sends_a_notebook_through_papermill(tmp_path):
    assert cli.main(["run", "03", "--folder", str(ROOT / "notebooks"), "-p", "ipc_to", "2"]) == 0
    run = tmp_path / "runs/zoo-cifar10-idc-ipc10"
    injected = next(
        cell.source
        for cell in nbformat.read(run / "03_class_balance.ipynb", 4).cells
        if "injected-parameters" in cell.metadata.get("tags", [])
    )
    assert "ipc_to = [2]" in injected and (run / "class_balance_2.png").is_file()


def test_bare_papermill_stops_at_a_misspelt_parameter(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match="parameter='datset' is unknown"):
        papermill.execute_notebook(
            ROOT / "notebooks/01_condensation.ipynb",
            tmp_path / "out.ipynb",
            {"datset": "digits"},
            progress_bar=False,
        )
    assert not (tmp_path / "runs").exists()


def test_module_runs_as_a_program():
    done = subprocess.run([sys.executable, "-m", "yoco", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and all(
        word in done.stdout for word in ("run", "condense", "study")
    )
