"""Condensation: a training set into a few synthetic images per class."""

from pathlib import Path
from typing import Any

import torch

from yoco import checks, formation, seeds
from yoco import device as devices
from yoco.condense import loop
from yoco.condense.idc import GradientMatching, condensed_from, real_set
from yoco.condense.settings import PRESETS, MatchingSettings, settings_for
from yoco.condensed import CondensedSet
from yoco.data import ImageData

__all__ = ["METHODS", "PRESETS", "MatchingSettings", "condense", "real_set", "settings_for"]

METHODS = ("idc",)


def condense(
    data: ImageData,
    method: str = "idc",
    ipc: int = 10,
    factor: int = 2,
    *,
    preset: str = "laptop",
    seed: int = 0,
    checkpoint: str | Path | None = None,
    time_budget: float | None = None,
    progress: bool = True,
    device: str | torch.device = "auto",
    precision: str = "auto",
    compiled: bool | None = None,
    **settings: Any,
) -> CondensedSet:
    """Condense `data` to `ipc` images a class, each holding factor × factor cells.

    preset: "paper" | "laptop" | "smoke"; `settings` override single values of it (see `MatchingSettings`).
    checkpoint: a file to go on from if it is there, and to keep the run in: stopping and going on gives the set that
    not stopping gives. time_budget: seconds after which this call stops and returns the set as it is
    (`.info["finished"]` is then False). precision: of the convolutions, see `device.choose_precision`. compiled: None
    compiles where the schedule is long enough to pay for it.

    Returns a set whose `.info` holds the settings, the seed, the loss history and the time. Raises ValueError or
    TypeError at bad arguments before any work, FloatingPointError where the loss leaves the finite numbers, OSError
    where the checkpoint cannot be written.
    """
    checks.one_of("method", method, METHODS)
    checks.whole("ipc", ipc, 1)
    formation.cell_size(data.size, factor)
    if time_budget is not None:
        checks.real("time_budget", time_budget, 0)
    chosen = settings_for(preset, data.size, ipc, settings)
    data.require_per_class(f"ipc={ipc} with factor={factor}", ipc * factor**2)
    where = devices.choose(device)
    how = devices.choose_precision(precision, where)
    if compiled is None:
        per_step = chosen.network_images + len(data.classes) * (chosen.real_batch + 3 * min(ipc * factor**2, chosen.synthetic_batch))
        compiled = devices.worth_compiling(where, chosen.steps * per_step, data.size)
    identity = {
        "method": method,
        "dataset": data.name,
        "images": len(data.train_images),
        "ipc": ipc,
        "factor": factor,
        "preset": preset,
        "settings": chosen.record(),
        "seed": seed,
        "precision": how,
    }
    stepper = GradientMatching(data, ipc, factor, chosen, seeds.generator(seed), where, how, compiled)
    history = loop.run(stepper, chosen.steps, identity, checkpoint=checkpoint, time_budget=time_budget, progress=progress)
    machine = {"compiled": compiled, "device": where.type, "torch": torch.__version__}
    info = {**identity, **machine, **history, "finished": history["steps"] == history["planned_steps"]}
    return condensed_from(stepper.images, data, ipc, factor, method, info)
