"""The loop that all long work runs in."""

import pytest
import torch

from yoco.training import resumable


class Spoiled(resumable.Stepper):
    """Steps whose state is NaN from step 3 on, though their loss is finite."""

    def __init__(self) -> None:
        self.weights = torch.zeros(2)

    def step(self, number: int) -> float:
        self.weights = self.weights + (1.0 if number < 3 else float("nan"))
        return 1.0

    def state(self) -> dict:
        return {"weights": self.weights}

    def restore(self, state: dict) -> None:
        self.weights = state["weights"]


def test_a_state_that_is_not_finite_leaves_the_last_checkpoint(tmp_path):
    file = tmp_path / "checkpoint.safetensors"
    resumable.run(Spoiled(), 2, {"lr": 1}, checkpoint=file, progress=False)
    good = file.read_bytes()
    with pytest.raises(FloatingPointError, match="weights holds NaN .* at step 6; settings: .*lr"):
        resumable.run(Spoiled(), 6, {"lr": 1}, checkpoint=file, progress=False)
    assert file.read_bytes() == good
    assert resumable.run(Spoiled(), 3, {"lr": 1}, checkpoint=file, progress=False)["steps"] == 3


def test_a_checkpoint_is_written_every_minute(tmp_path, monkeypatch):
    clock, saved = [0.0], []
    monkeypatch.setattr(resumable.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(resumable, "save", lambda *_: saved.append(clock[0]))

    class Slow(Spoiled):
        def step(self, number: int) -> float:
            clock[0] += 25.0
            return 1.0

    resumable.run(Slow(), 10, {}, checkpoint=tmp_path / "checkpoint", progress=False)
    assert saved == [0, 75, 150, 225, 250]  # at the first step after a minute, and at both ends
