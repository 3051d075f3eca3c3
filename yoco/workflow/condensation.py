"""A run's condensed set: found, taken from the zoo, or made, and kept in its folder."""

import contextlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from yoco import zoo
from yoco.condense.condense import condense, start_set
from yoco.condense.methods import METHODS
from yoco.condense.nested import budgets
from yoco.data.image_data import ImageData
from yoco.parallel import distributed
from yoco.sets.condensed_set import CondensedSet
from yoco.utils import checks, digests, locks, owned
from yoco.workflow import found_set, given_set
from yoco.workflow.run_folder import CHECKPOINT, CONDENSED, load_set
from yoco.workflow.shared_parameters import Parameters


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
    explicit: Mapping[str, Any] | None = None,
    ipc_to: Sequence[int] = (),
    **arguments: Any,
) -> CondensedSet:
    """Return the run's condensed set, making and saving it if it is missing.

    A missing set is taken from the zoo ("zoo:NAME", or one with the same arguments) or condensed
    now. Under torchrun, rank 0 prints, locks and saves; all ranks must see the folder, and all
    return the same set (see `condense`).

    Args:
        run: the run's folder.
        dataset: name of the dataset.
        data: returns the real images.
        go_on: for the step that condenses: the set is condensed and not taken from the zoo, and an
            interrupted condensation is resumed from the checkpoint beside it, unless time_budget is
            0.
        start: a set to condense further, by a name for `load_set`.
        path: a set to be taken instead, by a name for `given_set.take`.
        explicit: the parameters that were given, with their values; a set in the folder must have
            them.
        ipc_to: budgets to which the set will be pruned.
        **arguments: of `condense`.

    Raises:
        ValueError: if the folder holds a set that is not what was asked for, was made from other
            real images, or does not fit them; if a set would be condensed that is smaller than one
            of ipc_to; also as `load_set`.
        BlockingIOError: if another process is making the set.
    """
    kept, checkpoint = run / CONDENSED, run / CHECKPOINT
    explicit = explicit or {}
    if path is not None:
        return given_set.take(kept, path, data(), explicit=explicit)
    arguments |= {} if start is None else {"start": load_set(start)}
    with distributed.joined() as among, contextlib.ExitStack() as held:
        say = print if among.first else lambda _: None
        there, unfinished = among.from_first(lambda: (kept.exists(), checkpoint.exists()))
        going_on = go_on and unfinished and arguments.get("time_budget") != 0
        found = CondensedSet.load(kept) if there else None
        if found is not None:
            found_set.check_asked(found, kept, dataset, explicit, arguments, go_on)
        elif not dataset.startswith(zoo.PREFIX):  # condensing may take hours
            checks.whole("ipc_to", max(ipc_to, default=1), 1, arguments.get("ipc"))
        # before anything is written: real images that cannot be loaded leave no folder
        real = among.after_first(lambda: _real(dataset, data, needed=found is None or going_on))
        if found is not None:
            found_set.check_made_from(found, kept, dataset, real)
            say(f"found {kept.name}: {describe(found)}")
            if not going_on:
                return found
            say("its condensation was interrupted: resuming from the checkpoint")
        shipped = None
        if real is None:
            shipped = _of_the_zoo(dataset, checkpoint, explicit)
        elif not (go_on or there or unfinished):
            shipped = _shipped_set(real, arguments)

        def begin() -> None:
            held.enter_context(owned.used(run))  # made if missing
            held.enter_context(locks.hold(kept))
            if (kept.exists(), checkpoint.exists()) != (there, unfinished):
                raise BlockingIOError(f"{run} was changed by another run meanwhile: try again")

        among.from_first(begin)
        if shipped is not None:
            say(f"from the zoo: {describe(shipped)}")
        elif not there:
            say(f"no {kept.name} in the run's folder: condensing {dataset} now")
        # without real images, it is a set of the zoo
        made = shipped or condense(cast(ImageData, real), checkpoint=checkpoint, **arguments)
        if shipped is None:
            say(f"made {kept.name}: {describe(made)}")
        # a set of the zoo may have been stopped early for good
        if shipped is None and go_on and not made.info.get("finished", True):
            say("its condensation is not finished: run it again to resume")
        among.from_first(lambda: _keep(made, kept, None if shipped else checkpoint))
        return made


def _real(dataset: str, data: Callable[[], ImageData], needed: bool) -> ImageData | None:
    """Return the real images.

    None for a set of the zoo. If they are not needed and cannot be loaded, None with a warning.
    """
    if dataset.startswith(zoo.PREFIX) or (data is _no_data and not needed):
        return None
    try:
        return data()
    except (OSError, ImportError) as error:
        if needed:
            raise
        warnings.warn(
            f"cannot check whether the set was made from {dataset}, which cannot be loaded here: "
            f"{error}",
            stacklevel=3,
        )
        return None


def _of_the_zoo(dataset: str, checkpoint: Path, explicit: Mapping[str, Any]) -> CondensedSet:
    """Return the set "zoo:NAME", for a folder that has no set."""
    if checkpoint.exists():
        raise ValueError(
            f"{checkpoint} is the unfinished condensation of another dataset, but {dataset} was "
            f"asked for: {digests.HOW}"
        )
    shipped = zoo.load(dataset.removeprefix(zoo.PREFIX))
    found_set.check_asked(shipped, dataset, dataset, explicit)
    return shipped


def _shipped_set(data: ImageData, arguments: dict[str, Any]) -> CondensedSet | None:
    """Return the zoo's set that `condense(data, **arguments)` would make up to rounding."""
    name = f"{data.name}-{arguments.get('method')}-ipc{arguments.get('ipc')}"
    shipped = zoo.load(name) if name in zoo.names() and "preset" in arguments else None
    if shipped is None or not made_by(shipped, data, arguments):
        return None
    return replace(shipped, info={**shipped.info, digests.MADE_FROM: data.made_from})


def get_start(chosen: Parameters, data: ImageData) -> CondensedSet:
    """Return what the run's condensation starts from.

    It is the set that its parameters name, or packed real images.
    """
    return start_set(data, **chosen.packing()) if chosen.start is None else load_set(chosen.start)


def _keep(made: CondensedSet, path: Path, checkpoint: Path | None = None) -> None:
    """Save a set; a finished one no longer needs its checkpoint."""
    made.save(path)
    if checkpoint is not None and made.info.get("finished", True):
        checkpoint.unlink(missing_ok=True)


def made_by(condensed: CondensedSet, data: ImageData, arguments: dict[str, Any]) -> bool:
    """Return whether `condense(data, **arguments)` made the set and finished it.

    The precision is not compared.
    """
    named = ("method", "ipc", "factor", "preset", "seed")
    settings = {
        name: value
        for name, value in arguments.items()
        if name not in (*named, "precision", "time_budget", "nested", "start", "explicit")
    }
    method, preset, ipc = (arguments[name] for name in ("method", "preset", "ipc"))
    given_nested, start = arguments.get("nested"), arguments.get("start")
    wanted = {
        "factor": condensed.factor,
        **{name: arguments[name] for name in named if name in arguments},
        "settings": METHODS[method].settings_for(preset, data.size, ipc, settings).record(),
        "nested": None if given_nested is None else budgets(given_nested, ipc),
        "start": start and start.fingerprint,
        "finished": True,
    }
    return found_set.is_of(condensed, data) and all(
        condensed.info.get(name) == value for name, value in wanted.items()
    )


def describe(condensed: CondensedSet) -> str:
    """Return one line: method, dataset, budget, and how many steps were taken."""
    info = condensed.info
    steps = (
        f", {info['steps']} of {info['planned_steps']} steps ({info['preset']})"
        if "steps" in info
        else ""
    )
    shape = (
        f"{condensed.ipc} image{'s' * (condensed.ipc != 1)} per class, factor {condensed.factor}, "
        f"{condensed.size}x{condensed.size}"
    )
    nested = " (nested)" if info.get("nested") else ""
    return f"{condensed.method}{nested} of {info.get('dataset', 'unknown data')}, {shape}{steps}"
