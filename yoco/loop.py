"""The loop that all long work runs in: steps, progress, time budget, checkpoints, going on where it stopped."""

import contextlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from yoco import files, locks

KIND = "checkpoint"
SAVE_EVERY = 60.0  # seconds between checkpoints
EXPLODED = 1e4  # times the largest of the first losses: no schedule comes near it
FIRST = 10


class Stepper(ABC):
    """Long work as the loop sees it: its whole state as tensors, and one step at a time."""

    def prepare(self, time_budget: float | None) -> bool:
        """Make what the first step needs beside the data; False where that is not done within `time_budget` seconds."""
        return True

    @abstractmethod
    def step(self, number: int) -> float:
        """Take step `number`, counted from 0; returns its loss."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on."""

    @abstractmethod
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go back to a state."""

    def outcome(self) -> dict[str, Any]:
        """What `.info` says of the method's own, beside settings and history."""
        return {}


def run(
    method: Stepper,
    steps: int,
    identity: Mapping[str, Any],
    *,
    checkpoint: str | Path | None = None,
    time_budget: float | None = None,
    progress: bool = True,
    description: str = "condensing",
    unit: str = "step",
) -> dict[str, Any]:
    """Take the steps of `method` that are still to be taken, and return the history: loss, steps done, seconds.

    identity: the settings that a checkpoint must share. checkpoint: a file that is read first if it is there, and
    written every minute and at the end (an interruption loses a minute at most). time_budget: seconds after which this
    call stops, what `prepare` takes included. description, unit: of the progress bar.
    Raises ValueError where the checkpoint is damaged or of other settings, BlockingIOError where another run works on it,
    FloatingPointError at a loss that is NaN, infinite or has exploded, which leaves the last good checkpoint, and OSError
    where it cannot be written.
    """
    with contextlib.nullcontext() if checkpoint is None else locks.hold(checkpoint):
        bar = tqdm(total=steps, desc=description, unit=unit, disable=not progress)
        with bar:
            return _run(method, steps, identity, checkpoint, time_budget, bar)


def _run(
    method: Stepper, steps: int, identity: Mapping[str, Any], checkpoint: str | Path | None, time_budget: float | None, bar: tqdm
) -> dict[str, Any]:
    losses, spent = _resume(method, identity, checkpoint)
    bar.update(len(losses))
    started = saved = time.monotonic()

    def save() -> None:
        if checkpoint is not None:
            state = {**method.state(), "loop.losses": torch.tensor(losses, dtype=torch.float64)}
            seconds = spent + time.monotonic() - started
            files.save_tensors(checkpoint, KIND, state, {"identity": dict(identity), "seconds": seconds}, make_folder=False)

    if not losses:
        save()  # a place that cannot be written to is found before the work, not after
    ready = len(losses) >= steps or method.prepare(time_budget)
    while ready and len(losses) < steps:
        loss = method.step(len(losses))
        _check_loss(loss, losses, identity)
        losses.append(loss)
        bar.update()
        bar.set_postfix(loss=f"{loss:.4g}", refresh=False)
        now = time.monotonic()
        if time_budget is not None and now - started >= time_budget:
            break
        if now - saved >= SAVE_EVERY:
            save()
            saved = now
    save()
    seconds = spent + time.monotonic() - started
    return {"steps": len(losses), "planned_steps": steps, "seconds": round(seconds, 1), **thinned(losses)}


def _check_loss(loss: float, losses: list[float], identity: Mapping[str, Any]) -> None:
    """Raise FloatingPointError at a loss that is NaN, infinite, or far above all that the first steps had."""
    if not math.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss} at step {len(losses)}; settings: {dict(identity)}")
    first = max(map(abs, losses[:FIRST]), default=0.0)
    if len(losses) >= FIRST and first and abs(loss) > EXPLODED * first:
        raise FloatingPointError(f"the loss has exploded to {loss:.4g} at step {len(losses)}, from at most {first:.4g}; settings: {dict(identity)}")


def _resume(method: Stepper, identity: Mapping[str, Any], checkpoint: str | Path | None) -> tuple[list[float], float]:
    if checkpoint is None or not Path(checkpoint).exists():
        return [], 0.0
    state, info = files.load_tensors(checkpoint, KIND)
    stored = info.get("identity", {})
    if stored != dict(identity):
        differ = [f"{k}: {stored.get(k)!r} there, {identity.get(k)!r} here" for k in {**stored, **identity} if stored.get(k) != identity.get(k)]
        raise ValueError(f"checkpoint {checkpoint} is of another run ({'; '.join(differ)}); give another file, or the same settings")
    try:
        losses = state.pop("loop.losses").tolist()
        method.restore(state)
        return losses, info["seconds"]
    except (KeyError, IndexError, RuntimeError, TypeError) as error:
        raise ValueError(f"checkpoint {checkpoint} is damaged: its state does not fit these settings ({error})") from error


def thinned(losses: list[float], most: int = 1000) -> dict[str, Any]:
    """At most `most` losses for `.info`: means over blocks of `loss_every` steps."""
    every = max(1, math.ceil(len(losses) / most))
    blocks = [losses[i : i + every] for i in range(0, len(losses), every)]
    return {"loss": [sum(block) / len(block) for block in blocks], "loss_every": every}
