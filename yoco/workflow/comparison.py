"""Sets of other condensation methods beside a run's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from yoco import zoo
from yoco.condense.methods import factor_of
from yoco.data.image_data import ImageData
from yoco.experiments.condensations import condensations
from yoco.sets.condensed_set import CondensedSet
from yoco.utils import digests, owned
from yoco.utils.lazy import pd
from yoco.workflow import found_set, parameters
from yoco.workflow.condensation import describe, get_condensed
from yoco.workflow.run_folder import CHECKPOINT, CONDENSED, folder

# what a set's info says about how it was made
OF_ITS_MAKING = ("method", "ipc", "factor", "settings", "seed", "steps", "start", "nested")


def get_beside(
    run: Path, chosen: parameters.Parameters, method: str, data: ImageData
) -> tuple[Path, CondensedSet]:
    """Return the set that another method condensed from the same data, and its folder.

    The folder is a run of its own inside the run's. A missing set is the zoo's of that dataset and
    preset, or condensed now. chosen: parameters of a notebook.
    """
    if method == chosen.method:
        return run, get_condensed(run, chosen.dataset, lambda: data, **chosen.condensation())
    inside = folder(str(run / method), chosen.dataset)
    take_from_zoo(inside, chosen, method, data)
    return inside, get_condensed(
        inside, chosen.dataset, lambda: data, **chosen.condensation(method)
    )


def possible(
    run: Path,
    chosen: parameters.Parameters,
    methods: Sequence[str],
    data: ImageData,
    *,
    given: bool,
) -> list[str]:
    """Return condensation methods without those that need more images than a class has.

    A message names the methods left out. Those that were given, or whose set exists, stay in.

    Args:
        run: the run's folder.
        chosen: parameters of a notebook.
        methods: condensation methods.
        data: the real data.
        given: whether the user named these methods.
    """
    if given:
        return list(methods)
    fewest = min(data.counts())
    short = [
        method
        for method in methods
        if method != chosen.method
        and fewest < chosen.ipc * factor_of(method, data.size) ** 2
        and not (run / method / CONDENSED).exists()
    ]
    if short:
        print(
            f"left out: {', '.join(short)}: ipc={chosen.ipc} with their factor needs more than the "
            f"{fewest} training images that a class has"
        )
    return [method for method in methods if method not in short]


def ready_sets(
    run: Path, chosen: parameters.Parameters, methods: Sequence[str], data: ImageData
) -> dict[str, CondensedSet]:
    """Return those of the methods' sets that need no condensing, by method.

    They are in the run's folder or ship with the zoo.
    """
    there = {
        method: run if method == chosen.method else folder(str(run / method), chosen.dataset)
        for method in methods
    }
    for method, inside in there.items():
        take_from_zoo(inside, chosen, method, data)
    return {
        method: get_beside(run, chosen, method, data)[1]
        for method, inside in there.items()
        if (inside / CONDENSED).exists()
    }


def get_comparison(
    run: Path, chosen: parameters.Condensation, data: ImageData, known: pd.DataFrame
) -> tuple[pd.DataFrame, dict[str, CondensedSet]]:
    """Return the accuracies of each condensation method's start and result, and the sets.

    If every set was made as the zoo's, and networks are trained as in the preset, the accuracies
    that ship with the zoo's sets are read and nothing is trained. Else as `study.condensations`.

    Args:
        run: the run's folder.
        chosen: parameters of 01; `compare` names the methods.
        data: the real data.
        known: the accuracies of the run's own start and result, of `evaluate_many`.

    Returns:
        A table with columns method, factor, steps, seconds, subset ("start" or "condensed"),
        accuracy (%) and others, and the sets by method.
    """
    compared = possible(run, chosen, chosen.compare, data, given="compare" in chosen.explicit)
    sets = ready_sets(run, chosen, compared, data)
    names = {method: _zoo_name(chosen, method, data) for method in compared}
    alike = (
        _ships(name, chosen, data) and method in sets and _made_alike(sets[method], zoo.load(name))
        for method, name in names.items()
    )
    if compared and chosen.trains_as_preset and all(alike):
        print(f"accuracies from the zoo: {zoo.load(names[compared[0]]).info['evaluation']}")
        return _shipped(names), {method: sets[method] for method in compared}
    training = {
        **chosen.training(data.size),
        "seeds": range(chosen.seed, chosen.seed + chosen.compare_seeds),
    }
    return condensations(
        data,
        compared,
        chosen.compare_seconds,
        ready=sets,
        known={chosen.method: known},
        ipc=chosen.ipc,
        preset=chosen.scale,
        seed=chosen.seed,
        **training,
    )


def _made_alike(found: CondensedSet, shipped: CondensedSet) -> bool:
    """Whether a set of the same images was made in the same way, so that it differs by rounding."""
    return all(found.info.get(name) == shipped.info.get(name) for name in OF_ITS_MAKING)


def _shipped(names: Mapping[str, str]) -> pd.DataFrame:
    """Return one row per method and subset from the zoo's sets, named by method."""
    named = {"start_accuracy": "start", "accuracy": "condensed"}
    rows = zoo.table().set_index("name").loc[list(names.values())].rename(columns=named)
    return rows.assign(seconds=rows.hours * 3600).melt(
        ["method", "factor", "steps", "seconds", "precision", "evaluation"],
        ["start", "condensed"],
        "subset",
        "accuracy",
    )


def _zoo_name(chosen: parameters.Parameters, method: str, data: ImageData) -> str:
    return f"{data.name}-{method}-ipc{chosen.ipc}"


def _ships(name: str, chosen: parameters.Parameters, data: ImageData) -> bool:
    """Whether the zoo has a set of that name, made from these images as was asked for."""
    if name not in zoo.names():
        return False
    shipped = zoo.load(name)
    asked = {**chosen.condensation(shipped.method).get("explicit", {}), "preset": chosen.scale}
    return found_set.is_of(shipped, data) and not found_set.differing(shipped, None, asked)


def take_from_zoo(
    inside: Path, chosen: parameters.Parameters, method: str, data: ImageData
) -> None:
    """Put the zoo's set of a dataset, method (or "nested") and preset into a folder without a set.

    If the zoo has none, nothing happens.
    """
    name = _zoo_name(chosen, method, data)
    there = any((inside / file).exists() for file in (CONDENSED, CHECKPOINT))
    if not there and _ships(name, chosen, data):
        shipped = zoo.load(name)
        print(f"from the zoo: {describe(shipped)}")
        told = {**shipped.info, digests.MADE_FROM: data.made_from}
        replace(shipped, info=told).save(owned.claim(inside) / CONDENSED)
