"""The loop that all long work runs in: steps, progress, time budget, checkpoints, going on where it
stopped.
"""

import contextlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from yoco.parallel.distributed import ALONE, Ranks
from yoco.training import timing
from yoco.utils import locks, tensor_files

KIND = "checkpoint"
SAVE_EVERY = 60.0  # seconds between checkpoints
EXPLODED = 1e4  # times the largest of the first losses: no schedule comes near it
FIRST = 10
# seconds between looks at the least, and the share of the time that looking may take
LOOK_EVERY, LOOK_SHARE = 2.0, 0.05


class Stepper(ABC):
    """Long work as the loop sees it: its whole state as tensors, and one step at a time."""

    def prepare(self, time_budget: float | None) -> bool:
        """Make what the first step needs beside the data; False where that is not done within
        `time_budget` seconds.
        """
        return True

    def further_work(self) -> dict[timing.Unit, int]:
        """Work beside that of its steps, so that it can be said how long all takes: experts that
        are missing, say.
        """
        return {}

    @abstractmethod
    def step(self, number: int) -> float:
        """Take step `number`, counted from 0; returns its loss."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on."""

    @abstractmethod
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go back to a state."""

    def rules(self) -> dict[str, Any]:
        """Beside the settings, what a checkpoint must share: how a run does what version 0.1 did
        otherwise.
        """
        return {}

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
    look: Callable[[list[float]], None] | None = None,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Take the steps of `method` that are still to be taken, and return the history: loss, steps
    done, seconds.

    identity: the settings that a checkpoint must share. checkpoint: a file that is read first if it
    is there, and written every minute and at the end (an interruption loses a minute at most).
    time_budget: seconds after which this call stops, what `prepare` takes included. description,
    unit: of the progress bar. look: called with the losses so far, at most every `LOOK_EVERY`
    seconds and as rarely as keeps it to `LOOK_SHARE` of the time, and at the end. ranks: of
    several, the first has the checkpoint, the lock on it, the bar, the clock and `look`; all go on
    from what it reads, and stop where it says so.
    Raises ValueError if the checkpoint is corrupted or of other settings, BlockingIOError if another
    run works on it, FloatingPointError at a loss that is NaN, infinite or has exploded, which
    leaves the last good checkpoint, OSError where it cannot be written, and LostRank where another
    rank is gone.
    """
    with contextlib.ExitStack() as held:
        ranks.from_first(lambda: held.enter_context(locks.hold(checkpoint)))
        bar = held.enter_context(
            tqdm(total=steps, desc=description, unit=unit, disable=not (progress and ranks.first))
        )
        losses, spent = _resume(method, identity, checkpoint, ranks)
        bar.update(len(losses))
        started = time.monotonic()
        spent_now = lambda: spent + time.monotonic() - started
        save = lambda: (
            None if checkpoint is None else _save(checkpoint, method, losses, identity, spent_now())
        )
        if not losses:
            # a place that cannot be written to is found before the work, not after
            ranks.from_first(save)
        glance, save_if_due = _paced(look), _every_minute(save, started)

        def enough() -> bool:
            """Whether the time is over; if not, what is due after a step is done."""
            now = time.monotonic()
            if time_budget is not None and now - started >= time_budget:
                return True
            save_if_due(now)
            glance(losses, now)
            return False

        ready = len(losses) >= steps or method.prepare(time_budget)
        while ready and len(losses) < steps:
            loss = method.step(len(losses))
            _check_loss(loss, losses, identity)
            losses.append(loss)
            bar.update()
            bar.set_postfix(loss=f"{loss:.4g}", refresh=False)
            if ranks.from_first(enough):
                break
        ranks.from_first(save)
        if look is not None and losses:
            ranks.from_first(lambda: look(losses))
        seconds = ranks.from_first(lambda: round(spent_now(), 1))
        return {"steps": len(losses), "planned_steps": steps, "seconds": seconds, **thinned(losses)}


def _save(
    checkpoint: str | Path,
    method: Stepper,
    losses: list[float],
    identity: Mapping[str, Any],
    seconds: float,
) -> None:
    state = {**method.state(), "loop.losses": torch.tensor(losses, dtype=torch.float64)}
    tensor_files.save_tensors(
        checkpoint, KIND, state, {"identity": dict(identity), "seconds": seconds}, make_folder=False
    )


def _every_minute(save: Callable[[], None], started: float) -> Callable[[float], None]:
    """`save` if the last one, or the start, was `SAVE_EVERY` seconds ago; takes the time."""
    saved = started

    def save_if_due(now: float) -> None:
        nonlocal saved
        if now - saved >= SAVE_EVERY:
            save()
            saved = now

    return save_if_due


def _paced(look: Callable[[list[float]], None] | None) -> Callable[[list[float], float], None]:
    """`look` at the pace that `run` says, from the losses and the time; nothing at all for None."""
    due = -math.inf

    def glance(losses: list[float], now: float) -> None:
        nonlocal due
        if look is not None and now >= due:
            look(losses)
            ended = time.monotonic()
            due = ended + max(LOOK_EVERY, (ended - now) * (1 / LOOK_SHARE - 1))

    return glance


def _check_loss(loss: float, losses: list[float], identity: Mapping[str, Any]) -> None:
    """Raise FloatingPointError at a loss that is NaN, infinite, or far above all that the first
    steps had.
    """
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"the loss is {loss} at step {len(losses)}; settings: {dict(identity)}"
        )
    first = max(map(abs, losses[:FIRST]), default=0.0)
    if len(losses) >= FIRST and first and abs(loss) > EXPLODED * first:
        raise FloatingPointError(
            f"the loss has exploded to {loss:.4g} at step {len(losses)}, from at most "
            f"{first:.4g}; settings: {dict(identity)}"
        )


def _resume(
    method: Stepper, identity: Mapping[str, Any], checkpoint: str | Path | None, ranks: Ranks
) -> tuple[list[float], float]:
    """Go on from the checkpoint, or, where there is none, from where the first rank is."""
    found = ranks.tensors_from_first(
        lambda: _found(identity, checkpoint) or (method.state() if ranks.size > 1 else {})
    )
    losses, seconds = (
        found.pop("loop.losses", torch.zeros(0)),
        found.pop("loop.seconds", torch.zeros(())),
    )
    try:
        if found:
            method.restore(found)
        return losses.tolist(), seconds.item()
    except (KeyError, IndexError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"checkpoint {checkpoint} is corrupted: its state does not fit these settings ({error})"
        ) from error


def _found(identity: Mapping[str, Any], checkpoint: str | Path | None) -> dict[str, Tensor]:
    """The state in the checkpoint, with the losses so far and the seconds that they took; nothing
    where there is none.
    """
    if checkpoint is None or not Path(checkpoint).exists():
        return {}
    state, info = tensor_files.load_tensors(checkpoint, KIND)
    stored = info.get("identity", {})
    if stored != dict(identity):
        differ = [
            f"{k}: {stored.get(k)!r} there, {identity.get(k)!r} here"
            for k in {**stored, **identity}
            if stored.get(k) != identity.get(k)
        ]
        raise ValueError(
            f"checkpoint {checkpoint} is of another run ({'; '.join(differ)}); give another file, "
            "or the same settings"
        )
    if "loop.losses" not in state or not isinstance(info.get("seconds"), float):
        raise ValueError(
            f"checkpoint {checkpoint} is corrupted: it does not say which steps it is after"
        )
    return {**state, "loop.seconds": torch.tensor(info["seconds"], dtype=torch.float64)}


def thinned(losses: list[float], most: int = 1000) -> dict[str, Any]:
    """At most `most` losses for `.info`: means over blocks of `loss_every` steps."""
    every = max(1, math.ceil(len(losses) / most))
    blocks = [losses[i : i + every] for i in range(0, len(losses), every)]
    return {"loss": [sum(block) / len(block) for block in blocks], "loss_every": every}
