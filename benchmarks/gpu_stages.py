"""The stages of `benchmarks.gpu`: what each does in the time that is left."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks import bench, cases, mosaic, packed_pool
from yoco import condense, data, dynamics, evaluate
from yoco.condense.mtt_experts import train_experts
from yoco.condense.ncfm_settings import NcfmSettings
from yoco.data import ImageData
from yoco.dynamics import Dynamics
from yoco.experiments import study, tables
from yoco.selfcheck import report, speed
from yoco.sets.condensed_set import CondensedSet
from yoco.utils import device as devices

POOL, RESULTS = "pool.safetensors", "results.csv"


@dataclass(frozen=True)
class Plan:
    """How large the work is; the defaults are the paper's for CIFAR-10, IPC 10.

    Attributes:
        ipc: IPC_F.
        short: settings of NCFM for a set in `short_seconds`, networks included.
        ncfm, idc: settings of the long runs; IDC continues NCFM's set.
        epochs: of every training on a set.
        evaluations, recordings: seeds of each set's accuracy, and of the dynamics.
        training: further options of trainings.
        cases: cases of the benchmark with their options.
        repeats: timed runs of each side of a case.
    """

    ipc: int = 10
    short_seconds: float = 110.0
    short: Mapping[str, Any] = field(
        default_factory=lambda: {
            "preset": "paper",
            "pool_networks": 5,
            "pool_epochs": 20,
            "iterations": 2900,
            "real_batch": 128,
            "frequencies": 2048,
            "image_lr": 0.01,
            "final_lr": 0.001,
        }
    )
    ncfm: Mapping[str, Any] = field(default_factory=lambda: {"preset": "paper"})
    idc: Mapping[str, Any] = field(default_factory=lambda: {"preset": "paper", "outer_loops": 75})
    epochs: int = 1000
    evaluations: int = 3
    recordings: int = 3
    training: Mapping[str, Any] = field(default_factory=dict)
    cases: Mapping[str, Mapping[str, Any]] = field(
        default_factory=lambda: {name: {} for name in cases.CASES}
    )
    repeats: int = 3


# minutes on a CPU, to rehearse
TINY = Plan(
    ipc=1,
    short_seconds=30.0,
    short={"preset": "smoke", "iterations": 3, "pool_epochs": 1, "pool_images": 64, "width": 8},
    ncfm={"preset": "smoke", "iterations": 6, "pool_epochs": 1, "pool_images": 64, "width": 8},
    idc={"preset": "smoke", "outer_loops": 1, "inner_loops": 3, "width": 8},
    epochs=3,
    evaluations=2,
    recordings=2,
    training={"width": 8},
    cases={"train_40": {"epochs": 1}},
    repeats=1,
)


@dataclass
class Job:
    """One call: its folder, its time and what it works on.

    Attributes:
        out: folder of everything that the next call needs.
        scratch: folder that is gone after the call.
        source: a folder of `mosaic`, or the name of a dataset.
        device: where everything is done.
        plan: how large it is.
        end: when the call has to be over, by the monotonic clock.
    """

    out: Path
    scratch: Path
    source: str
    device: str
    plan: Plan
    end: float

    def left(self) -> float:
        """Return the seconds that are left."""
        return max(0.0, self.end - time.monotonic())

    def data(self) -> ImageData:
        """Return the real images."""
        packed = (Path(self.source) / mosaic.LABELS).exists()
        return mosaic.load(self.source) if packed else data.load(self.source, progress=False)

    @property
    def networks(self) -> Path:
        """The folder of NCFM's networks, which is packed after each call."""
        return self.scratch / "networks"

    def made(self, method: str) -> Path:
        """Return the path of a condensed set."""
        return self.out / f"{method}.safetensors"

    def ncfm_settings(self) -> NcfmSettings:
        """Return the settings of the long run of NCFM."""
        overrides = dict(self.plan.ncfm)
        preset, size = overrides.pop("preset"), self.data().size
        return condense.METHODS["ncfm"].settings_for(preset, size, self.plan.ipc, overrides)


@dataclass(frozen=True)
class Stage:
    """One piece of work.

    Attributes:
        name: as the report has it.
        work: returns the stage's result, or None if its time ran out; it then goes on in the next
            call from what it has written.
        needs: stages without which it cannot begin.
        least: seconds below which it is not begun.
    """

    name: str
    work: Callable[[Job], Any]
    needs: tuple[str, ...] = ()
    least: float = 5.0


def selfcheck(job: Job) -> dict[str, Any]:
    """Compare the device's results with stored ones, and time it."""
    where = devices.choose(job.device)
    found = []
    for result in report.results(where):
        print(result, result.error, flush=True)
        found.append({**asdict(result), "right": result.right})
    return {"results": found, "seconds": {name: speed.seconds(name, where) for name in speed.WORK}}


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
    """Condense within `short_seconds`, networks included, and evaluate the set once."""
    real, began = job.data(), time.monotonic()
    options: dict[str, Any] = {"time_budget": job.plan.short_seconds, "progress": False}
    made = condense.condense(
        real, "ncfm", job.plan.ipc, device=job.device, **options, **job.plan.short
    )
    seconds = time.monotonic() - began
    return {"seconds": seconds, "steps": made.info["steps"], "accuracy": _accuracies(job, made, 1)}


def pool(job: Job) -> int | None:
    """Train the networks of the long run; the finished ones are packed after the call."""
    settings = job.ncfm_settings()
    experts = train_experts(
        job.data(),
        job.networks,
        settings.pool,
        count=settings.pool_networks,
        seed=settings.pool_seed,
        device=job.device,
        progress=False,
        time_budget=job.left(),
    )
    print(f"{len(experts)} of {settings.pool_networks} networks")
    return len(experts) if len(experts) == settings.pool_networks else None


def unpack_pool(job: Job) -> None:
    """Write the networks of earlier calls into their folder."""
    if not (job.out / POOL).exists():
        return
    packed_pool.unpack(job.out / POOL, job.networks, job.data(), job.ncfm_settings().pool)


def pack_pool(job: Job) -> None:
    """Write the finished networks into one file of the call's folder."""
    if job.networks.exists():
        packed_pool.pack(job.networks, job.out / POOL)


def condensed_by(method: str) -> Callable[[Job], Any]:
    """Return the stage of a long condensation, which its checkpoint continues."""

    def work(job: Job) -> dict[str, Any] | None:
        checkpoint = job.out / f"{method}.checkpoint.safetensors"
        own: dict[str, Any] = (
            {"expert_folder": job.networks, **job.plan.ncfm}
            if method == "ncfm"
            else {"start": CondensedSet.load(job.made("ncfm")), **job.plan.idc}
        )
        shared: dict[str, Any] = {"checkpoint": checkpoint, "time_budget": job.left()}
        made = condense.condense(
            job.data(), method, job.plan.ipc, device=job.device, progress=False, **shared, **own
        )
        told = {name: made.info[name] for name in ("steps", "seconds", "precision")}
        print(method, told, f"loss {made.info['loss'][-1]:.4g}" if made.info["loss"] else "")
        if not made.info["finished"]:
            return None
        made.save(job.made(method))
        checkpoint.unlink()
        return told

    return work


def accuracy_of(method: str) -> Callable[[Job], Any]:
    """Return the stage that evaluates a set with several seeds."""

    def work(job: Job) -> list[float]:
        made = CondensedSet.load(job.made(method))
        return _accuracies(job, made, job.plan.evaluations)

    return work


def _accuracies(job: Job, made: CondensedSet, seeds: int) -> list[float]:
    """Return the accuracy of a set with each seed; a GPU trains them at once."""
    table = evaluate.evaluate_many(
        {made.method: made.form()}, job.data(), seeds=range(seeds), **_training(job)
    )
    found = table["accuracy"].tolist()
    print(f"{made.method}, {job.plan.epochs} epochs: {found}", flush=True)
    return found


def _training(job: Job) -> dict[str, Any]:
    """Return the options of every training on a set, all in this process."""
    shared = {"epochs": job.plan.epochs, "device": job.device, "jobs": 1, "progress": False}
    return {**shared, **job.plan.training}


def recordings(job: Job) -> int:
    """Record dynamics on IDC's set; finished ones are kept by their seed."""
    made, seeds = CondensedSet.load(job.made("idc")), range(job.plan.recordings)
    missing = [seed for seed in seeds if not _dynamics(job, seed).exists()]
    if missing:
        many = dynamics.record_many(made, seeds=seeds, only=missing, **_training(job))
        for seed, run in many:
            run.save(_dynamics(job, seed), torch.float16)
    return len(seeds)


def _dynamics(job: Job, seed: int) -> Path:
    return job.out / f"dynamics-{seed}.safetensors"


def table2(job: Job) -> str:
    """Train and test every cell of Table 2's block; finished cells are in `results.csv`."""
    made, count = CondensedSet.load(job.made("idc")), job.plan.recordings
    budgets = [budget for budget in (1, 2, 5) if budget < job.plan.ipc] or [1]
    found = study.run(
        made,
        job.data(),
        [Dynamics.load(_dynamics(job, seed)) for seed in range(count)],
        ipc_to=budgets,
        results=job.out / RESULTS,
        **_training(job),
    )
    return tables.markdown(tables.pivot(tables.summary(found)).T)


def stages(plan: Plan) -> list[Stage]:
    """Return all stages in order: first what says most per minute."""
    return [
        Stage("selfcheck", selfcheck, least=30.0),
        *(Stage(f"bench {case}", bench_of(case), least=30.0) for case in plan.cases),
        Stage("short ncfm", short_ncfm, least=1.4 * plan.short_seconds),
        Stage("pool", pool),
        Stage("ncfm", condensed_by("ncfm"), ("pool",)),
        Stage("ncfm accuracy", accuracy_of("ncfm"), ("ncfm",)),
        Stage("idc", condensed_by("idc"), ("ncfm",)),
        Stage("idc accuracy", accuracy_of("idc"), ("idc",)),
        Stage("dynamics", recordings, ("idc",)),
        Stage("table 2", table2, ("dynamics",)),
    ]
