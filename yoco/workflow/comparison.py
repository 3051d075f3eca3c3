"""Sets of other condensation methods beside a run's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from yoco import zoo
from yoco.data.image_data import ImageData
from yoco.sets.condensed_set import CondensedSet
from yoco.utils import digests, owned
from yoco.workflow import parameters
from yoco.workflow.condensation import describe, get_condensed
from yoco.workflow.run_folder import CHECKPOINT, CONDENSED, folder


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
    ready = [method for method, inside in there.items() if (inside / CONDENSED).exists()]
    return {method: get_beside(run, chosen, method, data)[1] for method in ready}


def take_from_zoo(
    inside: Path, chosen: parameters.Parameters, method: str, data: ImageData
) -> None:
    """Put the zoo's set of a dataset, method (or "nested") and preset into a folder without a set.

    If the zoo has none, nothing happens.
    """
    name = f"{data.name}-{method}-ipc{chosen.ipc}"
    if any((inside / file).exists() for file in (CONDENSED, CHECKPOINT)) or name not in zoo.names():
        return
    shipped = zoo.load(name)
    asked = {name: getattr(chosen, name) for name in chosen.explicit if name == "seed"}
    if (
        shipped.info["dataset"] == data.name
        and shipped.info["preset"] == chosen.scale
        and chosen.size is None
        and all(shipped.info.get(name) == value for name, value in asked.items())
    ):
        print(f"from the zoo: {describe(shipped)}")
        told = {**shipped.info, digests.MADE_FROM: data.made_from}
        replace(shipped, info=told).save(owned.claim(inside) / CONDENSED)
