"""`condense`: from a training set to a few synthetic images per class, by any method."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from yoco.condense.base import PACKING, condensed_from
from yoco.condense.methods import METHODS
from yoco.condense.plan import Plan, planned
from yoco.data.image_data import ImageData
from yoco.parallel import distributed
from yoco.sets.condensed_set import CondensedSet
from yoco.training import resumable, timing
from yoco.utils import checks, tensor_files
from yoco.utils import device as devices

COMPILE_SECONDS = 300  # a shorter budget is not spent on compiling, which can take a minute


def condense(
    data: ImageData,
    method: str = "ncfm",
    ipc: int = 10,
    factor: int | None = None,
    *,
    preset: str = "laptop",
    start: CondensedSet | None = None,
    nested: bool | Sequence[int] | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    expert_folder: str | Path | None = None,
    time_budget: float | None = None,
    progress: bool = True,
    device: str | torch.device = "auto",
    precision: str = "auto",
    compiled: bool | None = None,
    watch: Callable[[CondensedSet], None] | None = None,
    **settings: Any,
) -> CondensedSet:
    """Condense `data` to `ipc` images per class, each holding factor × factor cells.

    With a progress bar, an estimate of the time that long work takes on this machine is printed
    first, including missing experts (see `timing`).

    Under torchrun, all processes make the same call and work on one set: each takes its share of
    the classes, on its own GPU (`device="auto"`) or the CPU. Only rank 0 touches the checkpoint,
    shows progress and calls `watch`. All return the same set; on CPUs it is bit-identical to that
    of a single process with as many threads. Any number of processes can resume a checkpoint.

    Args:
        data: the real data.
        method: a name in `METHODS`.
        ipc: condensed images per class.
        factor: cells along a side; None: as `start`, or else the method's default (see
            `factor_of`).
        preset: "paper", "laptop" or "smoke".
        start: a set to condense further, with the same classes, size, IPC and factor; None: packed
            real images.
        nested: budgets (IPC_T) whose prefixes of each class are matched as sets of their own (see
            `NcfmSettings.prefix_share`), or True for 1, 2, 3, 5, 7, 10, 20, …;
            such a set is ranked already (`CondensedSet.rank`). Only for ncfm.
        seed: seed of the run.
        checkpoint: a file that stores the run; if it exists, the run is resumed from it. An
            interrupted run resumes to a bit-identical result.
        expert_folder: folder of MTT's experts or NCFM's networks; missing ones are trained first
            (None: "experts" or "networks" beside the checkpoint, or in memory without one).
        time_budget: seconds after which this call stops and returns the current set (with
            `.info["finished"]` False); it takes at least one step once the experts are trained.
        progress: show a progress bar.
        device: "auto" or a device of torch.
        precision: precision of the convolutions, see `device.choose_precision`.
        compiled: None compiles if the schedule is long enough to pay for it, and the time budget
            is at least `COMPILE_SECONDS`.
        watch: called with a copy of the current set every few seconds (see `resumable.run`) and at
            the end; `explore.Live()` draws it.
        **settings: override single values of the preset (see `IdcSettings`, `DreamSettings`,
            `DsaSettings`, `TrajectorySettings`, `KipSettings`, `NcfmSettings`).

    Returns:
        The set, whose `.info` holds the settings, the seed, the loss history and the time.

    Raises:
        TypeError, ValueError: if an argument is bad, before any work.
        FloatingPointError: if the loss is not finite or explodes.
        BlockingIOError: if another run works on the checkpoint.
        OSError: if the checkpoint cannot be written.
        distributed.LostRank: if another process of torchrun is gone (a ConnectionError); the last
            checkpoint is kept.
    """
    if time_budget is not None:
        time_budget = checks.real("time_budget", time_budget, 0)
    checkpoint = tensor_files.file("checkpoint", checkpoint)
    _check_options(expert_folder, progress, compiled, watch)
    plan = planned(data, method, ipc, factor, preset, seed, settings, start, nested)
    experts = _experts(method, expert_folder, checkpoint, progress)
    with distributed.joined() as among:
        if time_budget is not None and time_budget < COMPILE_SECONDS:
            compiled = compiled or False
        work = _Work(plan, experts, among, device, precision, compiled)
        return work.run(checkpoint, time_budget, progress, watch)


class _Work:
    """A plan on this machine: the method at its start, and how it is run."""

    def __init__(
        self,
        plan: Plan,
        experts: Mapping[str, Any],
        among: distributed.Ranks,
        device: str | torch.device,
        precision: str,
        compiled: bool | None,
    ) -> None:
        self.plan, self.among, self.where = plan, among, devices.choose(device)
        self.precision = devices.choose_precision(precision, self.where)
        formed, settings = plan.ipc * plan.factor**2, plan.settings
        self.images = settings.steps * settings.work(len(plan.data.classes), formed)
        if compiled is None:
            compiled = devices.worth_compiling(
                self.where, self.images, plan.data.size, devices.WORTH_TWICE
            )
        self.compiled, self.identity = compiled, plan.identity(self.precision)
        among.check_alike(self.identity)
        own = {"ranks": among, **experts}
        if plan.nested is not None:
            own["prefixes"] = [budget * plan.factor**2 for budget in plan.nested]
        self.stepper = plan.stepper(self.where, self.precision, compiled, **own)
        if plan.start is not None:
            self.stepper.images = plan.start.images.to(self.stepper.images.device)
        self.identity |= self.stepper.rules()

    def run(
        self,
        checkpoint: str | Path | None,
        time_budget: float | None,
        progress: bool,
        watch: Callable[[CondensedSet], None] | None,
    ) -> CondensedSet:
        """Take the steps, from the checkpoint on if there is one, and return the set."""
        if progress and self.among.first:
            if not (checkpoint and Path(checkpoint).exists()):
                self._announce(time_budget)
            if self.compiled:
                timing.say_compiling()
        steps, stepper = self.plan.settings.steps, self.stepper

        def look(losses: list[float]) -> None:
            history = {"steps": len(losses), "planned_steps": steps, **resumable.thinned(losses)}
            if watch is not None:
                watch(self.plan.set_of(stepper.images.clone(), {**self.identity, **history}))

        history = resumable.run(
            stepper,
            steps,
            self.identity,
            checkpoint=checkpoint,
            time_budget=time_budget,
            progress=progress,
            look=None if watch is None else look,
            ranks=self.among,
        )
        lbpe = METHODS[self.plan.method].lbpe_at(self.plan.factor)
        info = {
            **self.identity,
            **({"lbpe": lbpe} if lbpe else {}),
            "compiled": self.compiled,
            "device": stepper.device.type,
            "torch": torch.__version__,
            "ranks": self.among.size,
            **stepper.outcome(),
            **history,
            "finished": history["steps"] == steps,
        }
        return self.plan.set_of(stepper.images, info)

    def _announce(self, time_budget: float | None) -> None:
        """Say how long the work will take, missing experts included."""
        work = Counter(self.stepper.further_work())
        if self.images:  # KIP has no network whose images could be timed
            unit = timing.Network.of(self.plan.settings, self.plan.data, self.precision, self.where)
            work[unit] += self.images
        shared = {unit: count // self.among.size for unit, count in work.items()}
        timing.say(shared, budget=time_budget)


def start_set(
    data: ImageData,
    method: str = "ncfm",
    ipc: int = 10,
    factor: int | None = None,
    *,
    preset: str = "laptop",
    seed: int = 0,
    device: str | torch.device = "auto",
    precision: str = "auto",
    **settings: Any,
) -> CondensedSet:
    """Return the set from which `condense` with these arguments starts: packed real images.

    Its `.info["started_from"]` holds the index of each cell's training image. Raises as `condense`.
    """
    plan = planned(data, method, ipc, factor, preset, seed, settings)
    where = devices.choose(device)
    how = devices.choose_precision(precision, where)
    stepper = plan.stepper(where, how, compiled=False)
    info = {
        "dataset": data.name,
        "seed": plan.seed,
        "start_of": method,
        "precision": how,
        "packing": PACKING,
        "started_from": stepper.started_from.tolist(),
    }
    return condensed_from(stepper.images, data, plan.ipc, plan.factor, "real", info)


def _check_options(
    expert_folder: str | Path | None, progress: bool, compiled: bool | None, watch: object
) -> None:
    """Raise TypeError or ValueError if one of these options is bad."""
    if compiled is not None:
        checks.flag("compiled", compiled)
    checks.flag("progress", progress)
    if watch is not None and (isinstance(watch, type) or not callable(watch)):
        raise TypeError(
            "watch must be a function of a condensed set, such as explore.Live(), got "
            f"{checks.shown(watch)}"
        )


def _experts(
    method: str, given: str | Path | None, checkpoint: str | Path | None, progress: bool
) -> dict[str, Path | bool | None]:
    """Return the stepper's arguments for its experts, if the method has any.

    They say where the experts are, and whether their training shows a bar.
    """
    folder = METHODS[method].experts
    if not folder:
        if given is not None:
            allowed = ", ".join(m.name for m in METHODS.values() if m.experts)
            raise ValueError(
                f"expert_folder={str(given)!r} is for methods with experts ({allowed}), got "
                f"method={method!r}"
            )
        return {}
    beside = None if checkpoint is None else Path(checkpoint).parent / folder
    experts = beside if given is None else checks.path("expert_folder", given)
    return {"experts": experts, "progress": progress}
