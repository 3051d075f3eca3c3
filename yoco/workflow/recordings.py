"""A run's dynamics: found, taken from the zoo, or recorded, and kept in its folder."""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from yoco import models, zoo
from yoco.dynamics.dynamics import Dynamics
from yoco.dynamics.recorder import record_many
from yoco.parallel import pool
from yoco.sets.condensed_set import CondensedSet
from yoco.training import timing
from yoco.training.protocol import BEFORE, PROTOCOLS, Protocol
from yoco.utils import device as devices
from yoco.utils import digests, locks

DYNAMICS = "dynamics"  # stem of the files of whole runs
# entries of the info that shipped dynamics must share
TOLD = ("epochs", "until", "model", "width", "batch_size", *BEFORE)
# stems of the files of dynamics that stop early, by what they were recorded on
EARLY = {"augmented": "early", "clean": "early-clean"}


def dynamics_file(run: Path, seed: int, first: int = 0, kind: str = DYNAMICS) -> Path:
    """Return the file of a seed's dynamics; the name for the run's own seed has no number."""
    return run / (f"{kind}.safetensors" if seed == first else f"{kind}-{seed}.safetensors")


def get_dynamics(
    run: Path, condensed: CondensedSet, dataset: str, seed: int, first: int = 0, **arguments: Any
) -> Dynamics:
    """Return the run's dynamics of a seed, for viewing.

    Missing dynamics are taken from the zoo, or recorded now and saved. For a set of the zoo
    (dataset "zoo:NAME"), shipped dynamics are taken even if their last batches are of another kind
    than asked for; they are then not saved, since the runs of a study could not follow them.
    """
    return get_all_dynamics(
        run,
        condensed,
        dataset,
        [seed],
        first,
        any_last_batch=dataset.startswith(zoo.PREFIX),
        **arguments,
    )[0]


def get_all_dynamics(
    run: Path,
    condensed: CondensedSet,
    dataset: str,
    seeds: Sequence[int],
    first: int = 0,
    *,
    kind: str = DYNAMICS,
    any_last_batch: bool = False,
    explicit: Sequence[str] = (),
    **arguments: Any,
) -> list[Dynamics]:
    """As `get_dynamics`, for several seeds; missing ones are recorded in parallel.

    Each is saved as it finishes.

    kind: the stem of their files; kinds other than "dynamics" are recorded again if the arguments
    differ. any_last_batch: accept shipped dynamics with another kind of last batch. explicit: names
    of the arguments that were given. Raises ValueError if dynamics in the folder have other values
    of these, or another seed, or are of this set with other statistics or class names.
    """
    own = kind == DYNAMICS
    wanted = _told(arguments)
    network = _own_network(condensed, arguments)
    paths = {seed: dynamics_file(run, seed, first, kind) for seed in seeds}
    demanded = _demanded(arguments, explicit) if own else {}
    found: dict[int, Any] = {
        seed: _found_dynamics(
            path,
            condensed,
            network if own else wanted | network,
            {"seed": seed, **demanded},
        )
        for seed, path in paths.items()
    }
    if own:
        found |= {
            seed: _shipped_dynamics(paths[seed], condensed, seed, wanted, any_last_batch)
            for seed in seeds
            if found[seed] is None
        }
    missing = [seed for seed in seeds if found[seed] is None]
    if own:
        _check_alike({paths[seed]: each for seed, each in found.items()}, wanted)
    if missing:
        print(
            f"recording {arguments.get('until') or arguments['epochs']} epochs of dynamics now, "
            f"for {', '.join(paths[seed].name for seed in missing)}"
        )
        _say_how_long(condensed, len(missing), len(seeds), **arguments)
        checkpoints = {
            seed: _unfinished(path, condensed, arguments) for seed, path in paths.items()
        }
        with locks.hold(run / kind):
            for seed, made in record_many(
                condensed, seeds=seeds, only=missing, checkpoints=checkpoints, **arguments
            ):
                made.save(paths[seed])
                checkpoints[seed].unlink(missing_ok=True)
                found[seed] = made
    return [found[seed] for seed in seeds]


def _check_alike(found: Mapping[Path, Dynamics | None], wanted: Mapping[str, Any]) -> None:
    """Raise ValueError if recordings of one study, or those to be made as `wanted`, differ.

    How the last batch is split may: shipped dynamics are then shown, but no networks trained.
    """
    told = {
        path.name: dict(wanted) if run is None else {**run.info, **run.training}
        for path, run in found.items()
    }
    for name in sorted(wanted.keys() - {"last_batch"}):
        values = {file: of[name] for file, of in told.items() if name in of}
        for (one, first), (other, second) in itertools.pairwise(values.items()):
            if first != second:
                raise ValueError(
                    f"recordings must be alike, but {one} has {name}={first!r} and {other} "
                    f"{name}={second!r}: {digests.HOW}"
                )


def _say_how_long(
    condensed: CondensedSet,
    missing: int,
    count: int,
    *,
    epochs: int,
    until: int | None = None,
    **arguments: Any,
) -> None:
    """Announce the time that `missing` of `count` recordings take, see `timing`.

    arguments: of `record_many`.
    """
    where = devices.choose(arguments.get("device", "auto"))
    named = {name: arguments[name] for name in ("model", "width", "precision") if name in arguments}
    protocol = Protocol(epochs, **named)
    network = timing.Network.of(protocol, condensed, protocol.precision, where)
    jobs = pool.jobs_for(arguments.get("jobs"), where, count)
    timing.say(
        {network: missing * (until or epochs) * len(condensed.formed_labels)}, min(jobs, missing)
    )


def _unfinished(path: Path, condensed: CondensedSet, arguments: dict[str, Any]) -> Path:
    """Return where the recording for `path` is kept while it is made.

    The name depends on the set and the arguments, so that other recordings neither resume from it
    nor overwrite it.
    """
    of = hashlib.sha256(
        repr((condensed.fingerprint, sorted(arguments.items()))).encode()
    ).hexdigest()[:8]
    return path.with_name(f"{path.stem}.unfinished-{of}.safetensors")


def _found_dynamics(
    path: Path, condensed: CondensedSet, wanted: dict[str, Any], demanded: dict[str, Any]
) -> Dynamics | None:
    """Return the dynamics at `path` if they are of this set and were recorded as `wanted`.

    Raises ValueError if they are of this set with other statistics or class names, or if a value
    differs from `demanded`.
    """
    if not path.exists():
        return None
    found = Dynamics.load(path)
    own = found.info.get("set") in (None, condensed.fingerprint)
    if not own or not torch.equal(found.labels, condensed.formed_labels):
        print(f"{path.name} is of another set (perhaps an earlier version): recording again")
        return None
    digests.check(str(path), found.info.get(digests.MADE_FROM), condensed.made_from)
    told = {**found.info, **found.training}
    if any(told.get(name) != value for name, value in wanted.items()):
        print(f"{path.name} has other settings: recording again")
        return None
    if differ := [name for name, value in demanded.items() if told.get(name, value) != value]:
        there, asked = (
            ", ".join(f"{name}={values.get(name)!r}" for name in differ)
            for values in (told, demanded)
        )
        raise ValueError(
            f"{path} was recorded with {there}, but {asked} was asked for: {digests.HOW}"
        )
    print(f"found {path.name}: {len(found.correct)} epochs")
    return found


def _demanded(arguments: dict[str, Any], explicit: Sequence[str]) -> dict[str, Any]:
    """Return what the info of dynamics must have because the user gave these arguments."""
    told = _told(arguments)
    names = {*explicit, *(PROTOCOLS[arguments["protocol"]] if "protocol" in explicit else ())}
    values = {name: told[name] for name in names if name in told}
    if "model" in values:
        values["model"] = models.named(values["model"])
    if "precision" in explicit and arguments["precision"] != "auto":
        values["precision"] = arguments["precision"]
    return values


def _told(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return arguments of `record` as the info of dynamics has them.

    The precision is left out: "auto" is resolved there.
    """
    told = {
        name: value for name, value in arguments.items() if name not in ("precision", "protocol")
    }
    return BEFORE | told | PROTOCOLS[arguments.get("protocol", "even")]


def _own_network(condensed: CondensedSet, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of the info that dynamics of a network of the user's own must share.

    Another network may have the same name.
    """
    model = models.named(arguments.get("model", "convnet"))
    return (
        {"model": model, **models.layout(model, *models.shape_of(condensed))}
        if models.own(model)
        else {}
    )


def _shipped_dynamics(
    path: Path, condensed: CondensedSet, seed: int, wanted: dict[str, Any], any_last_batch: bool
) -> Dynamics | None:
    """Return the zoo's dynamics of a set and seed if they were recorded as `wanted`.

    They are saved at `path`; see `get_all_dynamics`.
    """
    shipped = zoo.dynamics_of(condensed, seed)
    if shipped is None:
        return None
    told = {name: shipped.info[name] for name in TOLD if name in shipped.info} | shipped.training
    differ = [name for name, value in told.items() if value != wanted.get(name)]
    how = ", ".join(f"{name}={told[name]!r} instead of {wanted.get(name)!r}" for name in differ)
    if set(differ) - ({"last_batch"} if any_last_batch else set()):
        print(f"the zoo's dynamics of seed {seed} were recorded with {how}: recording new ones")
        return None
    print(
        f"from the zoo: dynamics of {len(shipped.correct)} epochs"
        + (f", recorded with {how}" if differ else "")
    )
    if not differ:
        told = {**shipped.info, digests.MADE_FROM: condensed.made_from}
        replace(shipped, info=told).save(path)
    return shipped
