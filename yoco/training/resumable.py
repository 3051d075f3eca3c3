"""The loop for all long work: steps, progress, time budget, checkpoints and resuming."""

import contextlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from yoco.parallel.distributed import ALONE, Ranks
from yoco.training import timing
from yoco.training.state import State
from yoco.utils import digests, locks, tensor_files

KIND = "checkpoint"
SAVE_EVERY = 60.0  # seconds between checkpoints
EXPLODED = 1e4  # times the largest of the first losses: no healthy run comes near it
FIRST = 10
# minimum seconds between two looks, and the share of the time that they may take
LOOK_EVERY, LOOK_SHARE = 2.0, 0.05


class Stepper(ABC):
    """Long work as the loop sees it: its whole state as tensors, and one step at a time."""

    def prepare(self, time_budget: float | None) -> bool:
        """Make what the first step needs besides the data; False if `time_budget` ran out first.

        time_budget: in seconds; None: no limit.
        """
        return True

    def further_work(self) -> dict[timing.Unit, int]:
        """Return the work besides the steps, for the announced time: missing experts, say."""
        return {}

    @abstractmethod
    def step(self, number: int) -> float:
        """Take step `number`, counted from 0; returns its loss."""

    @abstractmethod
    def state(self) -> State:
        """Return everything that the next step depends on."""

    @abstractmethod
    def restore(self, state: State) -> None:
        """Restore what `state` returned."""

    def rules(self) -> dict[str, Any]:
        """Return what a checkpoint must share besides the settings, such as changes since 0.1."""
        return {}

    def outcome(self) -> dict[str, Any]:
        """Return the method's own entries for `.info`, besides settings and history."""
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
    """Take the remaining steps of `method` and return the history: loss, steps done, seconds.

    Args:
        method: the work.
        steps: steps in total.
        identity: the settings that a checkpoint must share.
        checkpoint: a file that is read first if it exists, and written every minute and at the end
            (an interruption loses at most a minute).
        time_budget: seconds after which this call stops, including what `prepare` takes.
        progress, description, unit: settings of the progress bar.
        look: called with the losses so far and at the end; at most every `LOOK_EVERY` seconds and
            for at most `LOOK_SHARE` of the time.
        ranks: with several, rank 0 owns the checkpoint, its lock, the bar, the clock and `look`;
            all resume from what it reads and stop when it says so.

    Raises:
        ValueError: if the checkpoint is corrupted, of other settings or of more steps.
        BlockingIOError: if another run works on the checkpoint.
        FloatingPointError: if the loss is NaN, infinite or has exploded; the last good checkpoint
            is kept.
        OSError: if the checkpoint cannot be written.
        LostRank: if another rank is gone.
    """
    with contextlib.ExitStack() as held:
        ranks.from_first(lambda: held.enter_context(locks.hold(checkpoint)))
        shown = progress and ranks.first
        bar = held.enter_context(tqdm(total=steps, desc=description, unit=unit, disable=not shown))
        loop = _Loop(method, identity, checkpoint, time_budget, look, ranks)
        loop.take(steps, bar)
        losses, seconds = loop.losses, ranks.from_first(lambda: round(loop.seconds(), 1))
        return {"steps": len(losses), "planned_steps": steps, "seconds": seconds, **thinned(losses)}


class _Loop:
    """One call of `run`: the steps that it takes, and what is due between them."""

    def __init__(
        self,
        method: Stepper,
        identity: Mapping[str, Any],
        checkpoint: str | Path | None,
        time_budget: float | None,
        look: Callable[[list[float]], None] | None,
        ranks: Ranks,
    ) -> None:
        self.method, self.identity, self.checkpoint = method, identity, checkpoint
        self.time_budget, self.look, self.ranks = time_budget, look, ranks
        self.losses, self.spent = _resume(method, identity, checkpoint, ranks)
        self.started = self.saved = time.monotonic()
        self.next_look = -math.inf

    def take(self, steps: int, bar: tqdm) -> None:
        """Take the steps that are missing, as many as the time allows."""
        losses = self.losses
        if len(losses) > steps:
            raise ValueError(
                f"checkpoint {self.checkpoint} has {len(losses)} steps already, more than {steps}"
            )
        bar.update(len(losses))
        if not losses:
            # an unwritable place is found before the work, not after it
            self.ranks.from_first(self.save)
        ready = len(losses) >= steps or self.method.prepare(self.time_budget)
        while ready and len(losses) < steps:
            loss = self.method.step(len(losses))
            _check_loss(loss, losses, self.identity)
            losses.append(loss)
            bar.update()
            bar.set_postfix(loss=f"{loss:.4g}", refresh=False)
            if self.ranks.from_first(self.enough):
                break
        self.ranks.from_first(self.save)
        if (look := self.look) is not None and losses:
            self.ranks.from_first(lambda: look(losses))

    def seconds(self) -> float:
        """Return the seconds that all steps have taken, those of earlier calls included."""
        return self.spent + time.monotonic() - self.started

    def enough(self) -> bool:
        """Return whether the time is over; if not, do what is due after a step."""
        now = time.monotonic()
        if self.time_budget is not None and now - self.started >= self.time_budget:
            return True
        if now - self.saved >= SAVE_EVERY:
            self.save()
            self.saved = now
        if self.look is not None and now >= self.next_look:
            self.look(self.losses)
            ended = time.monotonic()
            self.next_look = ended + max(LOOK_EVERY, (ended - now) * (1 / LOOK_SHARE - 1))
        return False

    def save(self) -> None:
        """Write the checkpoint, if there is one."""
        if self.checkpoint is not None:
            state, seconds = self.method.state(), self.seconds()
            for name, values in state.items():  # else it would replace the last good one
                if values.is_floating_point() and not values.isfinite().all():
                    raise FloatingPointError(
                        f"{name} holds NaN or infinite values at step {len(self.losses)}; "
                        f"settings: {dict(self.identity)}"
                    )
            save(self.checkpoint, self.identity, state, self.losses, seconds)


def save(
    checkpoint: str | Path,
    identity: Mapping[str, Any],
    state: State,
    losses: Sequence[float],
    seconds: float,
) -> None:
    """Write a checkpoint that `run` resumes from.

    identity, state, losses, seconds: what `run` was given, and what it has so far.
    """
    info = {"identity": dict(identity), "seconds": seconds}
    told = {**state, "loop.losses": torch.tensor(losses, dtype=torch.float64)}
    tensor_files.save_tensors(checkpoint, KIND, told, info, make_folder=False)


def _check_loss(loss: float, losses: list[float], identity: Mapping[str, Any]) -> None:
    """Raise FloatingPointError if a loss is NaN, infinite, or far above the first ones."""
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
    """Resume from the checkpoint or, if there is none, from the state of rank 0."""
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
    """Return the checkpoint's state with the losses and seconds so far; empty if there is none."""
    if checkpoint is None or not Path(checkpoint).exists():
        return {}
    state, info = tensor_files.load_tensors(checkpoint, KIND)
    check_identity(f"checkpoint {checkpoint}", info.get("identity"), identity)
    if "loop.losses" not in state or not isinstance(info.get("seconds"), float):
        raise ValueError(
            f"checkpoint {checkpoint} is corrupted: it lacks the losses or the time so far"
        )
    return {**state, "loop.seconds": torch.tensor(info["seconds"], dtype=torch.float64)}


def check_identity(what: str, stored: Any, identity: Mapping[str, Any]) -> None:
    """Check that a file was made with the current settings and from the current data.

    Args:
        what: the file, for messages.
        stored: the identity stored in it.
        identity: the current identity.

    Raises:
        ValueError: if they differ; it names the settings or the parts of the data.
    """
    there = dict(stored) if isinstance(stored, Mapping) else {}
    here = dict(identity)
    data = there.pop(digests.MADE_FROM, None), here.pop(digests.MADE_FROM, None)
    if there != here:
        differ = [
            f"{name}: {there.get(name)!r} there, {here.get(name)!r} here"
            for name in {**there, **here}
            if there.get(name) != here.get(name)
        ]
        raise ValueError(
            f"{what} belongs to another run ({'; '.join(differ)}); use the same settings, or "
            f"{digests.HOW}"
        )
    if data[1] is not None:
        digests.check(what, data[0], data[1])


def thinned(losses: list[float], most: int = 1000) -> dict[str, Any]:
    """Return at most `most` losses for `.info`: means over blocks of `loss_every` steps."""
    every = max(1, math.ceil(len(losses) / most))
    blocks = [losses[i : i + every] for i in range(0, len(losses), every)]
    return {"loss": [sum(block) / len(block) for block in blocks], "loss_every": every}
