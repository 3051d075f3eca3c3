"""What a training run showed, epoch by epoch, in bounded memory: running sums, and the logits of the epochs that a score can use."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from yoco import checks


def top_epochs(accuracy: Tensor, top_k: int, within: int) -> Tensor:
    """The `top_k` epochs of highest training accuracy [E] among the first `within`; ties: the earlier. Ascending, int64.

    Where there are fewer epochs, all of them. Raises TypeError or ValueError unless both are whole numbers, at least 1.
    """
    checks.whole("top_k", top_k, 1)
    checks.whole("within", within, 1)
    order = accuracy[:within].argsort(descending=True, stable=True)
    return order[:top_k].sort().values


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Logit of the label minus the largest other logit, [..., N] from logits [..., N, K] and labels [N].

    Raises ValueError where K is 1: there is no other logit, and a margin of infinity would order nothing.
    """
    if logits.shape[-1] < 2:
        raise ValueError(f"logits must be of at least 2 classes, since a margin is over another class's logit, got {list(logits.shape)}")
    own = labels.expand(logits.shape[:-1]).unsqueeze(-1)
    others = logits.scatter(-1, own, float("-inf")).amax(-1)
    return logits.gather(-1, own).squeeze(-1) - others


def forgotten(correct: Tensor) -> Tensor:
    """How often each image goes from right to wrong, float [N] from bool [E, N]."""
    return (correct[:-1] & ~correct[1:]).sum(0).float()


class Recorder:
    """Takes the logits of every epoch; keeps running sums, and the logits of the epochs that a score can use.

    Those are the first `early`, and for each window the `top_k` most accurate epochs among its first. An epoch that a
    window has no use for now it never will have, so what is held stays below early + top_k × windows epochs.
    """

    def __init__(self, labels: Tensor, classes: int, *, top_k: int, windows: Sequence[int], early: int) -> None:
        self.labels, self.classes = labels, classes
        self.top_k, self.windows, self.early = top_k, windows, early
        self.held: dict[int, Tensor] = {}
        self.correct: list[Tensor] = []
        self.margins = torch.zeros(len(labels), dtype=torch.float64)

    def add(self, logits: Tensor) -> None:
        """logits: float [N, K], of the next epoch."""
        self.correct.append(logits.argmax(1) == self.labels)
        self.margins += margin(logits, self.labels)
        self.held[len(self.correct) - 1] = logits
        useful = set(self._useful())
        self.held = {epoch: held for epoch, held in self.held.items() if epoch in useful}

    def _useful(self) -> list[int]:
        accuracy = torch.stack([row.float().mean() for row in self.correct[: max(self.windows)]])
        best = [top_epochs(accuracy, self.top_k, window).tolist() for window in self.windows]
        return [*range(self.early), *sum(best, [])]

    @property
    def kept(self) -> Tensor:
        """The epochs whose logits are held, int64, ascending."""
        return torch.tensor(sorted(self.held))

    def logits(self) -> Tensor:
        """Logits of the epochs in `kept`, float [E_kept, N, K]."""
        return torch.stack([self.held[epoch] for epoch in sorted(self.held)])

    def aum(self) -> Tensor:
        """Mean margin over the epochs so far, float [N]."""
        return (self.margins / len(self.correct)).float()

    def state(self) -> dict[str, Tensor]:
        """All that was recorded so far, as tensors; empty before the first epoch."""
        if not self.correct:
            return {}
        return {"held.epochs": self.kept, "held.logits": self.logits(), "correct": torch.stack(self.correct), "margins": self.margins}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go back to what `state` gave."""
        if "correct" in state:
            self.held = dict(zip(state["held.epochs"].tolist(), state["held.logits"]))
            self.correct, self.margins = list(state["correct"]), state["margins"]
