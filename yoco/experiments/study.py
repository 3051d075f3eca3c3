"""Grids of (method × IPC_T × dynamics × seed) to one tidy table; every finished training is on disk
and is skipped on the next start.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from yoco import condense, formation, models
from yoco.data.image_data import ImageData
from yoco.dynamics.dynamics import Dynamics
from yoco.evaluate import Training, accuracies, evaluate_many
from yoco.experiments.results_file import CELL, COLUMNS, append_result, read_results, write_results
from yoco.parallel import pool
from yoco.prune.methods import METHODS, OURS, compared, options_for, prune
from yoco.prune.select import Selection
from yoco.sets.condensed_set import CondensedSet
from yoco.sets.ranked_set import RankedSet
from yoco.training import timing
from yoco.training.network import BEFORE, PROTOCOLS, Protocol
from yoco.utils import checks, locks
from yoco.utils import device as devices
from yoco.utils.lazy import pd

# of condensation methods
COMPARED = [
    "method",
    "factor",
    "steps",
    "seconds",
    "subset",
    "seed",
    *BEFORE,
    "precision",
    "accuracy",
]
COMPILE_SECONDS = 300  # of condensing, that compiling may take its minute of


@dataclass(frozen=True, eq=False)
class Cell:
    """One training of a grid: a selection of a condensed set, the number of the dynamics behind it,
    a seed, and how it is done. labels: further columns of its row, the options of `prune` that made
    the selection among them.
    """

    condensed: CondensedSet
    selection: Selection
    dynamics: int
    seed: int
    protocol: Protocol
    labels: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of what decides its accuracy: the set, what stays of it, the
        protocol, the seed.
        """
        digest = hashlib.sha256(self.condensed.fingerprint.encode())
        digest.update(self.selection.indices.numpy().tobytes())
        protocol = {
            name: value
            for name, value in asdict(self.protocol).items()
            if (name, value) not in BEFORE.items()
        }
        protocol |= models.layout(self.protocol.model, *models.shape_of(self.condensed))
        digest.update(repr((sorted(protocol.items()), self.seed)).encode())
        return digest.hexdigest()[:16]

    def row(self, precision: str) -> dict[str, Any]:
        """Its columns, but for the accuracy."""
        s, p = self.selection, self.protocol
        values = (
            self.condensed.method,
            s.method,
            s.keep,
            s.balanced,
            s.ipc_to,
            self.dynamics,
            self.seed,
            p.epochs,
            self.fingerprint,
        )
        settings = (
            self.condensed.info.get("preset", ""),
            p.model,
            str(p.width or ""),
            *(getattr(p, name) for name in BEFORE),
            precision,
        )
        return {
            **dict(zip(COLUMNS, (*values, *settings))),
            "accuracy": None,
            **{k: v for k, v in self.labels.items() if k not in COLUMNS},
        }


def grid(
    condensed: CondensedSet,
    dynamics: Sequence[Dynamics | None],
    variants: Sequence[Mapping[str, Any]],
    *,
    ipc_to: Sequence[int] = (1, 2, 5),
    seeds: Sequence[int] = (0,),
    epochs: int | Mapping[int, int] = 1000,
    labels: Mapping[str, Any] | None = None,
    **options: Any,
) -> list[Cell]:
    """The cells of variants × budgets × dynamics × seeds, seeds changing fastest.

    dynamics: None for one that no variant needs; its number seeds what is drawn in its selections
    (random, SSP, CCS), so that "random" is averaged over as many draws. variants: arguments of
    `prune`, say {"method": "yoco", "balanced": False}. epochs: of every training, or of those at
    each budget. labels: further columns of every row. options: fields of `network.Protocol`, and
    `protocol`, "even" or "paper" (see `Protocol.of`). Raises ValueError or TypeError at bad
    arguments, and if dynamics were recorded with another last_batch or augmentation than the
    trainings have.
    """
    if not dynamics or not seeds or not variants:
        raise ValueError("dynamics, seeds and variants must hold at least one each")
    for name, values in (("ipc_to", ipc_to), ("seeds", seeds)):
        checks.different(name, values)
    by_budget = epochs if isinstance(epochs, Mapping) else dict.fromkeys(ipc_to, epochs)
    if lacking := [budget for budget in ipc_to if budget not in by_budget]:
        raise ValueError(f"epochs has no number for ipc_to {lacking}, only for {list(by_budget)}")
    protocols = {budget: Protocol.of(epochs=by_budget[budget], **options) for budget in ipc_to}
    check_recorded_alike(dynamics, protocols[ipc_to[0]])
    return [
        Cell(condensed, selection, number, seed, protocols[budget], {**(labels or {}), **variant})
        for variant in variants
        for budget in ipc_to
        for number, recorded in enumerate(dynamics)
        for selection in [prune(condensed, recorded, ipc_to=budget, seed=number, **variant)]
        for seed in seeds
    ]


def check_recorded_alike(dynamics: Sequence[Dynamics | None], protocol: Protocol) -> None:
    """Raise ValueError if any dynamics were recorded with another last_batch or augmentation than
    the trainings that follow have.
    """
    for number, recorded in enumerate(dynamics):
        for name, value in (recorded.training if recorded is not None else {}).items():
            if value != getattr(protocol, name):
                told = (
                    f"dynamics[{number}] were recorded with {name}={value!r}, the trainings have "
                    f"{getattr(protocol, name)!r}"
                )
                named = [
                    f"protocol={key!r}"
                    for key, fields in PROTOCOLS.items()
                    if fields.get(name) == value
                ]
                raise ValueError(
                    f"{told}; record them again, or train with "
                    f"{(named or [f'{name}={value!r}'])[0]}"
                )


@pool.without_backend
def train(
    cells: Sequence[Cell],
    data: ImageData,
    *,
    results: str | Path | None = None,
    device: str | torch.device = "auto",
    jobs: int | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Train and test every cell, equal ones once.

    Returns a row a cell, in order, with `COLUMNS` and its labels.

    results: a CSV file that finished trainings are read from, by their fingerprint, whatever grid
    they were made for, and appended to, one by one, and sorted at the end; each row has a checksum
    there. jobs, executor: trainings at once, and where, see `evaluate.accuracies` and `pool.run`.
    Raises ValueError if the file is no such table, or a row was altered, BlockingIOError if another
    run works on it, and as `evaluate.evaluate` and `pool.run`.
    """
    with locks.hold(results):
        return _train(
            cells, data, results, device, {"jobs": jobs, "executor": executor, "progress": progress}
        )


def _train(
    cells: Sequence[Cell],
    data: ImageData,
    results: str | Path | None,
    device: str | torch.device,
    how: Mapping[str, Any],
) -> pd.DataFrame:
    precision = {
        word: devices.choose_precision(word, devices.choose(device))
        for word in {cell.protocol.precision for cell in cells}
    }
    rows = [cell.row(precision[cell.protocol.precision]) for cell in cells]
    # the first of equal ones
    different = {row["fingerprint"]: number for number, row in reversed(list(enumerate(rows)))}
    done = read_results(results)
    names = sorted(different, key=different.__getitem__)
    missing = [position for position, name in enumerate(names) if name not in done]
    work = _trainings([cells[different[name]] for name in names])
    said = [
        ", ".join(f"{column}={rows[different[name]][column]}" for column in CELL) for name in names
    ]
    if missing and results is not None:
        # in today's format, without what a killed process left
        write_results(results, done.values())
    for position, accuracy in (
        accuracies(work, data, only=missing, names=said, device=device, **how) if missing else ()
    ):
        row = rows[different[names[position]]]
        done[names[position]] = {name: row[name] for name in COLUMNS} | {
            "accuracy": round(accuracy, 4)
        }
        if results is not None:
            append_result(results, done[names[position]])
    if missing and results is not None:
        others = [row for name, row in done.items() if name not in different]
        write_results(results, [*others, *(done[name] for name in names)])  # in the grid's order
    return pd.DataFrame([{**row, "accuracy": done[row["fingerprint"]]["accuracy"]} for row in rows])


def _trainings(cells: Sequence[Cell]) -> list[Training]:
    formed = {cell.condensed: cell.condensed.form() for cell in cells}  # once a set
    parts = [(cell, *formed[cell.condensed]) for cell in cells]
    return [
        Training(
            images[c.selection.indices],
            labels[c.selection.indices],
            c.seed,
            c.protocol,
            c.condensed.space,
        )
        for c, images, labels in parts
    ]


@pool.without_backend
def run(
    condensed: CondensedSet,
    data: ImageData,
    dynamics: Sequence[Dynamics | None],
    *,
    methods: Sequence[str] | None = None,
    results: str | Path | None = None,
    device: str | torch.device = "auto",
    jobs: int | None = None,
    executor: Executor | None = None,
    progress: bool = True,
    **options: Any,
) -> pd.DataFrame:
    """Prune by each method to each budget under each training dynamics, train and test under each
    seed.

    methods: names in `prune.METHODS` (None: `prune.compared` on the set).
    options: ipc_to, seeds, epochs and fields of `network.Protocol`, as of `grid`; results, jobs,
    executor: as of `train`. Returns a DataFrame with columns condensation, method, keep, balanced,
    ipc_to, dynamics, seed, epochs, fingerprint (of what stays and how it is trained on), preset (of
    the set), model, width (empty: the model's own), last_batch ("even" or "small"), augmentation
    ("dsa" or "imagenet"), precision, accuracy (%); the grid's cells only, in the grid's order.
    Raises ValueError or TypeError at bad arguments before any training.
    """
    cells = grid(
        condensed,
        dynamics,
        [{"method": method} for method in (compared(condensed) if methods is None else methods)],
        **options,
    )
    return train(
        cells, data, results=results, device=device, jobs=jobs, executor=executor, progress=progress
    )


def selections(
    condensed: CondensedSet, dynamics: Dynamics, ipc_to: Sequence[int], **options: Any
) -> list[Selection]:
    """What every method that these dynamics allow keeps at every budget; options: of `prune`, each
    to the methods that read it.
    """
    allowed = [
        name for name in compared(condensed) if dynamics.complete or METHODS[name].needs != "full"
    ]
    return [
        prune(condensed, dynamics, name, budget, **options_for(name, options))
        for name in allowed
        for budget in ipc_to
    ]


def condensations(
    data: ImageData,
    methods: Sequence[str],
    seconds: float,
    *,
    ipc: int = 10,
    preset: str = "laptop",
    seed: int = 0,
    seeds: Sequence[int] = (0,),
    device: str | torch.device = "auto",
    progress: bool = True,
    precision: str = "auto",
    ready: Mapping[str, CondensedSet] | None = None,
    known: Mapping[str, pd.DataFrame] | None = None,
    **training: Any,
) -> tuple[pd.DataFrame, dict[str, CondensedSet]]:
    """Condense by each method for as many seconds, and train and test on each start and each
    result.

    ready: sets by method that are there already, of this ipc, preset and seed; the others are
    condensed. known: by method, what `evaluate_many` gave for "start" and "condensed", which are
    not trained on again if it has all of `seeds`. Methods that start from the same images share the
    trainings on them.

    A method's schedule goes on until the time is over, MTT's experts included in it; each takes its
    own factor. training: epochs, and fields of `network.Protocol`. Returns a table with columns
    method, factor, steps, seconds, subset ("start" or "condensed"), seed, last_batch, augmentation,
    precision, accuracy (%), and the sets by method. Raises as `condense` and `evaluate_many`.
    """
    made = dict(ready or {})
    if progress:
        timing.announce(seconds * sum(method not in made for method in methods))
    known = {
        method: table
        for method, table in (known or {}).items()
        if method in methods and set(seeds) <= set(table.seed)
    }
    common: dict[str, Any] = {
        "ipc": ipc,
        "preset": preset,
        "seed": seed,
        "device": device,
        "precision": precision,
    }
    for method in tqdm(methods, desc="condensing by each method", disable=not progress):
        if method not in made:
            options: dict[str, Any] = {
                "time_budget": seconds,
                "progress": False,
                "compiled": None if seconds >= COMPILE_SECONDS else False,
            }
            made[method] = condense.condense(
                data, method, **common, **options, **condense.METHODS[method].unending
            )
    own = [method for method in methods if method not in known]
    starts = {method: condense.start_set(data, method, **common) for method in methods}
    trained_by = {starts[method].fingerprint: method for method in (*reversed(own), *known)}
    twins = {
        method: other
        for method in own
        if (other := trained_by[starts[method].fingerprint]) != method
    }
    subsets = {(method, "start"): starts[method].form() for method in own if method not in twins}
    subsets |= {(method, "condensed"): made[method].form() for method in own}
    tables = [
        table[table.seed.isin(seeds)].assign(method=method) for method, table in known.items()
    ]
    if subsets:
        trained = evaluate_many(
            subsets,
            data,
            seeds=seeds,
            device=device,
            progress=progress,
            precision=precision,
            **training,
        )
        tables.append(trained.assign(method=trained.subset.str[0], subset=trained.subset.str[1]))
    results = pd.concat(tables)
    shared = [
        results[(results.method == other) & (results.subset == "start")].assign(method=method)
        for method, other in twins.items()
    ]
    results = pd.concat([*shared, results])
    told = pd.DataFrame(
        [(m, made[m].factor, made[m].info["steps"], made[m].info["seconds"]) for m in methods],
        columns=COMPARED[:4],
    )
    return told.merge(results, on="method")[COMPARED], {method: made[method] for method in methods}


def by_bytes(
    condensed: CondensedSet,
    data: ImageData,
    dynamics: Dynamics,
    folder: str | Path,
    *,
    methods: Sequence[str] | None = None,
    ipc_to: Sequence[int] | None = None,
    seeds: Sequence[int] = (0,),
    progress: bool = True,
    **training: Any,
) -> pd.DataFrame:
    """Accuracy of balanced choices of each method (None: of all) against their bytes, stored as
    uint8 cells (of an unbounded set as float32 alone).

    A method whose choices nest has them as prefixes of one file, `ranked-<method>.safetensors` in
    `folder`; SSP and CCS choose anew for each budget, and their cells are rounded to bytes alike.
    methods: as of `run`. ipc_to: budgets (None: IPC 1, 2, 5 and all). YOCO's prefixes are also
    taken as float32, four times the bytes. training: of `evaluate_many`. Returns a table with
    columns method, stored, per_class (cells), bytes (of cells), seed, last_batch, augmentation,
    precision, accuracy (%).
    """
    budgets = ipc_to or sorted({min(ipc, condensed.ipc) for ipc in (1, 2, 5, condensed.ipc)})
    cell_bytes = (
        formation.cell_size(condensed.size, condensed.factor) ** 2
        * condensed.channels
        * len(condensed.classes)
    )
    subsets = {}
    for method in compared(condensed) if methods is None else methods:
        for stored, width, ipc, subset in _stored(
            condensed, dynamics, method, budgets, Path(folder)
        ):
            subsets[
                method,
                stored,
                ipc * condensed.factor**2,
                ipc * condensed.factor**2 * cell_bytes * width,
            ] = subset
    table = evaluate_many(
        subsets, data, seeds=seeds, progress=progress, space=condensed.space, **training
    )
    names = pd.DataFrame(
        table.pop("subset").tolist(), columns=["method", "stored", "per_class", "bytes"]
    )
    return pd.concat([names, table], axis=1)


def _stored(
    condensed: CondensedSet, dynamics: Dynamics, method: str, budgets: Sequence[int], folder: Path
) -> Iterator[tuple[str, int, int, tuple[torch.Tensor, torch.Tensor]]]:
    """What a method keeps at each budget as it comes back from bytes: (stored as, bytes a value,
    ipc, images and labels).
    """
    stored = ("uint8", 1) if condensed.bounded else ("float32", 4)
    if not METHODS[method].nests:
        rounded = (
            replace(condensed, images=(condensed.images * 255).round() / 255)
            if condensed.bounded
            else condensed
        )
        yield from (
            (*stored, ipc, prune(condensed, dynamics, method, ipc, balanced=True).subset(rounded))
            for ipc in budgets
        )
        return
    exact = condensed.rank(dynamics, method)
    file = RankedSet.open(exact.save(folder / f"ranked-{method}.safetensors"))
    yield from ((*stored, ipc, file.take(ipc=ipc)) for ipc in budgets)
    if method == OURS and condensed.bounded:
        yield from (("float32", 4, ipc, exact.take(ipc=ipc)) for ipc in budgets)
