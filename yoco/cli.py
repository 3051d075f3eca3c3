"""The command line of yoco: condense a dataset, prune the result, and train on what remains.

`yoco run` executes the notebooks with papermill, and `yoco sweep` runs them over a grid of
parameters; `yoco condense`, `study`, `ablations`, `noise` and `selfcheck` need no Jupyter.
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yoco
from yoco import data, workflow  # import on first use
from yoco.utils import interrupts
from yoco.utils.lazy import Module
from yoco.workflow import notebooks
from yoco.workflow.options import Parser, plain, values_of

# they import torch, for which --help and --version do not wait
checks, owned = Module("yoco.utils.checks"), Module("yoco.utils.owned")
distributed = Module("yoco.parallel.distributed")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status.

    Bad input is reported in one line on standard error, with status 2.
    """
    try:
        options = parsed(plain(sys.argv[1:] if arguments is None else arguments))
    except ValueError as error:
        print(f"yoco: {error}", file=sys.stderr)
        return 2
    with interrupts.ending():
        ranks = distributed.started()
    try:
        if ranks and not options.command.divided:
            raise ValueError(
                "torchrun is for yoco condense, which divides its work; run the other commands "
                "without it"
            )
        return options.command.work(options) or 0
    except distributed.LostRank as error:
        print(
            f"yoco: {error}; the same command, on any number of ranks, resumes from the last "
            "checkpoint",
            file=sys.stderr,
        )
        return 1
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
        print(f"yoco: {checks.printable(str(error))}", file=sys.stderr)
        return 1 if isinstance(error, (FloatingPointError, ChildProcessError)) else 2


class Command(NamedTuple):
    """A command of yoco.

    Attributes:
        work: what it does with the given options; returns the exit status, or None for 0.
        told: its line in `yoco --help`.
        arguments: its own arguments, with the options of `add_argument`.
        notebooks: those whose parameters are its options; empty: all; None: it has no parameters.
        shared: whether only the parameters that every notebook has are its options.
        divided: whether torchrun can divide its work.
    """

    work: Callable[[argparse.Namespace], int | None]
    told: str
    arguments: Mapping[str, Mapping[str, Any]] = {}
    notebooks: tuple[str, ...] | None = None
    shared: bool = False
    divided: bool = False


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options of a command.

    Raises ValueError for a wrong one, with the nearest suggestion.
    """
    if not arguments:
        arguments = ["--help"]
    elif arguments[0] not in COMMANDS and not arguments[0].startswith("-"):
        checks.one_of("command", arguments[0], COMMANDS)
    options, unknown = parser().parse_known_args(arguments)
    if unknown:
        name = unknown[0].split("=")[0]
        if name.startswith("--"):
            checks.one_of("option", name, re.findall(r"--[\w-]+", options.parser.format_usage()))
        raise ValueError(f"unexpected argument {unknown[0]!r}; commas separate several values")
    return options


def parser() -> Parser:
    """Return the commands and their options.

    A parameter of a notebook is given as `--name VALUE`, or `-p name VALUE`.
    """
    top = Parser(prog="yoco", description=__doc__, allow_abbrev=False)
    top.add_argument("--version", action="version", version=f"yoco {yoco.__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        added = commands.add_parser(name, help=command.told, allow_abbrev=False)
        added.set_defaults(command=command, parser=added)
        for argument, options in command.arguments.items():
            added.add_argument(argument, **options)
        if command.notebooks is not None:
            added.add_argument("--fresh", action="store_true", help=FRESH)
            added.add_parameters(command.notebooks, command.shared)
    return top


def run_notebooks(options: argparse.Namespace) -> None:
    """Check all parameters, then run the notebooks in order.

    Executed copies go to the run's folder.
    """
    parameters, values = workflow.parameters, values_of(options.parameters)
    asked = options.notebooks or notebooks.names()
    paths = {_full_name(given): _file(given, options.folder) for given in asked}
    known_to = {name: parameters.NOTEBOOKS[name] for name in paths if name in parameters.NOTEBOOKS}
    known = {field for model in known_to.values() for field in model.model_fields}
    for name in values:
        checks.one_of("parameter", name, sorted({"run_dir", *known}))
    # all of them, before the first one starts
    typed = {name: parameters.typed(name, values) for name in known_to}
    in_cells = {name: parameters.of_cell(paths[name]) for name in known_to}
    chosen = [parameters.validated(name, in_cells[name] | typed[name]) for name in known_to]
    runs = [workflow.folder(of.run_dir, of.dataset) for of in chosen]
    for run in set(runs):
        _begin(options, run)
    folders = dict(zip(typed, runs))
    for name, path in paths.items():
        place = folders.get(name) or workflow.folder(values.get("run_dir"), "quickstart")
        workflow.execution.run(path, owned.claim(place) / f"{name}.ipynb", typed.get(name, {}))
    if runs:
        workflow.tell(runs[-1])


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
    if options.backend not in (None, "loky"):
        raise ValueError(
            f"--backend {options.backend} was removed; on a cluster, call yoco.workflow.sweep.run "
            "in Python with executor=client.get_executor()"
        )
    names = [_full_name(name) for name in options.notebooks]
    paths = [_file(given, options.folder) for given in options.notebooks]
    out = checks.path("--out", options.out or workflow.home() / f"sweep-{'-'.join(names)}")
    out = out.absolute()
    grid = workflow.sweep.points([path.absolute() for path in paths], options.parameters, out)
    _begin(options, out)
    table = workflow.sweep.run(grid, out, jobs=options.jobs)
    failed = table[table["status"] == "failed"].to_dict("records")
    for row in failed:
        values = ", ".join(f"{name}={row[name]}" for name in grid[0].values)
        print(f"yoco: failed: {values}: {row['error']}", file=sys.stderr)
    return int(len(failed) > 0)


def _file(given: str, folder: Path | None) -> Path:
    """Return a notebook's file: the given path, or that of a name."""
    path = Path(given).expanduser()
    return path if path.is_file() else notebooks.find(_full_name(given), folder)


def _full_name(name: str) -> str:
    stem, known = Path(name).stem, notebooks.names()
    matches = [full for full in known if full == stem or full.split("_")[0] == stem.zfill(2)]
    return matches[0] if matches else checks.one_of("notebook", stem, known)


def run_condense(options: argparse.Namespace) -> None:
    """Make the condensed set of the run's folder if it is missing, resuming from its checkpoint."""
    chosen, run = _chosen(options)
    load = lambda: data.load(chosen.dataset, chosen.root, size=chosen.size)
    _begin(options, run)
    workflow.get_condensed(run, chosen.dataset, load, go_on=True, **chosen.condensation())
    if not distributed.started():
        print(f"all files of the run are in {run}")


def _chosen(options: argparse.Namespace) -> tuple[Any, Path]:
    """Return the parameters of the notebook whose work a command does, and the run's folder."""
    (notebook,) = options.command.notebooks
    chosen = workflow.parameters.validated(notebook, values_of(options.parameters))
    return chosen, workflow.folder(chosen.run_dir, chosen.dataset)


def _begin(options: argparse.Namespace, run: Path) -> None:
    """Set the folder of an earlier run aside if --fresh was given.

    Raises ValueError if the parameters name a set in it.
    """
    if options.fresh and distributed.started():
        raise ValueError(
            "--fresh cannot be used under torchrun, whose ranks start separately: use --run-dir"
        )
    if options.fresh:
        given = values_of(options.parameters)
        for name, value in ((name, given.get(name)) for name in ("start", "set_path")):
            there = (workflow.project() / (value or "")).resolve()
            if value and there.is_relative_to(run.resolve()):
                raise ValueError(f"--fresh would rename {run}, which holds {name}={value}")
        workflow.set_aside(run)


def run_study(options: argparse.Namespace) -> None:
    """Make the table of methods × IPC_T for the run's condensed set.

    Each finished cell is appended to results.csv.
    """
    run, _ = _on_the_run_s_set(options, workflow.get_results)
    workflow.tell(run)


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
    chosen, run = _chosen(options)
    real = data.load(chosen.real_dataset, chosen.root, size=chosen.size)
    _begin(options, run)
    condensed = workflow.get_condensed(run, chosen.dataset, lambda: real, **chosen.condensation())
    return run, work(run, condensed, real, chosen)


FRESH = "start from scratch: rename the folder of an earlier run and use nothing in it"
IF_MISSING = "notebooks; shipped ones are used if missing there"
COMMANDS = {
    "run": Command(
        run_notebooks,
        "run notebooks with papermill, after checking all parameters",
        {
            "notebooks": {
                "nargs": "*",
                "help": "for example 01_condensation, 01 or a file (default: all of them)",
            },
            "--folder": {
                "type": Path,
                "help": f"folder of the notebooks (default: {IF_MISSING})",
            },
        },
        notebooks=(),
    ),
    "notebooks": Command(
        copy_notebooks,
        "copy the shipped notebooks into a folder, for use in JupyterLab",
        {
            "folder": {
                "type": Path,
                "nargs": "?",
                "default": Path(notebooks.FOLDER),
                "metavar": "DIR",
                "help": "folder to copy them to (default: notebooks); no file is overwritten",
            }
        },
    ),
    "condense": Command(
        run_condense,
        "condense a dataset (the work of notebook 01, without Jupyter)",
        notebooks=("01_condensation",),
        shared=True,
        divided=True,
    ),
    "study": Command(
        run_study,
        "record, prune and evaluate a run's condensed set (the work of notebook 04)",
        notebooks=("04_pruning",),
    ),
    "ablations": Command(
        run_ablations,
        "do the training runs of notebook 05, which then uses the results",
        notebooks=("05_ablations",),
    ),
    "noise": Command(
        run_noise,
        "damage sets and do the training runs of notebook 06, which then uses the results",
        notebooks=("06_noise",),
    ),
    "selfcheck": Command(
        run_selfcheck,
        "compare this machine's results with stored ones, and time it, for a bug report",
        {
            "--device": {
                "default": "auto",
                "help": "auto, cpu, or a GPU as torch names it (default: auto)",
            }
        },
    ),
    "sweep": Command(
        run_sweep,
        "run notebooks for every combination of parameters, in parallel, into one table",
        {
            "notebooks": {
                "nargs": "+",
                "help": "for example notebooks/04_pruning.ipynb, or 04; several run in order at "
                "each point",
            },
            "--folder": {
                "type": Path,
                "help": f"folder of notebooks given by name (default: {IF_MISSING})",
            },
            "--out": {
                "type": Path,
                "help": "folder for sweep.csv and the points' folders (default: "
                "runs/sweep-NOTEBOOK)",
            },
            "--jobs": {
                "type": int,
                "help": "points run in parallel (default: one per core or GPU)",
            },
            "--backend": {"help": argparse.SUPPRESS},  # from version 0.1
        },
        notebooks=(),
    ),
}
