"""A run lives in one folder; a step that finds an earlier step's file uses it, one that does not makes it, and says so."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from yoco import ablations, checks, damage, files, given_set, locks, noise, params, pool, ranks, study, tables, timing, zoo
from yoco import device as devices
from yoco.condense import METHODS, condense, start_set
from yoco.condense.nested import budgets
from yoco.condensed import CondensedSet
from yoco.data import ImageData, name_of
from yoco.dynamics import SHORT, Dynamics, record_many
from yoco.lazy import pd
from yoco.prune import compared
from yoco.train import BEFORE, PROTOCOLS, Protocol
from yoco.zoo import PREFIX as ZOO

CONDENSED, RESULTS, TABLE, TABLE2 = "condensed.safetensors", "results.csv", "table.csv", "table2.csv"
DYNAMICS = "dynamics"  # stem of the files of whole runs
TOLD = ("epochs", "until", "model", "width", "batch_size", *BEFORE)  # of the info of dynamics: what shipped ones must share
EARLY = {"augmented": "early", "clean": "early-clean"}  # files of dynamics that stop early, by what they were recorded on


def project() -> Path:
    """The folder that relative paths start from: the one that holds notebooks/, seen from there, else the working folder."""
    here = Path.cwd()
    return here.parent if here.name == "notebooks" else here


def home() -> Path:
    """Where runs are that were given no folder: runs/, or $YOCO_RUNS."""
    return Path(os.environ.get("YOCO_RUNS", project() / "runs"))


def folder(run_dir: str | None, dataset: str) -> Path:
    """The run's folder, made if missing: `run_dir`, or one named after the dataset in runs/ (or in $YOCO_RUNS).

    Raises OSError where it cannot be made.
    """
    name = dataset.removeprefix("folder:").rstrip("/").split("/")[-1].replace(":", "-")
    path = home() / name if run_dir is None else project() / Path(run_dir).expanduser()
    path.mkdir(parents=True, exist_ok=True)
    return path


def load_set(name: str) -> CondensedSet:
    """A condensed set by name: "zoo:NAME", or a file, whose relative path starts from the project. Raises as `zoo.load` and `CondensedSet.load`."""
    return zoo.load(name.removeprefix(ZOO)) if name.startswith(ZOO) else CondensedSet.load(project() / Path(name).expanduser())


def dynamics_file(run: Path, seed: int, first: int = 0, kind: str = DYNAMICS) -> Path:
    """The file of the dynamics of a seed: the run's own seed has no number in it."""
    return run / (f"{kind}.safetensors" if seed == first else f"{kind}-{seed}.safetensors")


def get_condensed(
    run: Path,
    dataset: str,
    data: Callable[[], ImageData] | None = None,
    *,
    go_on: bool = False,
    start: str | None = None,
    path: str | None = None,
    **arguments: Any,
) -> CondensedSet:
    """The run's condensed set; if it is missing, the zoo's ("zoo:NAME", or one made by the same arguments), or one condensed now; saved.

    data: gives the real images, where they are needed. go_on: for the step that condenses: a set of the run is condensed, and
    one that was stopped before its end condensed on, from the checkpoint beside it, unless time_budget is 0. start: a set to
    condense further, by the name that `load_set` takes. path: of a set to be taken instead, see `given_set.take`. arguments: of
    `condense`. Raises ValueError where the folder holds a
    set of another dataset than asked for (with go_on, also by another method, or of another IPC, factor or start), as
    `load_set`, BlockingIOError where another process makes it at this moment. Under torchrun the first process prints, locks
    and saves; all must see the folder, and return the same set (see `condense`).
    """
    if path is not None:
        return given_set.take(run / CONDENSED, project() / checks.path("set_path", path), data())
    path, checkpoint = run / CONDENSED, run / "checkpoint.safetensors"
    arguments |= {} if start is None else {"start": load_set(start)}
    with ranks.joined() as among, contextlib.ExitStack() as held:
        say = print if among.first else lambda _: None
        there, unfinished = among.from_first(lambda: (path.exists(), checkpoint.exists()))
        if there:
            found = CondensedSet.load(path)
            _check_found(found, path, dataset, arguments if go_on else {})
            say(f"found {path.name}: {describe(found)}")
            if not (go_on and unfinished) or arguments.get("time_budget") == 0:
                return found
            say("its condensation was stopped before its end: going on from the checkpoint")
        among.from_first(lambda: held.enter_context(locks.hold(path)))
        made = zoo.load(dataset.removeprefix(ZOO)) if dataset.startswith(ZOO) else None
        if made is None:
            real = among.after_first(data)
            made = None if go_on or there or unfinished else _shipped_set(real, arguments)
        if made is not None:
            say(f"from the zoo: {describe(made)}")
        else:
            if not there:
                say(f"no {path.name} in the run's folder: condensing {dataset} now")
            made = condense(real, checkpoint=checkpoint, **arguments)
            say(f"made {path.name}: {describe(made)}")
        among.from_first(lambda: _keep(made, path, checkpoint))
        return made


def _shipped_set(data: ImageData, arguments: dict[str, Any]) -> CondensedSet | None:
    """The zoo's set that `condense(data, **arguments)` would make, up to rounding, if it ships."""
    name = f"{data.name}-{arguments.get('method')}-ipc{arguments.get('ipc')}"
    shipped = zoo.load(name) if name in zoo.names() and "preset" in arguments else None
    return shipped if shipped is not None and _made_by(shipped, data, arguments) else None


def get_start(chosen: Any, data: ImageData) -> CondensedSet:
    """What the run's condensation starts from: the set that its parameters name, or packed real images."""
    return start_set(data, **chosen.packing()) if chosen.start is None else load_set(chosen.start)


def _keep(made: CondensedSet, path: Path, checkpoint: Path) -> None:
    """Save a set; one that is finished needs its checkpoint no more."""
    made.save(path)
    if made.info.get("finished", True):
        checkpoint.unlink(missing_ok=True)


def _check_found(found: CondensedSet, path: Path, dataset: str, arguments: dict[str, Any]) -> None:
    there = {"dataset": found.info.get("dataset"), "method": found.method, "ipc": found.ipc, "factor": found.factor}
    asked = {**there, **{name: arguments[name] for name in ("method", "ipc", "factor") if name in arguments}}
    if "nested" in arguments:
        there["nested"], asked["nested"] = found.info.get("nested"), budgets(arguments["nested"], arguments["ipc"])
    if "start" in arguments:
        there["start"], asked["start"] = found.info.get("start"), arguments["start"].fingerprint
    if not dataset.startswith(ZOO):
        asked["dataset"] = name_of(dataset)
    if asked != there:
        raise ValueError(f"{path} holds {there}, asked for was {asked}: choose another run_dir, or remove that file")


def get_dynamics(run: Path, condensed: CondensedSet, dataset: str, seed: int, first: int = 0, **arguments: Any) -> Dynamics:
    """The run's dynamics of a seed, to look at; if missing, those that ship with the zoo, or recorded now and saved.

    dataset: of a set of the zoo ("zoo:NAME") shipped dynamics are taken also if they have another kind of last batch than asked
    for; they are then not saved, since the trainings of a study could not follow them.
    """
    return get_all_dynamics(run, condensed, dataset, [seed], first, any_last_batch=dataset.startswith(ZOO), **arguments)[0]


def get_all_dynamics(
    run: Path,
    condensed: CondensedSet,
    dataset: str,
    seeds: Sequence[int],
    first: int = 0,
    *,
    kind: str = DYNAMICS,
    any_last_batch: bool = False,
    **arguments: Any,
) -> list[Dynamics]:
    """As `get_dynamics`, for several seeds: those that have to be recorded are so side by side, each saved as it finishes.

    kind: the stem of their files; another than "dynamics" is recorded anew where it was recorded by other arguments.
    any_last_batch: take shipped ones with another kind of last batch than asked for.
    """
    own = kind == DYNAMICS
    wanted = _told(arguments)
    paths = {seed: dynamics_file(run, seed, first, kind) for seed in seeds}
    found = {seed: _found_dynamics(path, condensed, {} if own else wanted) for seed, path in paths.items()}
    if own:
        found |= {seed: _shipped_dynamics(paths[seed], condensed, seed, wanted, any_last_batch) for seed in seeds if found[seed] is None}
    missing = [seed for seed in seeds if found[seed] is None]
    if missing:
        names = ", ".join(paths[seed].name for seed in missing)
        print(f"recording {arguments.get('until') or arguments['epochs']} epochs of dynamics now, for {names}")
        _say_how_long(condensed, len(missing), len(seeds), **arguments)
        checkpoints = {seed: _unfinished(path, condensed, arguments) for seed, path in paths.items()}
        with locks.hold(run / kind):
            for seed, made in record_many(condensed, seeds=seeds, only=missing, checkpoints=checkpoints, **arguments):
                made.save(paths[seed])
                checkpoints[seed].unlink(missing_ok=True)
                found[seed] = made
    return [found[seed] for seed in seeds]


def _say_how_long(condensed: CondensedSet, missing: int, count: int, *, epochs: int, until: int | None = None, **arguments: Any) -> None:
    """Before `missing` of `count` recordings, see `timing`; arguments: of `record_many`."""
    where = devices.choose(arguments.get("device", "auto"))
    named = {name: arguments[name] for name in ("model", "width", "precision") if name in arguments}
    network = timing.Network.of(Protocol(epochs, **named), condensed.images.shape[1], len(condensed.classes), condensed.size, where)
    jobs = pool.jobs_for(arguments.get("jobs"), where, count)
    timing.say({network: missing * (until or epochs) * len(condensed.formed_labels)}, min(jobs, missing))


def _unfinished(path: Path, condensed: CondensedSet, arguments: dict[str, Any]) -> Path:
    """Where the recording that will be `path` is kept while it is made. Its name tells the set and the arguments, so that a
    recording of others neither goes on from it nor writes over it."""
    of = hashlib.sha256(repr((condensed.fingerprint, sorted(arguments.items()))).encode()).hexdigest()[:8]
    return path.with_name(f"{path.stem}.unfinished-{of}.safetensors")


def _found_dynamics(path: Path, condensed: CondensedSet, wanted: dict[str, Any]) -> Dynamics | None:
    """The dynamics at `path`, if they are of this set and were recorded with the arguments `wanted`."""
    if not path.exists():
        return None
    found = Dynamics.load(path)
    if found.of(condensed) and _as_asked(found, wanted):
        print(f"found {path.name}: {len(found.correct)} epochs")
        return found
    print(f"{path.name} is of another set, this one's past perhaps, or of other settings: recording anew")
    return None


def _told(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `record` as the info of dynamics has them; "auto" precision is resolved there."""
    told = {name: value for name, value in arguments.items() if name not in ("precision", "protocol")}
    return BEFORE | told | PROTOCOLS[arguments.get("protocol", "even")]


def _as_asked(found: Dynamics, asked: dict[str, Any]) -> bool:
    """Whether the info of dynamics tells all that was asked for."""
    told = {**found.info, **found.training}
    return all(told.get(name) == value for name, value in asked.items())


def _shipped_dynamics(path: Path, condensed: CondensedSet, seed: int, wanted: dict[str, Any], any_last_batch: bool) -> Dynamics | None:
    """The zoo's dynamics of a set under a seed, if they were recorded as `wanted`, saved at `path`; see `get_all_dynamics`."""
    shipped = zoo.dynamics_of(condensed, seed)
    if shipped is None:
        return None
    told = {name: shipped.info[name] for name in TOLD if name in shipped.info} | shipped.training
    differ = [name for name, value in told.items() if value != wanted.get(name)]
    how = ", ".join(f"{name}={told[name]!r} instead of {wanted.get(name)!r}" for name in differ)
    if set(differ) - ({"last_batch"} if any_last_batch else set()):
        print(f"the zoo's dynamics of seed {seed} were recorded with {how}: own ones are recorded")
        return None
    print(f"from the zoo: dynamics of {len(shipped.correct)} epochs" + (f", recorded with {how}" if differ else ""))
    if not differ:
        shipped.save(path)
    return shipped


def get_beside(run: Path, chosen: params.Parameters, method: str, data: ImageData) -> tuple[Path, CondensedSet]:
    """The set that another method condensed from the same data, and its folder, a run of its own inside the run's.

    Where it is not there, the zoo's of that dataset and preset, or one condensed now. chosen: parameters of a notebook.
    """
    if method == chosen.method:
        return run, get_condensed(run, chosen.dataset, lambda: data, **chosen.condensation())
    inside = folder(str(run / method), chosen.dataset)
    take_from_zoo(inside, chosen, method, data)
    return inside, get_condensed(inside, chosen.dataset, lambda: data, **chosen.condensation(method))


def ready_sets(run: Path, chosen: params.Parameters, methods: Sequence[str], data: ImageData) -> dict[str, CondensedSet]:
    """Those of the methods' sets that need no condensing, by method: they are in the run's folder, or ship with the zoo."""
    there = {method: run if method == chosen.method else folder(str(run / method), chosen.dataset) for method in methods}
    for method, inside in there.items():
        take_from_zoo(inside, chosen, method, data)
    ready = [method for method, inside in there.items() if (inside / CONDENSED).exists()]
    return {method: get_beside(run, chosen, method, data)[1] for method in ready}


def take_from_zoo(inside: Path, chosen: params.Parameters, method: str, data: ImageData) -> None:
    """Put the zoo's set of a dataset, method (or "nested") and preset into a folder that has none, if there is one."""
    name = f"{data.name}-{method}-ipc{chosen.ipc}"
    if (inside / CONDENSED).exists() or name not in zoo.names():
        return
    shipped = zoo.load(name)
    if shipped.info["dataset"] == data.name and shipped.info["preset"] == chosen.scale and chosen.size is None:
        print(f"from the zoo: {describe(shipped)}")
        shipped.save(inside / CONDENSED)


def get_results(run: Path, condensed: CondensedSet, data: ImageData, chosen: params.Pruning) -> pd.DataFrame:
    """The study of 04 in the run's folder: dynamics recorded where missing, finished cells of results.csv kept.

    Its rows go to table2.csv, its summary to table.csv. chosen: the parameters of 04 (`params.Pruning`). Returns the
    rows of `study.run`, and those of the further condensations' sets pruned at random.
    """
    for budget in chosen.ipc_to:  # before anything is recorded
        checks.whole("ipc_to", budget, 1, condensed.ipc)
    numbers = range(chosen.seed, chosen.seed + chosen.dynamics)
    dynamics = get_all_dynamics(run, condensed, chosen.dataset, numbers, chosen.seed, **chosen.recording(condensed.size))
    options = {"results": run / RESULTS, **chosen.schedule(condensed.size)}
    parts = [study.run(condensed, data, dynamics, methods=compared(condensed, chosen.methods), **options)]
    for method in () if chosen.set_path else chosen.also:
        if method == condensed.method:  # its column is there already
            continue
        _, other = get_beside(run, chosen, method, data)
        parts.append(study.run(other, data, [None] * len(dynamics), methods=["random"], **options))
    results = pd.concat(parts, ignore_index=True)
    files.write_text(run / TABLE2, results.to_csv(index=False))
    files.write_text(run / TABLE, tables.summary(tables.with_sets_as_columns(results, condensed.method)).to_csv(index=False))
    return results


def get_ablations(run: Path, condensed: CondensedSet, data: ImageData, chosen: params.Ablations) -> pd.DataFrame:
    """The trainings of 05 in the run's folder: dynamics and other methods' sets made where missing, finished cells of
    results.csv kept. Its rows go to ablations.csv. chosen: the parameters of 05 (`params.Ablations`).

    Returns the rows of `study.train` with the columns ablation, output, top_k, within, record_on, and those of
    `ablations.labelled`.
    """
    numbers = range(chosen.seed, chosen.seed + chosen.dynamics)
    dynamics = functools.partial(get_all_dynamics, dataset=chosen.dataset, seeds=numbers, first=chosen.seed)
    whole = dynamics(run, condensed, **chosen.recording(data.size))
    short = chosen.early(data.size)
    seen = DYNAMICS if short["until"] == short["epochs"] <= SHORT else EARLY["augmented"]  # whole runs so short answer it all
    short |= {"until": None} if seen == DYNAMICS else {}
    early = dynamics(run, condensed, kind=seen, **short)
    clean = dynamics(run, condensed, kind=EARLY["clean"], **chosen.early(data.size, "clean"))
    others = {}
    for method in chosen.compare:
        inside, other = get_beside(run, chosen, method, data)
        others[method] = other, dynamics(inside, other, kind=seen, **short)
    parts = {"methods": chosen.methods, "top_k": chosen.top_k, "within": chosen.within, "networks": chosen.networks}
    cells = ablations.plan(condensed, whole, early, clean, others, **parts, **chosen.schedule(data.size))
    table = ablations.labelled(study.train(cells, data, results=run / RESULTS)).astype({"top_k": "Int64", "within": "Int64"})
    files.write_text(run / "ablations.csv", table.to_csv(index=False))
    return table


def get_noise(run: Path, condensed: CondensedSet, data: ImageData, chosen: params.Noise) -> tuple[list[noise.Case], pd.DataFrame]:
    """The damaged sets of 06 with their dynamics, and what every rule keeps of them, in the run's folder: sets and dynamics
    made where missing, each case in a folder of its own inside noise/, finished trainings of results.csv kept. The rows go to
    noise.csv, how well each score tells the damaged images to noise_detection.csv. chosen: the parameters of 06 (`params.Noise`).
    """
    for budget in chosen.ipc_to:  # before anything is recorded
        checks.whole("ipc_to", budget, 1, condensed.ipc)
    shapes = [("formed", *shape) for shape in chosen.formed_damage()] + [("real", *shape) for shape in chosen.real_damage()]
    cases = [_case(run, condensed, data, chosen, *shape) for shape in shapes]
    parts = {"rules": [*chosen.methods, *noise.REPAIRS], "results": run / RESULTS}
    table = noise.compare(cases, data, **parts, **chosen.comparison(condensed.size))
    files.write_text(run / "noise.csv", table.to_csv(index=False))
    files.write_text(run / "noise_detection.csv", pd.concat(map(noise.detection, cases)).to_csv(index=False))
    return cases, table


def _case(run: Path, condensed: CondensedSet, data: ImageData, chosen: params.Noise, place: str, kind: str, percent: int) -> noise.Case:
    """One damaged set and its dynamics. The same kind, percent and seed damage the same images. A set condensed from clean images
    is the run's own, where that was made by the same settings, and so are its dynamics."""
    clean = kind == noise.CLEAN
    arguments = {name: value for name, value in chosen.condensation().items() if name != "start"}  # the cells are known of real images alone
    own = clean and (place == "formed" or _made_by(condensed, data, arguments))
    inside = run if own else folder(str(run / "noise" / f"{place}-{kind}-{percent}"), chosen.dataset)
    condensed_from = lambda real: get_condensed(inside, chosen.real_dataset, lambda: real, go_on=True, **arguments)
    if clean:
        spoiled = condensed if own else condensed_from(data)
        damaged = torch.zeros(len(spoiled.formed_labels), dtype=torch.bool)
    elif place == "formed":
        spoiled, damaged = damage.damage_set(condensed, kind, percent, chosen.seed)
    else:
        real, which = damage.damage_data(data, kind, percent, chosen.seed)
        spoiled, damaged = condensed_from(real), which[start_set(real, **chosen.packing()).info["started_from"]]
    numbers = range(chosen.seed, chosen.seed + chosen.dynamics)
    dataset = chosen.dataset if own else chosen.real_dataset
    dynamics = get_all_dynamics(inside, spoiled, dataset, numbers, chosen.seed, **chosen.recording(condensed.size))
    return noise.Case(place, kind, percent, spoiled, damaged, dynamics)


def _made_by(condensed: CondensedSet, data: ImageData, arguments: dict[str, Any]) -> bool:
    """Whether `condense(data, **arguments)` made the set, to its end; the precision is not looked at."""
    named = ("method", "ipc", "factor", "preset", "seed")
    settings = {name: value for name, value in arguments.items() if name not in (*named, "precision", "time_budget", "nested", "start")}
    wanted = {"factor": condensed.factor, **{name: arguments[name] for name in named if name in arguments}}
    wanted |= {"settings": METHODS[wanted["method"]].settings_for(wanted["preset"], data.size, wanted["ipc"], settings).record()}
    wanted |= {"nested": budgets(arguments["nested"], wanted["ipc"]) if "nested" in arguments else None}
    wanted |= {"start": arguments["start"].fingerprint if "start" in arguments else None}
    wanted |= {"dataset": data.name, "images": len(data.train_images), "finished": True}
    return all(condensed.info.get(name) == value for name, value in wanted.items())


def describe(condensed: CondensedSet) -> str:
    """One line: method, dataset, budget, and whether it is finished."""
    info = condensed.info
    steps = f", {info['steps']} of {info['planned_steps']} steps ({info['preset']})" if "steps" in info else ""
    shape = f"{condensed.ipc} images a class, factor {condensed.factor}, {condensed.size}x{condensed.size}"
    nested = " (nested)" if info.get("nested") else ""
    return f"{condensed.method}{nested} of {info.get('dataset', 'unknown data')}, {shape}{steps}"
