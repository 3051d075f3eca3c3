"""Notebooks over a grid of parameters: one executed notebook per point, and one table.

Several points run at once, and finished ones are kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch

from yoco.parallel import pool
from yoco.utils import checks, locks, owned, tensor_files
from yoco.utils import device as devices
from yoco.utils.lazy import pd
from yoco.workflow import execution, notebooks, parameters, run_folder
from yoco.workflow.options import values_of
from yoco.workflow.parameter_types import described

TABLE = "sweep.csv"
LISTS = ("names", "whole numbers")  # types of parameters in which commas are part of a value
NAME_LENGTH = 120  # maximum for a point's folder: file systems allow 255 bytes
ORPHAN_SECONDS = 5  # after this time, the kernel of a killed process has ended as well


class Outcome(NamedTuple):
    """What became of a point.

    Attributes:
        status: "done", "failed", or "pending" if it was not tried.
        seconds: time that its notebooks took.
        error: last line of its error.
    """

    status: str = "pending"
    seconds: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Point:
    """One point of a grid.

    Attributes:
        values: its values as they were given.
        folder: the folder of its run.
        notebooks: the typed parameters of each notebook.
    """

    values: Mapping[str, str]
    folder: Path
    notebooks: Mapping[Path, Mapping[str, Any]]

    def __str__(self) -> str:
        return (
            ", ".join(f"{name}={value}" for name, value in self.values.items()) or "the one point"
        )

    def finished(self) -> Outcome | None:
        """Return its outcome if all of its executed notebooks exist, else None.

        They must be complete, without an error, and made from the notebooks as they are now with
        these parameters.
        """
        found = [
            _finished(self.folder / notebook.name, notebook, typed)
            for notebook, typed in self.notebooks.items()
        ]
        taken = [seconds for seconds in found if seconds is not None]
        return Outcome("done", round(sum(taken), 1)) if len(taken) == len(found) else None


def choices(notebooks: Sequence[str], given: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the values of each parameter by name, from pairs like ("seed", "0,1").

    Commas separate values, except for a parameter that is a list itself, or if there is a
    semicolon: then only semicolons do. Raises ValueError if a parameter is unknown, given twice, or
    belongs to the sweep.
    """
    models = [
        parameters.NOTEBOOKS[checks.one_of("notebook", name, parameters.NOTEBOOKS)].model_fields
        for name in notebooks
    ]
    known = {name: field for of_one in reversed(models) for name, field in of_one.items()}
    names = [checks.one_of("parameter", name, sorted(known)) for name, _ in given]
    if "run_dir" in checks.different("parameters", names):
        raise ValueError(
            "parameter run_dir: each point of a sweep has a folder of its own; choose their "
            "location with --out"
        )
    return {
        name: _separate(text, described(name, known[name]).type in LISTS) for name, text in given
    }


def _separate(text: str, is_list: bool) -> list[str]:
    parts = text.removesuffix(";").split(";") if ";" in text or is_list else text.split(",")
    return [part.strip() for part in parts]


def points(notebooks: Sequence[Path], given: Sequence[tuple[str, str]], out: Path) -> list[Point]:
    """Return the points of the grid, the last parameter changing fastest.

    Each has a folder inside `out`, named after its values. Raises ValueError if a value is not
    allowed, or two points are the same.
    """
    grid = choices([notebook.stem for notebook in notebooks], given)
    swept = [name for name, values in grid.items() if len(values) > 1]
    made = []
    for values in product(*grid.values()):
        chosen = dict(zip(grid, values))
        plain = values_of(chosen.items())
        typed = {notebook: parameters.typed(notebook.stem, plain) for notebook in notebooks}
        digest = hashlib.sha256(
            json.dumps(list(typed.values()), sort_keys=True).encode()
        ).hexdigest()[:8]
        name = ",".join(
            f"{name}={re.sub(r'[^a-zA-Z0-9.+-]+', '-', chosen[name])}" for name in swept
        )
        folder = out / f"{name[:NAME_LENGTH]}{'-' if name else ''}{digest}"
        made.append(
            Point(
                {name: chosen[name] for name in swept},
                folder,
                {path: {**of, "run_dir": str(folder)} for path, of in typed.items()},
            )
        )
    checks.different("points of the grid", [point.folder.name for point in made])
    return made


@pool.without_backend
def run(
    grid: Sequence[Point], out: Path, *, jobs: int | None = None, executor: Executor | None = None
) -> pd.DataFrame:
    """Run each point's notebooks with papermill, in parallel processes.

    Finished points are not run again. `out`/sweep.csv is written after each point, with the swept
    values, status, seconds, error (see `Outcome`), and the rows of the table.csv of the point's
    run, if it has one. A column of that table that is also swept becomes table_NAME. A point that
    fails does not affect the others, and resumes from its run's files the next time.

    Args:
        grid: from `points`.
        out: folder of the sweep. If the executor is a cluster's, it must be on a disk that all
            machines share.
        jobs, executor: how many points run in parallel, with one thread each, and where, see
            `pool`; a single point on this machine has all threads.

    Returns:
        The table.

    Raises:
        BlockingIOError: if another sweep works on `out`.
    """
    device = devices.choose()
    jobs = pool.jobs_for(jobs, device, len(grid), executor)
    owned.claim(out)
    with locks.hold(out / TABLE):
        outcomes = [point.finished() or Outcome() for point in grid]
        left = [number for number, outcome in enumerate(outcomes) if outcome.status != "done"]
        print(
            f"{len(grid)} points, {len(grid) - len(left)} of them finished before; {out / TABLE}",
            flush=True,
        )
        table = _write(grid, outcomes, out)
        one_thread = jobs > 1 or executor is not None
        calls = [(grid[number], device, one_thread, Path.cwd()) for number in left]
        lost = lambda _, error: Outcome("failed", None, str(error))
        for position, outcome in pool.run(_run_point, calls, jobs, executor=executor, lost=lost):
            number = left[position]
            outcomes[number] = outcome
            table = _write(grid, outcomes, out)
            took = "" if outcome.seconds is None else f" after {outcome.seconds:.0f} s"
            print(f"{grid[number]}: {outcome.status}{took} {outcome.error}".rstrip(), flush=True)
    return table


def _write(grid: Sequence[Point], outcomes: Sequence[Outcome], out: Path) -> pd.DataFrame:
    """Write the current table of all points into `out` and return it."""
    parts = []
    for point, outcome in zip(grid, outcomes):
        own = {**point.values, **outcome._asdict()}
        path = point.folder / run_folder.TABLE
        there = outcome.status == "done" and path.exists()
        rows = pd.read_csv(path) if there else pd.DataFrame(index=[0])
        own_names = {name: f"table_{name}" for name in own}
        parts.append(pd.DataFrame([own] * len(rows)).join(rows.rename(columns=own_names)))
    # whole numbers stay whole beside rows without values
    table = pd.concat(parts, ignore_index=True).convert_dtypes()
    tensor_files.write_text(out / TABLE, table.to_csv(index=False))
    return table


def _run_point(point: Point, device: torch.device, one_thread: bool, cwd: Path) -> Outcome:
    """Run the notebooks of a point in order. An error becomes its outcome."""
    began = time.monotonic()
    try:
        owned.claim(point.folder)
        with _environment(devices.environment(device) | (pool.ONE_THREAD if one_thread else {})):
            for notebook, typed in point.notebooks.items():
                if _finished(point.folder / notebook.name, notebook, typed) is None:
                    _patiently(notebook, point.folder / notebook.name, dict(typed), cwd)
    except Exception as error:
        return Outcome("failed", round(time.monotonic() - began, 1), execution.last_line(error))
    return point.finished() or Outcome(
        "failed", round(time.monotonic() - began, 1), "an executed notebook is incomplete"
    )


def _patiently(notebook: Path, output: Path, typed: dict[str, Any], cwd: Path) -> None:
    """Run a notebook; run it again if the kernel of a killed process still held the run's files."""
    try:
        execution.execute(notebook, output, typed, cwd)
    except Exception as error:
        if "BlockingIOError" not in (type(error).__name__, getattr(error, "ename", "")):
            raise
        time.sleep(ORPHAN_SECONDS)
        execution.execute(notebook, output, typed, cwd)


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Start kernels inside the block with these environment variables."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def _finished(path: Path, source: Path, typed: Mapping[str, Any]) -> float | None:
    """Return the seconds that the executed notebook at `path` took.

    None unless it is complete, without an error, and was made from `source` as it is now with these
    parameters.
    """
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        made, told = notebook["metadata"]["papermill"], notebook["metadata"]["yoco"]
        states = {
            cell["metadata"]["papermill"]["status"]
            for cell in notebook["cells"]
            if cell["cell_type"] == "code"
        }
        whole = (
            states == {"completed"}
            and not made["exception"]
            and made["parameters"] == json.loads(json.dumps(dict(typed)))
            and told["source"] == execution.digest(notebooks.read(source))
        )
        return float(made["duration"]) if whole else None
    except (OSError, ValueError, KeyError, TypeError):  # missing, or not written by papermill
        return None
