"""Stages of `benchmarks.gpu` that make sets and measure with them, each as its recipe says."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks import ncfm_terms
from benchmarks.gpu_job import Job, Stage
from benchmarks.gpu_plan import Plan
from yoco import condense, dynamics
from yoco.dynamics import Dynamics
from yoco.experiments import study, tables

AFTER = 20.0  # seconds that a condensation of limited time needs besides
CARRIED = 1000  # formed images: dynamics on larger sets are too large to travel
TERMS = "terms.csv"


def of_set(plan: Plan, name: str) -> Iterator[Stage]:
    """Yield the stages of a set: it is made, then tested and pruned with each protocol."""
    recipe = plan.recipes[name]
    if not recipe.given:
        least = recipe.least if recipe.most is None else recipe.most + AFTER
        yield Stage(name, condensing(name), _made(plan, recipe.start), least)
    ready = _made(plan, name)
    if recipe.protocols:
        yield Stage(f"{name} accuracy", accuracy(name), ready, recipe.least)
    for protocol in () if recipe.block is None else recipe.protocols:
        yield Stage(f"{name} block {protocol}", block(name, protocol), ready, recipe.block)


def _made(plan: Plan, name: str | None) -> tuple[str, ...]:
    """Return the stage that makes a set; none if it is given, or there is no set."""
    return () if name is None or plan.recipes[name].given else (name,)


def condensing(name: str) -> Callable[[Job], Any]:
    """Return the stage that makes a set; its checkpoint continues it."""

    def work(job: Job) -> dict[str, Any] | None:
        recipe, checkpoint = job.plan.recipes[name], job.work / f"{name}.checkpoint.safetensors"
        given: dict[str, Any] = {}
        if recipe.method == "ncfm":
            settings = job.ncfm_settings(recipe.ipc, recipe.settings)
            given["expert_folder"] = job.networks(settings)
        if recipe.start:
            given["start"] = job.set(recipe.start)
        made = condense.condense(
            job.real,
            recipe.method,
            recipe.ipc,
            device=job.device,
            checkpoint=checkpoint,
            time_budget=min(job.left(), recipe.most or job.left()),
            progress=False,
            **given,
            **recipe.settings,
        )
        told = {key: made.info[key] for key in ("steps", "seconds", "precision", "finished")}
        print(name, told, f"loss {made.info['loss'][-1]:.4g}" if made.info["loss"] else "")
        if not made.info["finished"] and recipe.most is None:
            return None
        made.save(job.made(name))
        checkpoint.unlink()
        return told

    return work


def accuracy(name: str) -> Callable[[Job], Any]:
    """Return the stage that tests a set with every seed; a nested one at each budget as well."""

    def work(job: Job) -> dict[str, str]:
        made, protocols = job.set(name), job.plan.recipes[name].protocols
        parts = [ipc for ipc in job.plan.budgets if ipc < made.ipc and made.info.get("nested")]
        found = {
            protocol: study.run(
                made,
                job.real,
                [None],
                methods=["prefix"],
                ipc_to=[*parts, made.ipc],
                seeds=job.plan.seeds,
                results=job.work / f"{name}.{protocol}.accuracy.csv",
                **_training(job, protocol),
            )
            for protocol in protocols
        }
        return {protocol: _shown(f"{name}, {protocol}", found[protocol]) for protocol in found}

    return work


def block(name: str, protocol: str) -> Callable[[Job], Any]:
    """Return the stage of a set's block of Table 2: dynamics, then every method and budget."""

    def work(job: Job) -> str:
        made, results = job.set(name), job.work / f"{name}.{protocol}.csv"
        recorded = _recorded(job, name, protocol, results)
        found = study.run(
            made,
            job.real,
            [Dynamics.load(path) for path in recorded],
            ipc_to=job.plan.budgets,
            results=results,
            **_training(job, protocol),
        )
        for path in recorded:  # they are large, and recorded again in seconds
            path.unlink()
        return _shown(f"{name}, {protocol}", found)

    return work


def _recorded(job: Job, name: str, protocol: str, results: Path) -> list[Path]:
    """Return the dynamics of each seed, recorded at once unless they are there.

    Results from other dynamics are removed.
    """
    made, seeds = job.set(name), job.plan.seeds
    folder = job.work if len(made.formed_labels) <= CARRIED else job.scratch
    paths = {seed: folder / f"{name}.{protocol}.dynamics-{seed}.safetensors" for seed in seeds}
    if not all(path.exists() for path in paths.values()):
        results.unlink(missing_ok=True)
        for seed, run in dynamics.record_many(made, seeds=seeds, **_training(job, protocol)):
            run.save(paths[seed], torch.float16)
    return list(paths.values())


def _training(job: Job, protocol: str) -> dict[str, Any]:
    """Return the options of every training on a set, all in this process."""
    shared = {"device": job.device, "jobs": 1, "progress": False}
    return {"protocol": protocol, **shared, **job.plan.training}


def _shown(name: str, results: pd.DataFrame) -> str:
    """Print and return the means of a study as Markdown."""
    shown = tables.markdown(tables.pivot(tables.summary(results)).T)
    print(f"{name}:\n{shown}", flush=True)
    return shown


def on_terms(plan: Plan, name: str) -> Stage:
    """Return the stage that tests a set on NCFM's own terms and on the paper's."""
    _, budgets, seeds, epochs = plan.terms

    def work(job: Job) -> str:
        sets, protocols = {name: job.set(name)}, list(ncfm_terms.TITLES)
        wanted = list(ncfm_terms.plan(sets, budgets, seeds, protocols, epochs))
        found = ncfm_terms.measure(sets, job.real, job.work / TERMS, wanted, device=job.device)
        return ncfm_terms.table(found[found["set"] == name])

    return Stage(f"{name} on terms", work, _made(plan, name), plan.recipes[name].least)
