"""The loop that every condensation method runs in: steps, progress, time budget, checkpoints, going on where it stopped."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from yoco import files

KIND = "checkpoint"
SAVE_EVERY = 60.0  # seconds between checkpoints
LOOK_EVERY, LOOK_SHARE = 2.0, 0.05  # seconds between looks at the least, and the share of the time that looking may take


class Stepper(ABC):
    """A condensation method as the loop sees it: its whole state as tensors, and one step at a time.

    images: the condensed images as they are, float32 [classes * ipc, C, S, S] in 0..1 (experts in training have none).
    """

    images: Tensor

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
    look: Callable[[list[float]], None] | None = None,
) -> dict[str, Any]:
    """Take the steps of `method` that are still to be taken, and return the history: loss, steps done, seconds.

    identity: the settings that a checkpoint must share. checkpoint: a file that is read first if it is there, and
    written every minute and at the end (an interruption loses a minute at most). time_budget: seconds after which this
    call stops, what `prepare` takes included. look: called with the losses so far, at most every `LOOK_EVERY` seconds and
    as rarely as keeps it to `LOOK_SHARE` of the time, and at the end.
    Raises ValueError where the checkpoint is of other settings, FloatingPointError at a NaN or infinite loss, which
    leaves the last good checkpoint.
    """
    losses, spent = _resume(method, identity, checkpoint)
    started = saved = time.monotonic()
    look_at = started

    def save() -> None:
        if checkpoint is not None:
            state = {**method.state(), "loop.losses": torch.tensor(losses, dtype=torch.float64)}
            seconds = spent + time.monotonic() - started
            files.save_tensors(checkpoint, KIND, state, {"identity": dict(identity), "seconds": seconds})

    if not losses:
        save()  # a place that cannot be written to is found before the work, not after
    ready = len(losses) >= steps or method.prepare(time_budget)
    with tqdm(total=steps, initial=len(losses), desc="condensing", unit="step", disable=not progress) as bar:
        while ready and len(losses) < steps:
            loss = method.step(len(losses))
            if not math.isfinite(loss):
                raise FloatingPointError(f"the loss is {loss} at step {len(losses)}; settings: {dict(identity)}")
            losses.append(loss)
            bar.update()
            bar.set_postfix(loss=f"{loss:.4g}", refresh=False)
            now = time.monotonic()
            if time_budget is not None and now - started >= time_budget:
                break
            if now - saved >= SAVE_EVERY:
                save()
                saved = now
            if look is not None and now >= look_at:
                look(losses)
                looked = time.monotonic()
                look_at = looked + max(LOOK_EVERY, (looked - now) * (1 / LOOK_SHARE - 1))
    save()
    if look is not None and losses:
        look(losses)
    seconds = spent + time.monotonic() - started
    return {"steps": len(losses), "planned_steps": steps, "seconds": round(seconds, 1), **thinned(losses)}


def _resume(method: Stepper, identity: Mapping[str, Any], checkpoint: str | Path | None) -> tuple[list[float], float]:
    if checkpoint is None or not Path(checkpoint).exists():
        return [], 0.0
    state, info = files.load_tensors(checkpoint, KIND)
    if info["identity"] != dict(identity):
        stored = info["identity"]
        differ = [f"{k}: {stored.get(k)!r} there, {identity.get(k)!r} here" for k in {**stored, **identity} if stored.get(k) != identity.get(k)]
        raise ValueError(f"checkpoint {checkpoint} is of another run ({'; '.join(differ)}); give another file, or the same settings")
    losses = state.pop("loop.losses").tolist()
    method.restore(state)
    return losses, info["seconds"]


def thinned(losses: list[float], most: int = 1000) -> dict[str, Any]:
    """At most `most` losses for `.info`: means over blocks of `loss_every` steps."""
    every = max(1, math.ceil(len(losses) / most))
    blocks = [losses[i : i + every] for i in range(0, len(losses), every)]
    return {"loss": [sum(block) / len(block) for block in blocks], "loss_every": every}
