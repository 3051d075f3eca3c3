"""The command line of yoco: condense a dataset, prune the result, and test what is kept.

`yoco run` executes the notebooks with papermill, and `yoco sweep` runs them over a grid of
parameters; `yoco condense`, `study`, `ablations`, `noise` and `selfcheck` need no Jupyter.
"""

# modules that need torch are imported by the commands: --help and --version do not wait for them
import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yoco
from yoco import data, workflow  # import on first use
from yoco.workflow import notebooks
from yoco.workflow.options import Parser, plain, shared


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status.

    Bad input is reported in one line on standard error, with status 2.
    """
    try:
        options = parsed(plain(sys.argv[1:] if arguments is None else arguments))
    except ValueError as error:
        print(f"yoco: {error}", file=sys.stderr)
        return 2
    from yoco.utils import checks, interrupts

    with interrupts.ending():
        from yoco.parallel import distributed

    try:
        if distributed.started() and options.command is not run_condense:
            raise ValueError(
                "torchrun is for yoco condense, which divides its work; run the other commands "
                "without it"
            )
        return options.command(options) or 0
    except distributed.LostRank as error:
        print(
            f"yoco: {error}; the same command, on any number of ranks, resumes from the last "
            "checkpoint",
            file=sys.stderr,
        )
        return 1
    except (FloatingPointError, ChildProcessError) as error:
        print(f"yoco: {error}", file=sys.stderr)
        return 1
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"yoco: {checks.printable(str(error))}", file=sys.stderr)
        return 2


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options of a command.

    Raises ValueError for a wrong one, with the nearest suggestion.
    """
    options, unknown = parser().parse_known_args(arguments)
    if unknown:
        from yoco.utils import checks

        name = unknown[0].split("=")[0]
        if name.startswith("--"):
            checks.one_of("option", name, re.findall(r"--[\w-]+", options.parser.format_usage()))
        raise ValueError(f"unexpected argument {unknown[0]!r}")
    return options


def parser() -> Parser:
    """Return the commands and their options.

    A parameter of a notebook is given as `--name VALUE`, or `-p name VALUE`.
    """
    top = Parser(prog="yoco", description=__doc__)
    top.add_argument("--version", action="version", version=f"yoco {yoco.__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run", help="run notebooks with papermill, after checking all parameters"
    )
    run.add_argument(
        "notebooks", nargs="*", help="for example 01_condensation, or 01 (default: all of them)"
    )
    run.add_argument(
        "--folder",
        type=Path,
        help="folder of the notebooks (default: notebooks; shipped ones are used if missing there)",
    )
    run.set_defaults(command=run_notebooks)
    copy = commands.add_parser(
        "notebooks", help="copy the shipped notebooks into a folder, for use in JupyterLab"
    )
    copy.add_argument(
        "folder",
        type=Path,
        nargs="?",
        default=Path(notebooks.FOLDER),
        metavar="DIR",
        help="folder to copy them to (default: notebooks); no file is overwritten",
    )
    copy.set_defaults(command=copy_notebooks)
    _add_works(commands)
    _add_selfcheck(commands)
    _add_sweep(commands)
    for name, command in commands.choices.items():
        command.set_defaults(parser=command)
        if name in ("notebooks", "selfcheck"):  # no parameters
            continue
        notebook = command.get_default("notebook")
        command.add_argument(
            "--fresh",
            action="store_true",
            help="start from scratch: rename the folder of an earlier run and use nothing in it",
        )
        command.add_parameters(notebook and [notebook], shared() if name == "condense" else None)
    return top


def _add_works(commands: Any) -> None:
    """Add the commands that do the work of a notebook."""
    for name, work, notebook, told in (
        (
            "condense",
            run_condense,
            "01_condensation",
            "condense a dataset (the work of notebook 01, without Jupyter)",
        ),
        (
            "study",
            run_study,
            "04_pruning",
            "record, prune and evaluate a run's condensed set (the work of notebook 04)",
        ),
        (
            "ablations",
            run_ablations,
            "05_ablations",
            "do the training runs of notebook 05, which then uses the results",
        ),
        (
            "noise",
            run_noise,
            "06_noise",
            "do the damaging and training of notebook 06, which then uses the results",
        ),
    ):
        commands.add_parser(name, help=told).set_defaults(command=work, notebook=notebook)


def _add_selfcheck(commands: Any) -> None:
    told = "compare this machine's results with stored ones, and time it, for a bug report"
    check = commands.add_parser("selfcheck", help=told)
    where = "auto, cpu, or a GPU as torch names it (default: auto)"
    check.add_argument("--device", default="auto", help=where)
    check.set_defaults(command=run_selfcheck)


def _add_sweep(commands: Any) -> None:
    grid = commands.add_parser(
        "sweep",
        help="run notebooks for every combination of parameters, in parallel, into one table",
    )
    grid.add_argument(
        "notebooks",
        nargs="+",
        help="for example notebooks/04_pruning.ipynb, or 04; several run in order at each point",
    )
    grid.add_argument(
        "--folder",
        type=Path,
        help="folder of notebooks given by name (default: notebooks; shipped ones are used if "
        "missing there)",
    )
    grid.add_argument(
        "--out",
        type=Path,
        help="folder for sweep.csv and the points' folders (default: runs/sweep-NOTEBOOK)",
    )
    grid.add_argument(
        "--jobs", type=int, help="points run in parallel (default: one per core or GPU)"
    )
    grid.add_argument("--backend", help=argparse.SUPPRESS)  # from version 0.1
    grid.set_defaults(command=run_sweep)


def given(options: argparse.Namespace) -> dict[str, Any]:
    """Return the parameters that were given, with "none" for None."""
    return {name: None if value.lower() == "none" else value for name, value in options.parameters}


def run_notebooks(options: argparse.Namespace) -> None:
    """Check all parameters, then run the notebooks in order.

    Executed copies go to the run's folder.
    """
    from yoco.utils import checks, owned
    from yoco.workflow import execution, outcome

    known_to = workflow.parameters.NOTEBOOKS
    wanted = [_full_name(name) for name in options.notebooks] or notebooks.names()
    values = given(options)
    parametrised = [name for name in wanted if name in known_to]
    known = {field for name in parametrised for field in known_to[name].model_fields}
    for name in values:
        checks.one_of("parameter", name, sorted({"run_dir", *known}))
    # all of them, before the first one starts
    chosen = {name: workflow.parameters.validated(name, _of(name, values)) for name in parametrised}
    paths = {name: notebooks.find(name, options.folder) for name in wanted}
    for place in {workflow.folder(of.run_dir, of.dataset) for of in chosen.values()}:
        _begin(options, place)
    run = None
    for name, path in paths.items():
        typed: dict[str, Any] = {}
        if name in chosen:
            run = workflow.folder(chosen[name].run_dir, chosen[name].dataset)
            typed = chosen[name].model_dump(include=set(_of(name, values)))
        place = owned.claim(run or workflow.folder(values.get("run_dir"), "quickstart"))
        execution.run(path, place / f"{name}.ipynb", typed)
    if run:
        outcome.tell(run)


def copy_notebooks(options: argparse.Namespace) -> None:
    """Copy the shipped notebooks into a folder; files that are there already are kept."""
    for name, copied in notebooks.copy(options.folder).items():
        print(f"{options.folder / name}.ipynb{'' if copied else ' exists, kept as it is'}")
    print(f"open them with: jupyter lab {options.folder}")


def run_selfcheck(options: argparse.Namespace) -> int:
    """Check this machine and print the report. Returns 1 if a result is wrong."""
    from yoco.selfcheck import report

    return int(not report.run(options.device))


def run_sweep(options: argparse.Namespace) -> int:
    """Check the whole grid, then run the unfinished points. Returns 1 if any point failed."""
    from yoco.utils import checks

    if options.backend not in (None, "loky"):
        raise ValueError(
            f"--backend {options.backend} was removed; on a cluster, call yoco.workflow.sweep.run "
            "in Python with executor=client.get_executor()"
        )
    names = [_full_name(name) for name in options.notebooks]
    paths = [
        Path(given).absolute()
        if Path(given).is_file()
        else notebooks.find(name, options.folder).absolute()
        for given, name in zip(options.notebooks, names)
    ]
    out = (
        checks.path("--out", options.out)
        if options.out
        else workflow.home() / f"sweep-{'-'.join(names)}"
    ).absolute()
    grid = workflow.sweep.points(paths, options.parameters, out)
    _begin(options, out)
    table = workflow.sweep.run(grid, out, jobs=options.jobs)
    failed = [row for row in table.to_dict("records") if row["status"] == "failed"]
    for row in failed:
        print(
            (
                f"yoco: failed: {', '.join(f'{name}={row[name]}' for name in grid[0].values)}: "
                f"{row['error']}"
            ),
            file=sys.stderr,
        )
    return int(len(failed) > 0)


def _full_name(name: str) -> str:
    from yoco.utils import checks

    stem, known = Path(name).stem, notebooks.names()
    matches = [full for full in known if full == stem or full.split("_")[0] == stem]
    return matches[0] if matches else checks.one_of("notebook", stem, known)


def _of(notebook: str, values: dict[str, Any]) -> dict[str, Any]:
    known = workflow.parameters.NOTEBOOKS[notebook].model_fields
    return {name: value for name, value in values.items() if name in known}


def run_condense(options: argparse.Namespace) -> None:
    """Make the condensed set of the run's folder if it is missing, resuming from its checkpoint."""
    chosen = workflow.parameters.validated(options.notebook, given(options))
    run = workflow.folder(chosen.run_dir, chosen.dataset)
    load = lambda: data.load(chosen.dataset, chosen.root, size=chosen.size)
    _begin(options, run)
    workflow.get_condensed(run, chosen.dataset, load, go_on=True, **chosen.condensation())


def _begin(options: argparse.Namespace, run: Path) -> None:
    """Set the folder of an earlier run aside if --fresh was given."""
    from yoco.parallel import distributed

    if options.fresh and distributed.started():
        raise ValueError(
            "--fresh cannot be used under torchrun, whose ranks start separately: use --run-dir"
        )
    if options.fresh:
        workflow.set_aside(run)


def run_study(options: argparse.Namespace) -> None:
    """Make the table of methods × IPC_T for the run's condensed set.

    Each finished cell is appended to results.csv.
    """
    from yoco.workflow import outcome

    run, _ = _on_the_run_s_set(options, workflow.get_results)
    outcome.tell(run)


def run_ablations(options: argparse.Namespace) -> None:
    """Do the training runs of every ablation; each finished one is appended to results.csv."""
    run, table = _on_the_run_s_set(options, workflow.get_ablations)
    print(f"{len(table)} rows in {run / 'ablations.csv'}; 05_ablations shows them")


def run_noise(options: argparse.Namespace) -> None:
    """Find what every rule keeps of damaged sets, and train networks on it.

    Each finished training run is appended to results.csv.
    """
    run, (_, table) = _on_the_run_s_set(options, workflow.get_noise)
    print(f"{len(table)} rows in {run / 'noise.csv'}; 06_noise shows them")


def _on_the_run_s_set(options: argparse.Namespace, work: Callable[..., Any]) -> tuple[Path, Any]:
    """Do `work` on the run's condensed set, which is made if missing, and on the real images."""
    chosen = workflow.parameters.validated(options.notebook, given(options))
    run = workflow.folder(chosen.run_dir, chosen.dataset)
    real = data.load(chosen.real_dataset, chosen.root, size=chosen.size)
    _begin(options, run)
    condensed = workflow.get_condensed(run, chosen.dataset, lambda: real, **chosen.condensation())
    return run, work(run, condensed, real, chosen)
