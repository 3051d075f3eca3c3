"""Train once on the formed images and record what each image showed, in bounded memory.

The recording suffices for every score.
"""

import bisect
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from yoco import models
from yoco.dynamics.dynamics import CUTMIX, EARLY, SHORT, Dynamics, lbpe_settings, margin, top_epochs
from yoco.parallel import pool
from yoco.sets.condensed_set import CondensedSet
from yoco.training import network as training
from yoco.training import resumable
from yoco.training.protocol import BEFORE, Protocol
from yoco.utils import checks, digests
from yoco.utils import device as devices
from yoco.utils.foreign import Factory, Features


class Recorder:
    """Receives the logits of every epoch; keeps running sums and the logits that a score can use.

    These are the logits of the first `early` epochs and, for each window, those of the `top_k` most
    accurate epochs within it. An epoch that no window needs now will not be needed later, so at
    most early + top_k × windows epochs are held.
    """

    def __init__(
        self, labels: Tensor, classes: int, *, top_k: int, windows: Sequence[int], early: int
    ) -> None:
        self.labels, self.classes = labels, classes
        self.top_k, self.windows, self.early = top_k, windows, early
        self.held: dict[int, Tensor] = {}
        self.correct: list[Tensor] = []
        self.margins = torch.zeros(len(labels), dtype=torch.float64)

    def add(self, logits: Tensor) -> None:
        """Add the next epoch. logits: float [N, K]."""
        self.correct.append(logits.argmax(1) == self.labels)
        self.margins += margin(logits, self.labels)
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
    def kept(self) -> Tensor:
        """The epochs whose logits are held, int64, ascending."""
        return torch.tensor(sorted(self.held))

    def logits(self) -> Tensor:
        """Return the logits of the epochs in `kept`, float [E_kept, N, K]."""
        return torch.stack([self.held[epoch] for epoch in sorted(self.held)])

    def aum(self) -> Tensor:
        """Return the mean margin over the epochs so far, float [N]."""
        return (self.margins / len(self.correct)).float()

    def state(self) -> dict[str, Tensor]:
        """Return everything recorded so far as tensors; empty before the first epoch."""
        if not self.correct:
            return {}
        return {
            "held.epochs": self.kept,
            "held.logits": self.logits(),
            "correct": torch.stack(self.correct),
            "margins": self.margins,
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned."""
        if "correct" in state:
            self.held = dict(zip(state["held.epochs"].tolist(), state["held.logits"]))
            self.correct, self.margins = list(state["correct"]), state["margins"]


RECORD_ON = ("augmented", "clean")


class _Recording(resumable.Stepper):
    """One recorded training run as the loop sees it: a step is an epoch."""

    def __init__(self, run: training.Run, recorder: Recorder, record_on: str) -> None:
        self.run, self.recorder, self.record_on = run, recorder, record_on
        self.seen = torch.zeros(len(run.images), run.classes, device=run.images.device)

    def step(self, number: int) -> float:
        """Train for epoch `number`. Returns the mean cross-entropy of the recorded logits."""
        self.run.epoch(self._see)
        logits = (
            self.seen.clone().cpu()
            if self.record_on == "augmented"
            else self.embed(self.run.network.eval())
        )
        self.recorder.add(logits)
        return F.cross_entropy(logits, self.recorder.labels).item()

    def _see(self, index: Tensor, logits: Tensor) -> None:
        self.seen[index] = logits

    def embed(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Apply a network or a part of it to the unaugmented images: float32 [N, …] on the CPU."""
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
            info,
        )

    def state(self) -> dict[str, Tensor]:
        """Return the state of the training and everything recorded."""
        return self.run.state() | {
            f"recorder.{name}": tensor for name, tensor in self.recorder.state().items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.run.restore(state)
        self.recorder.restore(
            {
                name.removeprefix("recorder."): tensor
                for name, tensor in state.items()
                if name.startswith("recorder.")
            }
        )


def record(
    condensed: CondensedSet,
    *,
    epochs: int,
    seed: int,
    model: str | Factory = "convnet",
    until: int | None = None,
    record_on: str = "augmented",
    top_k: int | None = None,
    windows: Sequence[int] | None = None,
    early: int = EARLY,
    checkpoint: str | Path | None = None,
    device: str | torch.device = "auto",
    progress: bool = True,
    **options: Any,
) -> Dynamics:
    """Train a network on the formed images and record every image in each epoch.

    Runs of at most `SHORT` epochs keep all logits, so that any settings of LBPE and EL2N can be
    used later. A recording of the whole schedule needs the network's features (see
    `models.head_of`).

    Args:
        condensed, epochs, seed: the set, the epochs of the schedule, and the training seed.
        model: a name or factory, see `models.named`.
        until: stop after this epoch of the schedule (enough for LBPE and EL2N; the learning rate
            first drops after 2/3 of `epochs`).
        record_on: "augmented" records the logits during training, on the augmented and mixed
            batches but against the original labels, as the paper does; "clean" records those of the
            unaugmented images after each epoch.
        top_k, windows: settings that LBPE can use later (None: the paper's, see `lbpe_settings`).
        early: epochs that EL2N can use.
        checkpoint: a file to resume from if it exists, written every minute; an interrupted
            recording resumes to a bit-identical result.
        device, progress: where it runs, and whether it shows a bar.
        **options: fields of `protocol.Protocol`, and `protocol`, "even" or "paper".

    Raises:
        TypeError, ValueError: if an argument is bad, before any work.
        FloatingPointError: if the training diverges; other errors as `resumable.run`.
    """
    asked = _asked(condensed, record_on, top_k, windows, early)
    seed = checks.seed("seed", seed)
    epochs = checks.whole("epochs", epochs, 1)
    protocol = Protocol.of(epochs=epochs, model=model, **{"cutmix": CUTMIX, **options})
    if until is not None:
        until = checks.whole("until", until, 1, epochs)
    shape = models.shape_of(condensed)
    models.check_takes(protocol.model, *shape)
    head = models.head_of(protocol.model, *shape) if until in (None, epochs) else None
    where, steps = devices.choose(device), until or epochs
    protocol = protocol.resolved(where, steps * len(condensed.formed_labels), condensed.size)
    info = _info(condensed, protocol, {"until": until, "seed": seed, **asked})
    recording = _recording(condensed, protocol, seed, where, steps, asked)
    resumable.run(
        recording,
        steps,
        {**info, "protocol": repr(replace(protocol, compiled=None))},
        checkpoint=checkpoint,
        progress=progress,
        description=f"dynamics, seed {seed}",
        unit="epoch",
    )
    return recording.dynamics(head, info)


def _recording(
    condensed: CondensedSet,
    protocol: Protocol,
    seed: int,
    where: torch.device,
    epochs: int,
    asked: Mapping[str, Any],
) -> _Recording:
    """Return the run at its start."""
    images, labels = condensed.form()
    run = training.Run(
        condensed.normalise(images).to(where),
        labels.to(where),
        len(condensed.classes),
        protocol,
        seed,
        mean=condensed.mean,
        std=condensed.std,
        recorded=True,
    )
    recorder = Recorder(
        condensed.formed_labels,
        run.classes,
        top_k=asked["top_k"],
        windows=asked["windows"],
        early=epochs if epochs <= SHORT else asked["early"],
    )
    return _Recording(run, recorder, asked["record_on"])


def _asked(
    condensed: CondensedSet,
    record_on: str,
    top_k: int | None,
    windows: Sequence[int] | None,
    early: int,
) -> dict[str, Any]:
    """Return what is to be recorded, checked, with the paper's settings in place of None."""
    checks.instance("condensed", condensed, CondensedSet)
    checks.one_of("record_on", record_on, RECORD_ON)
    paper_k, paper_window = lbpe_settings(condensed)
    windows = checks.sequence("windows", [paper_window] if windows is None else windows)
    return {
        "record_on": record_on,
        "top_k": checks.whole("top_k", paper_k if top_k is None else top_k, 1),
        "windows": [checks.whole("windows", window, 1) for window in windows],
        "early": checks.whole("early", early, 1),
    }


def _info(condensed: CondensedSet, protocol: Protocol, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of info: everything that determines the dynamics."""
    return {
        "set": condensed.fingerprint,
        digests.MADE_FROM: condensed.made_from,
        "epochs": protocol.epochs,
        "until": asked["until"],
        "seed": asked["seed"],
        "model": protocol.model,
        "width": protocol.width,
        **asked,
        "precision": protocol.precision,
        "compiled": protocol.compiled,
        "batch_size": protocol.batch_size,
        **{name: getattr(protocol, name) for name in BEFORE},
        **models.layout(protocol.model, *models.shape_of(condensed)),
    }


@pool.without_backend
def record_many(
    condensed: CondensedSet,
    *,
    seeds: Sequence[int],
    only: Sequence[int] | None = None,
    checkpoints: Mapping[int, Path] | None = None,
    device: str | torch.device = "auto",
    jobs: int | None = None,
    executor: Executor | None = None,
    progress: bool = True,
    **options: Any,
) -> Iterator[tuple[int, Dynamics]]:
    """Yield (seed, `record(condensed, seed=seed, **options)`) as each finishes, in any order.

    Args:
        condensed, device, progress, options: as in `record`.
        seeds: all seeds.
        only: the seeds to record (None: all). Results do not change if only some are recorded.
        checkpoints: seed -> file, see `record`; the caller removes each once its result is stored.
        jobs, executor: how many recordings run in parallel, and where, as in `evaluate.accuracies`.

    Raises:
        Exception: as `record` and `pool.run`.
    """
    where = devices.choose(device)
    jobs = pool.jobs_for(jobs, where, len(seeds), executor)
    alone = jobs == 1 and executor is None
    todo = list(seeds if only is None else only)
    # decided here: a worker may have another environment
    precision = devices.choose_precision(options.get("precision", "auto"), where)
    shared = {**options, "precision": precision, "progress": progress and alone}
    calls = [
        (seed, where, {**shared, "checkpoint": (checkpoints or {}).get(seed)}) for seed in todo
    ]
    names = [f"the recording of seed {seed}" for seed in todo]
    with tqdm(total=len(todo), desc="dynamics", unit="run", disable=not progress or alone) as bar:
        for position, recorded in pool.run(
            _record, calls, jobs, shared=(condensed,), executor=executor, names=names
        ):
            bar.update()
            yield todo[position], recorded


def _record(
    condensed: CondensedSet, seed: int, device: torch.device, options: Mapping[str, Any]
) -> Dynamics:
    return record(condensed, seed=seed, device=device, **options)
