"""Grids of (method × IPC_T × dynamics × seed) to one tidy table; every finished cell is on disk and is skipped on the next start."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm.auto import tqdm

from yoco import checks, condense, files, formation, paper
from yoco import device as devices
from yoco.condensed import CondensedSet, RankedSet
from yoco.data import ImageData
from yoco.dynamics import Dynamics
from yoco.evaluate import accuracies, evaluate_many
from yoco.prune import METHODS, RANKING, Selection, prune
from yoco.train import Protocol

KEY = ["condensation", "method", "ipc_to", "dynamics", "seed", "epochs", "fingerprint"]
SETTINGS = ["preset", "model", "width", "precision"]  # of the condensation; of the trainings
COLUMNS = [*KEY, *SETTINGS, "accuracy"]
COMPILE_SECONDS = 300  # of condensing, that compiling may take its minute of


def run(
    condensed: CondensedSet,
    data: ImageData,
    dynamics: Sequence[Dynamics],
    *,
    methods: Sequence[str] = tuple(METHODS),
    ipc_to: Sequence[int] = (1, 2, 5),
    seeds: Sequence[int] = (0,),
    epochs: int = 1000,
    results: str | Path | None = None,
    device: str | torch.device = "auto",
    jobs: int | None = None,
    progress: bool = True,
    **options: Any,
) -> pd.DataFrame:
    """Prune by each method to each budget under each training dynamics, train and test under each seed.

    The number of a dynamics seeds what is drawn in its selections (random, SSP, CCS), so that "random" is averaged over
    as many draws. results: a CSV file that finished cells are read from and written to, one by one. options: fields of
    `train.Protocol`. Returns a DataFrame with columns condensation, method, ipc_to, dynamics, seed, epochs, fingerprint
    (of the set, its dynamics and the protocol), preset (of the set), model, width (empty: the model's own), precision,
    accuracy (%); the grid's cells only, in the grid's order. Raises ValueError or TypeError at bad arguments before any
    training.
    """
    if not dynamics or not seeds:
        raise ValueError("dynamics and seeds must hold at least one each")
    protocol = Protocol(epochs=epochs, **options)
    grid = [
        (selection, number, seed)
        for number, recorded in enumerate(dynamics)
        for selection in (prune(condensed, recorded, method, budget, seed=number) for method in methods for budget in ipc_to)
        for seed in seeds
    ]
    prints = [fingerprint(condensed, recorded, protocol) for recorded in dynamics]
    keys = [(condensed.method, s.method, s.ipc_to, number, seed, epochs, prints[number]) for s, number, seed in grid]
    done = _finished(results)
    missing = [i for i, key in enumerate(keys) if key not in done]
    images, labels = condensed.form()
    work = [(images[selection.indices], labels[selection.indices], seed) for selection, _, seed in grid]
    settings = _settings(condensed, protocol, device)
    for number, accuracy in accuracies(work, data, protocol, only=missing, device=device, jobs=jobs, progress=progress) if missing else ():
        done[keys[number]] = (*settings, round(accuracy, 4))
        if results is not None:
            files.write_text(results, _table(done, [*(key for key in done if key not in keys), *keys]).to_csv(index=False))
    return _table(done, keys)


def _settings(condensed: CondensedSet, protocol: Protocol, device: str | torch.device) -> tuple[Any, ...]:
    precision = devices.choose_precision(protocol.precision, devices.choose(device))
    return condensed.info.get("preset", ""), protocol.model, str(protocol.width or ""), precision


def fingerprint(condensed: CondensedSet, dynamics: Dynamics, protocol: Protocol) -> str:
    """Eight hexadecimal digits that change with the set, the recorded run or the protocol."""
    digest = hashlib.sha256(condensed.fingerprint.encode())
    digest.update(dynamics.correct.numpy().tobytes())
    digest.update(repr(sorted(asdict(protocol).items())).encode())
    return digest.hexdigest()[:8]


def _finished(results: str | Path | None) -> dict[tuple, tuple]:
    if results is None or not Path(results).exists():
        return {}
    text = {name: str for name in ("fingerprint", *SETTINGS)}
    table = pd.read_csv(results, dtype=text, keep_default_na=False)
    missing = set(COLUMNS) - set(table.columns)
    if missing:
        raise ValueError(f"{results} is no table of results: it lacks the columns {', '.join(sorted(missing))}")
    return {row[: len(KEY)]: row[len(KEY) :] for row in table[COLUMNS].itertuples(index=False, name=None)}


def _table(cells: dict[tuple, tuple], keys: Sequence[tuple]) -> pd.DataFrame:
    """The cells of `keys` that are there, in that order."""
    return pd.DataFrame([(*key, *cells[key]) for key in keys if key in cells], columns=COLUMNS)


def selections(condensed: CondensedSet, dynamics: Dynamics, ipc_to: Sequence[int], **options: Any) -> list[Selection]:
    """What every method that these dynamics allow keeps at every budget; options: of `prune`."""
    allowed = [m for m in METHODS.values() if dynamics.complete or m.training != "full"]
    return [prune(condensed, dynamics, method.name, budget, **options) for method in allowed for budget in ipc_to]


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
    **training: Any,
) -> tuple[pd.DataFrame, dict[str, CondensedSet]]:
    """Condense by each method for as many seconds, and train and test on each start and each result.

    A method's schedule goes on until the time is over, MTT's experts included in it; each takes its own factor. training:
    epochs, and fields of `train.Protocol`. Returns a table with columns method, factor, steps, seconds, subset ("start" or
    "condensed"), seed, precision, accuracy (%), and the sets by method. Raises as `condense` and `evaluate_many`.
    """
    made, tables = {}, []
    for method in tqdm(methods, desc="condensing by each method", disable=not progress):
        common = {"ipc": ipc, "preset": preset, "seed": seed, "device": device, "precision": precision}
        start = condense.start_set(data, method, **common)
        options = {"time_budget": seconds, "progress": False, "compiled": None if seconds >= COMPILE_SECONDS else False}
        made[method] = condensed = condense.condense(data, method, **common, **options, **condense.unending(method))
        subsets = {"start": start.form(), "condensed": condensed.form()}
        table = evaluate_many(subsets, data, seeds=seeds, device=device, progress=False, precision=precision, **training)
        tables.append(table.assign(method=method, factor=condensed.factor, steps=condensed.info["steps"], seconds=condensed.info["seconds"]))
    columns = ["method", "factor", "steps", "seconds", "subset", "seed", "precision", "accuracy"]
    return pd.concat(tables, ignore_index=True)[columns], made


def by_bytes(
    condensed: CondensedSet,
    data: ImageData,
    dynamics: Dynamics,
    folder: str | Path,
    *,
    methods: Sequence[str] = tuple(METHODS),
    ipc_to: Sequence[int] | None = None,
    seeds: Sequence[int] = (0,),
    progress: bool = True,
    **training: Any,
) -> pd.DataFrame:
    """Accuracy of balanced choices of each method against their bytes, stored as uint8 cells.

    A method whose choices nest has them as prefixes of one file, `ranked-<method>.safetensors` in `folder`; SSP and CCS
    choose anew for each budget, and their cells are rounded to bytes alike. ipc_to: budgets (None: IPC 1, 2, 5 and all).
    YOCO's prefixes are also taken as float32, four times the bytes. training: of `evaluate_many`. Returns a table with
    columns method, stored, per_class (cells), bytes (of cells), seed, precision, accuracy (%).
    """
    budgets = ipc_to or sorted({min(ipc, condensed.ipc) for ipc in (1, 2, 5, condensed.ipc)})
    cell_bytes = formation.cell_size(condensed.size, condensed.factor) ** 2 * condensed.channels * len(condensed.classes)
    subsets = {}
    for method in methods:
        for stored, width, ipc, subset in _stored(condensed, dynamics, method, budgets, Path(folder)):
            subsets[method, stored, ipc * condensed.factor**2, ipc * condensed.factor**2 * cell_bytes * width] = subset
    table = evaluate_many(subsets, data, seeds=seeds, progress=progress, **training)
    names = pd.DataFrame(table.pop("subset").tolist(), columns=["method", "stored", "per_class", "bytes"])
    return pd.concat([names, table], axis=1)


def _stored(
    condensed: CondensedSet, dynamics: Dynamics, method: str, budgets: Sequence[int], folder: Path
) -> Iterator[tuple[str, int, int, tuple[torch.Tensor, torch.Tensor]]]:
    """What a method keeps at each budget as it comes back from bytes: (stored as, bytes a value, ipc, images and labels)."""
    if method not in RANKING:
        rounded = replace(condensed, images=(condensed.images * 255).round() / 255)
        yield from (("uint8", 1, ipc, prune(condensed, dynamics, method, ipc, balanced=True).subset(rounded)) for ipc in budgets)
        return
    exact = condensed.rank(dynamics, method)
    file = RankedSet.open(exact.save(folder / f"ranked-{method}.safetensors"))
    yield from (("uint8", 1, ipc, file.take(ipc=ipc)) for ipc in budgets)
    if method == "yoco":
        yield from (("float32", 4, ipc, exact.take(ipc=ipc)) for ipc in budgets)


def class_balance(condensed: CondensedSet, kept: Sequence[Selection]) -> pd.DataFrame:
    """Formed images that stay in each class: columns method, ipc_to, balanced, class, kept; a row for each."""
    rows = [
        (s.method, s.ipc_to, s.balanced, name, count)
        for s in kept
        for name, count in zip(condensed.classes, s.per_class_counts.tolist())
    ]
    return pd.DataFrame(rows, columns=["method", "ipc_to", "balanced", "class", "kept"])


def summary(results: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation (of a sample) and number of runs of each method and budget: method, ipc_to, mean, std, n,
    precision (where runs differ in it: each, joined by "+")."""
    grouped = results.groupby(["method", "ipc_to"], sort=False)
    accuracy = grouped["accuracy"].agg(mean="mean", std="std", n="count")
    return accuracy.assign(precision=grouped["precision"].agg(lambda used: "+".join(sorted(set(used))))).reset_index()


def pivot(table: pd.DataFrame) -> pd.DataFrame:
    """A table of IPC_T × methods, each cell "mean ± std" in %; `table` has columns method, ipc_to, mean, std."""
    cells = table.assign(cell=[_cell(m, s) for m, s in zip(table["mean"], table["std"])])
    wide = cells.pivot(index="ipc_to", columns="method", values="cell")
    return wide[list(dict.fromkeys(table.method))].rename_axis(index="IPC_T", columns=None)


def _cell(mean: float, std: float) -> str:
    if pd.isna(mean):
        return "–"
    return f"{mean:.2f}" if pd.isna(std) else f"{mean:.2f} ± {std:.2f}"


def beside_paper(results: pd.DataFrame, condensed: CondensedSet) -> pd.DataFrame | None:
    """Ours beside Table 2: method, ipc_to, precision, ours, paper, difference (these in %); None where the paper has no such rows.

    Raises ValueError where the set does not say its dataset.
    """
    if "dataset" not in condensed.info:
        raise ValueError("condensed.info has no 'dataset', which says the rows of Table 2 to compare with")
    published = paper.beside(paper.dataset_of(condensed.info["dataset"], len(condensed.classes)), condensed.ipc)
    if published is None:
        return None
    ours = summary(results)[["method", "ipc_to", "precision", "mean"]].rename(columns={"mean": "ours"})
    both = ours.merge(published.rename(columns={"mean": "paper"})[["method", "ipc_to", "paper"]], on=["method", "ipc_to"], how="left")
    return both.assign(difference=both.ours - both.paper)


def paired(results: pd.DataFrame, against: str = "yoco") -> pd.DataFrame:
    """YOCO minus each other method, paired over dynamics and seeds: method, ipc_to, mean, std (in %), wins, n."""
    checks.one_of("against", against, set(results.method))
    wide = results.pivot_table(index=["ipc_to", "dynamics", "seed"], columns="method", values="accuracy", sort=False)
    gaps = wide[[against]].values - wide.drop(columns=against)
    long = gaps.melt(ignore_index=False, var_name="method", value_name="gap").reset_index()
    grouped = long.groupby(["ipc_to", "method"], sort=False)["gap"]
    return grouped.agg(mean="mean", std="std", wins=lambda gap: int((gap > 0).sum()), n="count").reset_index()
