"""What a recorded training run keeps of each epoch, in bounded memory."""

import bisect
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from yoco.dynamics.dynamics import Dynamics, margin, top_epochs
from yoco.training import network as training
from yoco.training import resumable
from yoco.training.stacked import Stacked
from yoco.training.state import State
from yoco.utils.foreign import Features

RECORD_ON = ("augmented", "clean")


class Recorder:
    """Receives the logits of every epoch; keeps running sums and what else a score can use.

    That is the margins within the longest window, the logits of the first `early` epochs and, for
    each window, those of the `top_k` most accurate epochs within it. An epoch that no window needs
    now will not be needed later, so the logits of at most early + top_k × windows epochs are held.
    """

    def __init__(
        self, labels: Tensor, classes: int, *, top_k: int, windows: Sequence[int], early: int
    ) -> None:
        self.labels, self.classes = labels, classes
        self.top_k, self.windows, self.early = top_k, windows, early
        self.held: dict[int, Tensor] = {}
        self.correct: list[Tensor] = []
        self.total = torch.zeros(len(labels), dtype=torch.float64)  # of margins
        # within the longest window; None if a checkpoint of an earlier version lacks them
        self.early_margins: list[Tensor] | None = []

    def add(self, logits: Float[Tensor, "images classes"]) -> None:
        """Add the next epoch."""
        self.correct.append(logits.argmax(1) == self.labels)
        margins = margin(logits, self.labels)
        self.total += margins
        if self.early_margins is not None and len(self.correct) <= max(self.windows):
            self.early_margins.append(margins)
        self.held[len(self.correct) - 1] = logits
        useful = set(self._useful())
        self.held = {epoch: held for epoch, held in self.held.items() if epoch in useful}

    def _useful(self) -> list[int]:
        """Return the epochs to hold; each window's best are among those held already."""
        held = sorted(self.held)
        accuracy = torch.stack([self.correct[epoch].float().mean() for epoch in held])
        best = [
            top_epochs(accuracy, self.top_k, bisect.bisect_left(held, window)).tolist()
            for window in self.windows
        ]
        return [*range(self.early), *(held[position] for position in sum(best, []))]

    @property
    def kept(self) -> Int[Tensor, "kept"]:
        """The epochs whose logits are held, ascending."""
        return torch.tensor(sorted(self.held))

    def logits(self) -> Float[Tensor, "kept images classes"]:
        """Return the logits of the epochs in `kept`."""
        return torch.stack([self.held[epoch] for epoch in sorted(self.held)])

    def aum(self) -> Float[Tensor, "images"]:
        """Return the mean margin over the epochs so far."""
        return (self.total / len(self.correct)).float()

    def margins(self) -> Float[Tensor, "first images"] | None:
        """Return the margins of the epochs so far within the longest window."""
        return None if self.early_margins is None else torch.stack(self.early_margins)

    def state(self) -> State:
        """Return everything recorded so far as tensors; empty before the first epoch."""
        if not self.correct:
            return {}
        margins = self.margins()
        return {
            "held.epochs": self.kept,
            "held.logits": self.logits(),
            "correct": torch.stack(self.correct),
            "margins": self.total,
            **({} if margins is None else {"early_margins": margins}),
        }

    def restore(self, state: State) -> None:
        if "correct" in state:
            self.held = dict(zip(state["held.epochs"].tolist(), state["held.logits"]))
            self.correct, self.total = list(state["correct"]), state["margins"]
            early = state.get("early_margins")
            self.early_margins = None if early is None else list(early)


class Recording(resumable.Stepper):
    """One recorded training run as the loop sees it: a step is an epoch."""

    def __init__(self, run: training.Run, recorder: Recorder, record_on: str) -> None:
        self.run, self.recorder, self.record_on = run, recorder, record_on
        self.seen = torch.zeros(len(run.images), run.classes, device=run.images.device)

    def step(self, number: int) -> float:
        """Train for epoch `number`. Returns the mean cross-entropy of the recorded logits."""
        self.run.epoch(self._see)
        return self.keep(self.seen)

    def keep(self, seen: Float[Tensor, "images classes"]) -> float:
        """Record an epoch; returns its loss. seen: the logits from during training."""
        logits = (
            seen.clone().cpu()
            if self.record_on == "augmented"
            else self.embed(self.run.network.eval())
        )
        self.recorder.add(logits)
        return F.cross_entropy(logits, self.recorder.labels).item()

    def _see(self, index: Tensor, logits: Tensor) -> None:
        self.seen[index] = logits

    def embed(self, function: Callable[[Tensor], Tensor]) -> Float[Tensor, "images values"]:
        """Apply a network or a part of it to the unaugmented images: float32 on the CPU."""
        run = self.run
        return training.outputs(
            function, lambda part: run.images[part], len(run.images), run.protocol.precision
        ).cpu()

    def dynamics(self, head: str | None, info: Mapping[str, Any]) -> Dynamics:
        """Return the dynamics; after a whole schedule, with features and final logits."""
        recorder, final, features = self.recorder, None, None
        if head is not None:
            network = self.run.network.eval()
            features = self.embed(Features(network, head))
            final = network.get_submodule(head)(features.to(self.seen.device)).detach().cpu()
        return Dynamics(
            recorder.logits(),
            recorder.kept,
            torch.stack(recorder.correct),
            recorder.aum(),
            recorder.labels,
            final,
            features,
            recorder.margins(),
            info,
        )

    def state(self) -> State:
        """Return the state of the training and everything recorded."""
        return self.run.state() | {
            f"recorder.{name}": tensor for name, tensor in self.recorder.state().items()
        }

    def restore(self, state: State) -> None:
        self.run.restore(state)
        self.recorder.restore(
            {
                name.removeprefix("recorder."): tensor
                for name, tensor in state.items()
                if name.startswith("recorder.")
            }
        )


class RecordedTogether(resumable.Stepper):
    """Recordings whose networks train at once, see `stacked.Stacked`; a step is an epoch of each.

    Args:
        recordings: all at their start.
        checkpoints: a file for each, or None. Each can be resumed alone.
        identities: what the checkpoint of each must share.
    """

    def __init__(
        self,
        recordings: Sequence[Recording],
        checkpoints: Sequence[str | Path | None],
        identities: Sequence[Mapping[str, Any]],
    ) -> None:
        self.recordings, self.files = recordings, list(zip(checkpoints, identities))
        self.stack = Stacked([recording.run for recording in recordings])
        self.seen = torch.stack([recording.seen for recording in recordings])
        self.rows = torch.arange(len(recordings), device=self.seen.device).view(-1, 1)
        self.losses: list[list[float]] = [[] for _ in recordings]
        self.began = time.monotonic()

    def step(self, number: int) -> float:
        """Train for epoch `number`. Returns the mean of the recordings' losses."""
        self.stack.epoch(self._see)
        augmented = self.recordings[0].record_on == "augmented"
        seen = self.seen.cpu() if augmented else self.seen  # one wait for all recordings
        for recording, losses, own in zip(self.recordings, self.losses, seen):
            losses.append(recording.keep(own))
        return sum(losses[-1] for losses in self.losses) / len(self.losses)

    def _see(self, index: Tensor, logits: Tensor) -> None:
        self.seen[self.rows, index] = logits

    def save(self, _: Sequence[float] = ()) -> None:
        """Write the checkpoint of each recording, if there is one."""
        seconds = time.monotonic() - self.began
        for recording, losses, (path, identity) in zip(self.recordings, self.losses, self.files):
            if path is not None:
                resumable.save(path, identity, recording.state(), losses, seconds)

    def state(self) -> State:
        """Return nothing: each recording has a checkpoint of its own."""
        return {}

    def restore(self, state: State) -> None:
        """Do nothing: a recording that has begun is resumed alone."""
