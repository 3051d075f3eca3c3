"""The stages of `benchmarks.gpu`, in order: what says most per minute comes first."""

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from benchmarks import bench, gpu_sets, gpu_steps
from benchmarks.gpu_job import Job, Stage
from benchmarks.gpu_plan import Plan
from yoco import condense, evaluate
from yoco.selfcheck import report, speed
from yoco.utils import device as devices


def selfcheck(job: Job) -> dict[str, Any]:
    """Compare the device's results with stored ones, and time it."""
    where = devices.choose(job.device)
    found = []
    for result in report.results(where):
        print(result, result.error, flush=True)
        found.append({**asdict(result), "right": result.right})
    return {"results": found, "seconds": {name: speed.seconds(name, where) for name in speed.WORK}}


def steps(job: Job) -> list[dict[str, Any]]:
    """Time single steps, with Triton's kernels and without."""
    rows = []
    for row in gpu_steps.measure(devices.choose(job.device), list(job.plan.steps)):
        print(row, flush=True)
        rows.append(row)
    return rows


def bench_of(case: str) -> Callable[[Job], Any]:
    """Return the stage that times one case."""

    def work(job: Job) -> list[dict[str, Any]]:
        where = devices.choose(job.device)
        rows = bench.measure(case, where, job.plan.repeats, **job.plan.cases.get(case, {}))
        for row in rows:
            print(case, row["precision"], f"{row['ours_s']:.3f} s", f"{row['ratio']:.2f}×")
        return rows

    return work


def short_ncfm(job: Job) -> dict[str, Any]:
    """Condense within `short_seconds`, networks included, and test the set once.

    The networks stay for the sets after it.
    """
    plan, began = job.plan, time.monotonic()
    networks = job.networks(job.ncfm_settings(10, plan.short))
    ready = len(list(networks.glob("*.safetensors")))  # from an earlier call: they took no time
    made = condense.condense(
        job.real,
        "ncfm",
        device=job.device,
        expert_folder=networks,
        time_budget=plan.short_seconds,
        progress=False,
        **plan.short,
    )
    seconds = time.monotonic() - began
    found = evaluate.evaluate(*made.form(), job.real, seed=0, device=job.device, **plan.training)
    told = {"seconds": seconds, "steps": made.info["steps"], "accuracy": found}
    told["networks_ready"] = ready
    print(told, flush=True)
    return told


def stages(plan: Plan) -> list[Stage]:
    """Return all stages in order."""
    return [
        Stage("selfcheck", selfcheck, least=30.0),
        *([Stage("steps", steps, least=75.0)] if plan.steps else []),
        *(Stage(f"bench {case}", bench_of(case), least=30.0) for case in plan.cases),
        *([Stage("short ncfm", short_ncfm, least=1.4 * plan.short_seconds)] if plan.short else []),
        *(stage for name in plan.sets for stage in gpu_sets.of_set(plan, name)),
        *(gpu_sets.on_terms(plan, name) for name in plan.terms[0]),
        *(stage for name in plan.last for stage in gpu_sets.of_set(plan, name)),
    ]
