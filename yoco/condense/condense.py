"""`condense`: a training set into a few synthetic images per class, by any method."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from yoco import formation
from yoco.condense import nested as nesting
from yoco.condense.base import PACKING, condensed_from
from yoco.condense.methods import METHODS, factor_of
from yoco.condense.presets import unit_of
from yoco.data.image_data import ImageData
from yoco.parallel import distributed
from yoco.sets.condensed_set import CondensedSet
from yoco.training import resumable, timing
from yoco.utils import checks, seeds, tensor_files
from yoco.utils import device as devices


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
    """Condense `data` to `ipc` images a class, each holding factor × factor cells.

    With a progress bar, long work says first how long it will take on this machine, missing experts
    included (see `timing`).

    method: a name in `METHODS`. factor: None is that of `start`, or the method's own (see
    `factor_of`). preset: "paper" | "laptop" | "smoke"; `settings` override single values of it (see
    the method's settings: `IdcSettings`, `DreamSettings`, `DsaSettings`, `TrajectorySettings`,
    `KipSettings`, `NcfmSettings`).
    start: a set to condense further, of the same classes, size, IPC and factor; None: packed real
    images. nested: budgets (IPC_T) whose prefixes of each class are matched as sets of their own
    (their weights: `NcfmSettings.prefix_power`), or True for 1, 2, 3, 5, 7, 10, 20, …; such a set
    is ranked as it is (`CondensedSet.rank`). Methods: ncfm. checkpoint: a file to go on from if it
    is there, and to keep the run in: stopping and going on gives the set that not stopping gives.
    expert_folder: the folder of MTT's experts or NCFM's networks; missing ones are trained first
    (None: "experts" or "networks" beside the checkpoint, or in memory without one). time_budget:
    seconds after which this call stops and returns the set as it is (`.info["finished"]` is then
    False). precision: of the convolutions, see `device.choose_precision`. compiled: None compiles
    if the schedule is long enough to pay for it. watch: called with a copy of the set as it is,
    every few seconds (see `resumable.run`) and at the end; `explore.Live()` is one that draws.

    Under torchrun all processes call this alike, and work on one set: each takes its share of the
    classes, on a GPU of its own (`device="auto"`) or the CPU. The first alone touches the
    checkpoint, shows progress and calls `watch`; all return the same set, on CPUs to the bit that
    of one process with as many threads. A checkpoint is gone on from by any number of them.

    Returns a set whose `.info` holds the settings, the seed, the loss history and the time. Raises
    ValueError or TypeError at bad arguments before any work, FloatingPointError if the loss leaves
    the finite numbers or explodes, BlockingIOError if another run works on the checkpoint, OSError
    if that cannot be written, `distributed.LostRank` (a ConnectionError) if another process of
    torchrun's is gone, which leaves the last checkpoint.
    """
    time_budget = _checked_options(checkpoint, expert_folder, time_budget, progress, compiled)
    plan = _planned(data, method, ipc, factor, preset, start, nested, seed, settings)
    experts = _experts(method, expert_folder, checkpoint, progress)
    with distributed.joined() as among:
        work = _Work(plan, experts, among, device, precision, compiled)
        return work.run(checkpoint, time_budget, progress, watch)


class _Plan(NamedTuple):
    """What `condense` is asked to make, checked."""

    data: ImageData
    method: str
    ipc: int
    factor: int
    preset: str
    seed: int
    settings: Any
    start: CondensedSet | None
    nested: list[int] | None

    def identity(self, precision: str) -> dict[str, Any]:
        """What a checkpoint must share, and `.info` says."""
        made = {
            "method": self.method,
            "dataset": self.data.name,
            "images": len(self.data.train_images),
            "ipc": self.ipc,
            "factor": self.factor,
        }
        how = {
            "preset": self.preset,
            "settings": self.settings.record(),
            "seed": self.seed,
            "precision": precision,
        }
        began = {"packing": PACKING} if self.start is None else {"start": self.start.fingerprint}
        return {**made, **how, **began, **({} if self.nested is None else {"nested": self.nested})}

    def set_of(self, images: Tensor, info: Mapping[str, Any]) -> CondensedSet:
        """The condensed set of `images`."""
        return condensed_from(images, self.data, self.ipc, self.factor, self.method, info)


class _Work:
    """A plan on this machine: the method at its start, and how it is run."""

    def __init__(
        self,
        plan: _Plan,
        experts: Mapping[str, Any],
        among: distributed.Ranks,
        device: str | torch.device,
        precision: str,
        compiled: bool | None,
    ) -> None:
        self.plan, self.among, self.where = plan, among, devices.choose(device)
        data, factor, settings = plan.data, plan.factor, plan.settings
        self.precision = devices.choose_precision(precision, self.where)
        self.images = settings.steps * settings.work(len(data.classes), plan.ipc * factor**2)
        if compiled is None:
            compiled = devices.worth_compiling(
                self.where, self.images, data.size, devices.WORTH_TWICE
            )
        self.compiled, self.identity = compiled, plan.identity(self.precision)
        among.check_alike(
            {
                **self.identity,
                "labels": tensor_files.checksum(data.train_labels),
                "mean": data.mean,
                "std": data.std,
            }
        )
        own = {"ranks": among, **experts} | (
            {}
            if plan.nested is None
            else {"prefixes": [budget * factor**2 for budget in plan.nested]}
        )
        machine = (self.where, self.precision, compiled)
        self.stepper = METHODS[plan.method].stepper(
            data, plan.ipc, factor, settings, seeds.generator(plan.seed), *machine, **own
        )
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
        if progress and self.among.first and not (checkpoint and Path(checkpoint).exists()):
            self._announce(time_budget)
        steps, stepper, identity = self.plan.settings.steps, self.stepper, self.identity

        def look(losses: list[float]) -> None:
            info = {
                **identity,
                "steps": len(losses),
                "planned_steps": steps,
                **resumable.thinned(losses),
            }
            if watch is not None:
                watch(self.plan.set_of(stepper.images.clone(), info))

        budgets: dict[str, Any] = {
            "checkpoint": checkpoint,
            "time_budget": time_budget,
            "progress": progress,
        }
        history = resumable.run(
            stepper,
            steps,
            identity,
            **budgets,
            look=None if watch is None else look,
            ranks=self.among,
        )
        machine = {
            "compiled": self.compiled,
            "device": self.where.type,
            "torch": torch.__version__,
            "ranks": self.among.size,
        }
        lbpe = (
            {}
            if METHODS[self.plan.method].lbpe is None
            else {"lbpe": METHODS[self.plan.method].lbpe}
        )
        info = {
            **identity,
            **lbpe,
            **machine,
            **stepper.outcome(),
            **history,
            "finished": history["steps"] == history["planned_steps"],
        }
        return self.plan.set_of(stepper.images, info)

    def _announce(self, time_budget: float | None) -> None:
        """Say how long the work will take, missing experts included."""
        plan, own = self.plan, Counter[Any]()
        if self.images:  # a kernel has no network whose images could be timed
            own[unit_of(plan.settings, plan.data, self.precision, self.where)] = self.images
        work = Counter(self.stepper.further_work()) + own
        timing.say(
            {unit: count // self.among.size for unit, count in work.items()}, budget=time_budget
        )


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
    """Where `condense` with these arguments starts: real images, packed and not yet condensed.

    Its `.info["started_from"]` holds the training image of each cell, by index. Raises as
    `condense`.
    """
    ipc, factor, seed, chosen = _checked(data, method, ipc, factor, preset, seed, settings)
    where = devices.choose(device)
    how = devices.choose_precision(precision, where)
    stepper = METHODS[method].stepper(
        data, ipc, factor, chosen, seeds.generator(seed), where, how, False
    )
    info = {
        "dataset": data.name,
        "seed": seed,
        "start_of": method,
        "precision": how,
        "packing": PACKING,
    }
    info["started_from"] = stepper.started_from.tolist()
    return condensed_from(stepper.images, data, ipc, factor, "real", info)


def _checked_options(
    checkpoint: str | Path | None,
    expert_folder: str | Path | None,
    time_budget: float | None,
    progress: bool,
    compiled: bool | None,
) -> float | None:
    """The time budget, once these are known to be good."""
    if time_budget is not None:
        time_budget = checks.real("time_budget", time_budget, 0)
    if compiled is not None:
        checks.flag("compiled", compiled)
    checks.flag("progress", progress)
    for name, path in (("checkpoint", checkpoint), ("expert_folder", expert_folder)):
        if path is not None:
            checks.path(name, path)
    return time_budget


def _planned(
    data: ImageData,
    method: str,
    ipc: int,
    factor: int | None,
    preset: str,
    start: CondensedSet | None,
    nested: bool | Sequence[int] | None,
    seed: int,
    settings: dict[str, Any],
) -> _Plan:
    """The plan that these arguments of `condense` ask for."""
    if start is not None and factor is None:
        factor = checks.instance("start", start, CondensedSet).factor
    ipc, factor, seed, chosen = _checked(data, method, ipc, factor, preset, seed, settings)
    began = None if start is None else _checked_start(start, data, ipc, factor)
    return _Plan(
        data,
        method,
        ipc,
        factor,
        preset,
        seed,
        chosen,
        began,
        None if nested is None else _budgets(method, nested, ipc),
    )


def _experts(
    method: str, given: str | Path | None, checkpoint: str | Path | None, progress: bool
) -> dict[str, Path | bool | None]:
    """The stepper's arguments that say where its experts are, and whether their training shows a
    bar, for a method that follows any.
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
    return {"experts": beside if given is None else Path(given), "progress": progress}


def _budgets(method: str, nested: bool | Sequence[int], ipc: int) -> list[int]:
    """The budgets of a nested set, for a method that makes such sets."""
    if not METHODS[method].nests:
        allowed = ", ".join(m.name for m in METHODS.values() if m.nests)
        raise ValueError(f"nested={nested!r} is for {allowed}, got method={method!r}")
    return nesting.budgets(nested, ipc)


def _checked_start(start: CondensedSet, data: ImageData, ipc: int, factor: int) -> CondensedSet:
    """`start` if it is of the same classes, shape, IPC and factor as the set to be made, else a
    ValueError.
    """
    checks.instance("start", start, CondensedSet)
    if not start.bounded or start.soft:
        raise ValueError(
            "start must hold images in 0..1 with one class each; this set is unbounded, or has "
            "soft labels"
        )
    wanted = {
        "classes": data.classes,
        "channels": data.channels,
        "size": data.size,
        "ipc": ipc,
        "factor": factor,
    }
    differ = [
        f"{name} {getattr(start, name)!r}, wanted {value!r}"
        for name, value in wanted.items()
        if getattr(start, name) != value
    ]
    if differ:
        raise ValueError(f"start does not fit: it has {'; '.join(differ)}")
    return start


def _checked(
    data: ImageData,
    method: str,
    ipc: int,
    factor: int | None,
    preset: str,
    seed: int,
    settings: dict[str, Any],
) -> tuple[int, int, int, Any]:
    """IPC, factor and seed as Python's own numbers, and the settings, once all are known to be
    good.
    """
    own = factor_of(method, checks.instance("data", data, ImageData).size)
    ipc, seed = checks.whole("ipc", ipc, 1), checks.seed("seed", seed)
    factor = own if factor is None else factor
    formation.cell_size(data.size, factor)
    chosen = METHODS[method].settings_for(preset, data.size, ipc, settings)
    data.require_per_class(f"ipc={ipc} with factor={factor}", ipc * factor**2)
    return ipc, int(factor), seed, chosen
