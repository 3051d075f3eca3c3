"""A run's condensed set: found, taken from the zoo, or made, and kept in its folder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from yoco import zoo
from yoco.condense.condense import condense, start_set
from yoco.condense.methods import METHODS
from yoco.condense.nested import budgets
from yoco.data.datasets import name_of
from yoco.data.image_data import ImageData
from yoco.parallel import distributed
from yoco.sets.condensed_set import CondensedSet
from yoco.utils import checks, locks, owned
from yoco.workflow import given_set
from yoco.workflow.run_folder import CHECKPOINT, CONDENSED, load_set, project
from yoco.zoo import PREFIX as ZOO


def _no_data() -> ImageData:
    raise TypeError("data must be given: the set is missing and is made from real images")


def get_condensed(
    run: Path,
    dataset: str,
    data: Callable[[], ImageData] = _no_data,
    *,
    go_on: bool = False,
    start: str | None = None,
    path: str | None = None,
    **arguments: Any,
) -> CondensedSet:
    """Return the run's condensed set, making and saving it if it is missing.

    A missing set is taken from the zoo ("zoo:NAME", or one with the same arguments) or condensed
    now. Under torchrun, rank 0 prints, locks and saves; all ranks must see the folder, and all
    return the same set (see `condense`).

    Args:
        run: the run's folder.
        dataset: name of the dataset.
        data: returns the real images, if they are needed.
        go_on: for the step that condenses: the set is condensed and not taken from the zoo, and an
            interrupted condensation is resumed from the checkpoint beside it, unless time_budget is
            0.
        start: a set to condense further, by a name for `load_set`.
        path: a set to be taken instead, see `given_set.take`.
        **arguments: of `condense`.

    Raises:
        ValueError: if the folder holds a set of another dataset than asked for (with go_on, also of
            another method, IPC, factor or start); also as `load_set`.
        BlockingIOError: if another process is making the set.
    """
    kept, checkpoint = run / CONDENSED, run / CHECKPOINT
    if path is not None:
        return given_set.take(kept, project() / checks.path("set_path", path), data())
    arguments |= {} if start is None else {"start": load_set(start)}
    with distributed.joined() as among, contextlib.ExitStack() as held:
        say = print if among.first else lambda _: None
        there, unfinished = among.from_first(lambda: (kept.exists(), checkpoint.exists()))
        if there:
            found = CondensedSet.load(kept)
            _check_found(found, kept, dataset, arguments if go_on else {})
            say(f"found {kept.name}: {describe(found)}")
            if not (go_on and unfinished) or arguments.get("time_budget") == 0:
                return found
            say("its condensation was interrupted: resuming from the checkpoint")
        begin = lambda: among.from_first(lambda: held.enter_context(_writing(run, kept)))
        if dataset.startswith(ZOO):
            if unfinished:
                raise ValueError(
                    f"{run} holds the unfinished condensation of another dataset "
                    f"({checkpoint.name}), but {dataset} was asked for: choose another run_dir or "
                    "remove that file"
                )
            begin()
            shipped: CondensedSet | None = zoo.load(dataset.removeprefix(ZOO))
        else:
            # before anything is written: real images that cannot be loaded leave no folder
            real = among.after_first(data)
            begin()
            shipped = None if go_on or there or unfinished else _shipped_set(real, arguments)
        if shipped is not None:
            say(f"from the zoo: {describe(shipped)}")
            among.from_first(lambda: _keep(shipped, kept))
            return shipped
        if not there:
            say(f"no {kept.name} in the run's folder: condensing {dataset} now")
        made = condense(real, checkpoint=checkpoint, **arguments)
        say(f"made {kept.name}: {describe(made)}")
        among.from_first(lambda: _keep(made, kept, checkpoint))
        return made


@contextlib.contextmanager
def _writing(run: Path, kept: Path) -> Iterator[None]:
    """Hold the run's folder, made if missing, and the lock on its set."""
    with owned.used(run), locks.hold(kept):
        yield


def _shipped_set(data: ImageData, arguments: dict[str, Any]) -> CondensedSet | None:
    """Return the zoo's set that `condense(data, **arguments)` would make up to rounding."""
    name = f"{data.name}-{arguments.get('method')}-ipc{arguments.get('ipc')}"
    shipped = zoo.load(name) if name in zoo.names() and "preset" in arguments else None
    return shipped if shipped is not None and made_by(shipped, data, arguments) else None


def get_start(chosen: Any, data: ImageData) -> CondensedSet:
    """Return what the run's condensation starts from.

    It is the set that its parameters name, or packed real images.
    """
    return start_set(data, **chosen.packing()) if chosen.start is None else load_set(chosen.start)


def _keep(made: CondensedSet, path: Path, checkpoint: Path | None = None) -> None:
    """Save a set; a finished one no longer needs its checkpoint."""
    made.save(path)
    if checkpoint is not None and made.info.get("finished", True):
        checkpoint.unlink(missing_ok=True)


def _check_found(found: CondensedSet, path: Path, dataset: str, arguments: dict[str, Any]) -> None:
    there: dict[str, Any] = {
        "dataset": found.info.get("dataset"),
        "method": found.method,
        "ipc": found.ipc,
        "factor": found.factor,
    }
    asked = there | {
        name: arguments[name] for name in ("method", "ipc", "factor") if name in arguments
    }
    if "nested" in arguments:
        there["nested"], asked["nested"] = (
            found.info.get("nested"),
            budgets(arguments["nested"], arguments["ipc"]),
        )
    if "start" in arguments:
        there["start"], asked["start"] = found.info.get("start"), arguments["start"].fingerprint
    if not dataset.startswith(ZOO):
        asked["dataset"] = name_of(dataset)
    if asked != there:
        raise ValueError(
            f"{path} holds {there}, but {asked} was asked for: choose another run_dir or remove "
            "that file"
        )


def made_by(condensed: CondensedSet, data: ImageData, arguments: dict[str, Any]) -> bool:
    """Return whether `condense(data, **arguments)` made the set and finished it.

    The precision is not compared.
    """
    named = ("method", "ipc", "factor", "preset", "seed")
    settings = {
        name: value
        for name, value in arguments.items()
        if name not in (*named, "precision", "time_budget", "nested", "start")
    }
    wanted = {"factor": condensed.factor} | {
        name: arguments[name] for name in named if name in arguments
    }
    wanted |= {
        "settings": METHODS[wanted["method"]]
        .settings_for(wanted["preset"], data.size, wanted["ipc"], settings)
        .record()
    }
    wanted |= {
        "nested": budgets(arguments["nested"], wanted["ipc"]) if "nested" in arguments else None
    }
    wanted |= {"start": arguments["start"].fingerprint if "start" in arguments else None}
    wanted |= {"dataset": data.name, "images": len(data.train_images), "finished": True}
    return all(condensed.info.get(name) == value for name, value in wanted.items())


def describe(condensed: CondensedSet) -> str:
    """Return one line: method, dataset, budget, and how many steps were taken."""
    info = condensed.info
    steps = (
        f", {info['steps']} of {info['planned_steps']} steps ({info['preset']})"
        if "steps" in info
        else ""
    )
    shape = (
        f"{condensed.ipc} images per class, factor {condensed.factor}, "
        f"{condensed.size}x{condensed.size}"
    )
    nested = " (nested)" if info.get("nested") else ""
    return f"{condensed.method}{nested} of {info.get('dataset', 'unknown data')}, {shape}{steps}"
