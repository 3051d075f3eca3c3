"""Train once on the formed images, and record what each of them showed: enough for every score, in bounded memory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from yoco import checks, files, loop, models, pool, train
from yoco import device as devices
from yoco.condensed import CondensedSet
from yoco.recorder import Recorder, forgotten, top_epochs
from yoco.train import Protocol

KIND = "dynamics"
EARLY = 10  # epochs that EL2N reads
SHORT = 30  # runs of so many epochs at most keep the logits of all of them, which answers every question about LBPE
RECORD_ON = ("augmented", "clean")
CUTMIX = 0.5  # probability while recording, whatever the augmentation: the published code's
# paper settings of LBPE (design §5): top_k and within, by what the set is
LBPE_FORMED = {"small": (10, 100), "large": (10, 200)}  # CIFAR-10; CIFAR-100 and ImageNet-10
LBPE_SINGLE = {"mtt": (3, 10), "dsa": (3, 100), "kip": (3, 50)}
LBPE_OWN = {"dream": (10, 200)}  # formed sets of a method that the published code scores otherwise


def lbpe_settings(condensed: CondensedSet) -> tuple[int, int]:
    """The paper's (top_k, within) for a set: by method if it is single-formation or DREAM's, else by classes and size."""
    own = LBPE_SINGLE if condensed.factor == 1 else LBPE_OWN
    by_size = LBPE_FORMED["large" if len(condensed.classes) >= 100 or condensed.size >= 64 else "small"]
    return own.get(condensed.method, by_size)


@dataclass(frozen=True, eq=False)
class Dynamics:
    """What one training run showed of N formed images of K classes over E epochs.

    logits: float [E_kept, N, K], of the epochs `kept` (int64 [E_kept], ascending) that a score can use; correct: bool
    [E, N]; aum: float [N], mean margin over the epochs; labels: int64 [N]; final_logits float [N, K] and features float
    [N, D]: of the trained network on the unaugmented images (None where the run stopped before the schedule's end);
    info: the set's fingerprint, settings, seed, top_k, windows. Raises ValueError or TypeError where these do not fit each other.
    """

    logits: Tensor
    kept: Tensor
    correct: Tensor
    aum: Tensor
    labels: Tensor
    final_logits: Tensor | None = None
    features: Tensor | None = None
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def accuracy(self) -> Tensor:
        """Training accuracy of each epoch, float [E] in 0..1."""
        return self.correct.float().mean(1)

    @property
    def forgetting(self) -> Tensor:
        """How often each image went from right to wrong, float [N]."""
        return forgotten(self.correct)

    @property
    def complete(self) -> bool:
        """Whether the whole schedule was run, which AUM, forgetting, entropy and SSP need."""
        return self.final_logits is not None

    @property
    def training(self) -> dict[str, str]:
        """The fields of `Protocol` that the trainings of a study must share, here "last_batch" and "augmentation"; none if the
        info does not tell how they were recorded."""
        return {name: self.info.get(name, before) for name, before in train.BEFORE.items()} if "epochs" in self.info else {}

    def label_probability(self, indices: Sequence[int]) -> Tensor:
        """Probability of the own label of some images in the epochs that were kept, float [E_kept, n] in 0..1.

        indices: in 0..N-1, none needed. Raises TypeError or ValueError at others.
        """
        numbers = torch.as_tensor(indices).tolist()
        chosen = torch.tensor([checks.whole("indices", number, 0, len(self.labels) - 1) for number in numbers], dtype=torch.long)
        return self.logits[:, chosen].softmax(-1)[:, torch.arange(len(chosen)), self.labels[chosen]]

    def of(self, condensed: CondensedSet) -> bool:
        """Whether these were recorded on that set: the same labels, and the same images where the set is named."""
        return torch.equal(self.labels, condensed.formed_labels) and self.info.get("set") in (None, condensed.fingerprint)

    def early_logits(self, epochs: int = EARLY) -> Tensor:
        """Logits of the first `epochs` epochs, or of as many as there are. Raises ValueError where they were not kept."""
        wanted = torch.arange(min(checks.whole("epochs", epochs, 1), len(self.correct)))
        return self._rows(wanted, f"the first {epochs} epochs", "early")

    def top_logits(self, top_k: int, within: int) -> Tensor:
        """Logits of the `top_k` most accurate epochs among the first `within`. Raises ValueError where they were not kept."""
        return self._rows(top_epochs(self.accuracy, top_k, within), f"the best {top_k} of the first {within} epochs", "top_k or windows")

    def _rows(self, wanted: Tensor, what: str, setting: str) -> Tensor:
        rows = torch.searchsorted(self.kept, wanted).clamp(max=len(self.kept) - 1)
        if not torch.equal(self.kept[rows], wanted):
            raise ValueError(f"logits of {what} were not kept; record again with another {setting} (kept were: {dict(self.info)})")
        return self.logits[rows]

    def save(self, path: str | Path, dtype: torch.dtype = torch.float32) -> Path:
        """Write one safetensors file, whole or not at all. dtype: of logits and features; float16 halves the file."""
        tensors = {name: getattr(self, name) for name in ("logits", "kept", "correct", "aum", "labels", "final_logits", "features")}
        present = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        small = {name: present[name].to(dtype) for name in ("logits", "final_logits", "features") if name in present}
        small["correct"] = torch.from_numpy(np.packbits(self.correct.numpy(), axis=1))  # an eighth of a long run's
        return files.save_tensors(path, KIND, {**present, **small}, dict(self.info))

    @classmethod
    def load(cls, path: str | Path) -> "Dynamics":
        """Read a file of `save`. Raises FileNotFoundError, or ValueError where the file is damaged or does not fit."""
        tensors, info = files.load_tensors(path, KIND)
        wide = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
        try:
            if wide["correct"].dtype == torch.uint8:  # bool in the first files
                wide["correct"] = _unpacked(wide["correct"], len(wide["labels"]))
            loaded = cls(**wide, info=info)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(f"{path} holds no valid dynamics: {error}") from error
        return loaded

    def __post_init__(self) -> None:
        if self.logits.ndim != 3:
            raise ValueError(f"logits must have shape [E_kept, N, K], got {list(self.logits.shape)}")
        epochs, count, classes = self.logits.shape
        checks.labels("labels", self.labels, count, classes)
        if self.correct.dtype != torch.bool or self.correct.ndim != 2 or self.correct.shape[1] != count:
            raise ValueError(f"correct must be bool [E, {count}], got {self.correct.dtype} {list(self.correct.shape)}")
        if list(self.kept.shape) != [epochs] or list(self.aum.shape) != [count]:
            raise ValueError(f"kept and aum must have shapes [{epochs}] and [{count}], got {list(self.kept.shape)} and {list(self.aum.shape)}")
        if self.kept.dtype != torch.int64 or (self.kept.diff() <= 0).any() or (epochs and not 0 <= self.kept[0] <= self.kept[-1] < len(self.correct)):
            raise ValueError(f"kept must be int64, ascending, within 0..{len(self.correct) - 1}, got {self.kept.dtype} {self.kept.tolist()[:20]}")
        if self.final_logits is not None and list(self.final_logits.shape) != [count, classes]:
            raise ValueError(f"final_logits must have shape [{count}, {classes}], got {list(self.final_logits.shape)}")
        if self.features is not None and (self.features.ndim != 2 or len(self.features) != count):
            raise ValueError(f"features must have shape [{count}, D], got {list(self.features.shape)}")


def _unpacked(bits: Tensor, count: int) -> Tensor:
    if bits.ndim != 2 or bits.shape[1] != -(-count // 8):
        raise ValueError(f"correct must be uint8 [E, {-(-count // 8)}], 8 images a byte, got {list(bits.shape)}")
    return torch.from_numpy(np.unpackbits(bits.numpy(), axis=1, count=count)).bool()


class _Recording(loop.Stepper):
    """One training run under observation, as the loop takes it: a step is an epoch."""

    def __init__(self, run: train.Run, recorder: Recorder, record_on: str) -> None:
        self.run, self.recorder, self.record_on = run, recorder, record_on
        self.seen = torch.zeros(len(run.images), run.classes, device=run.images.device)

    def step(self, number: int) -> float:
        """Epoch `number`. Returns the mean cross-entropy of what was recorded in it."""
        self.run.epoch(self._see)
        logits = self.seen.clone().cpu() if self.record_on == "augmented" else self.embed(self.run.network.eval())
        self.recorder.add(logits)
        return F.cross_entropy(logits, self.recorder.labels).item()

    def _see(self, index: Tensor, logits: Tensor) -> None:
        self.seen[index] = logits

    def embed(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """What a network, or a part of it, makes of the unaugmented images, float32 [N, …] on the CPU."""
        run = self.run
        return train.outputs(function, lambda part: run.images[part], len(run.images), run.protocol.precision).cpu()

    def state(self) -> dict[str, Tensor]:
        """The training's, and all that was recorded."""
        return self.run.state() | {f"recorder.{name}": tensor for name, tensor in self.recorder.state().items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go back to what `state` gave."""
        self.run.restore(state)
        self.recorder.restore({name.removeprefix("recorder."): tensor for name, tensor in state.items() if name.startswith("recorder.")})


def record(
    condensed: CondensedSet,
    *,
    epochs: int,
    seed: int,
    model: str = "convnet",
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
    """Train a network on the formed images for `epochs` epochs and record every image, once an epoch.

    until: stop after that many epochs of the schedule (enough for LBPE and EL2N; the learning rate first drops after
    2/3 of `epochs`). record_on: "augmented" records the network in training, on the augmented and mixed batch that it
    trains on, against the original labels, as the paper does; "clean" the unaugmented images after each epoch.
    top_k, windows: LBPE can be asked for these later (None: the paper's, see `lbpe_settings`); early: EL2N for so many
    epochs. A run of at most `SHORT` epochs can be asked for any. checkpoint: a file to resume from if it exists, written every
    minute; an interrupted recording resumes to a bit-identical result. options: fields of `train.Protocol`, and `protocol`, "even" or "paper".
    Raises ValueError or TypeError at bad arguments before any work, FloatingPointError where the training diverges,
    and for the checkpoint as `loop.run`.
    """
    checks.instance("condensed", condensed, CondensedSet)
    checks.one_of("record_on", record_on, RECORD_ON)
    seed = checks.seed("seed", seed)
    paper_k, paper_window = lbpe_settings(condensed)
    top_k = checks.whole("top_k", paper_k if top_k is None else top_k, 1)
    windows = [checks.whole("windows", w, 1) for w in checks.sequence("windows", [paper_window] if windows is None else windows)]
    early = checks.whole("early", early, 1)
    where = devices.choose(device)
    epochs = checks.whole("epochs", epochs, 1)
    protocol = Protocol.of(epochs=epochs, model=model, **{"cutmix": CUTMIX, **options})
    if until is not None:
        until = checks.whole("until", until, 1, epochs)
    steps = until or epochs
    images, labels = condensed.form()
    protocol = protocol.resolved(where, steps * len(images), condensed.size)
    info = {
        "set": condensed.fingerprint, "epochs": epochs, "until": until, "seed": seed, "model": model, "width": protocol.width, "record_on": record_on,
        "top_k": top_k, "windows": list(windows), "early": early, "precision": protocol.precision, "compiled": protocol.compiled,
        "batch_size": protocol.batch_size, **{name: getattr(protocol, name) for name in train.BEFORE}, **models.layout(model),
    }
    shown = condensed.normalise(images).to(where), labels.to(where), len(condensed.classes)
    run = train.Run(*shown, protocol, seed, mean=condensed.mean, std=condensed.std, recorded=True)
    kept = steps if steps <= SHORT else early
    recorder = Recorder(condensed.formed_labels, len(condensed.classes), top_k=top_k, windows=windows, early=kept)
    recording = _Recording(run, recorder, record_on)
    identity = {**info, "protocol": repr(replace(protocol, compiled=None))}
    loop.run(recording, steps, identity, checkpoint=checkpoint, progress=progress, description=f"dynamics, seed {seed}", unit="epoch")
    final = features = None
    if steps == epochs:
        embedded = recording.embed(run.network.eval().features)
        features, final = embedded, run.network.head(embedded.to(where)).detach().cpu()
    return Dynamics(recorder.logits(), recorder.kept, torch.stack(recorder.correct), recorder.aum(), condensed.formed_labels, final, features, info)


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
    """Yield (seed, `record(condensed, seed=seed, **options)`) for each of `seeds` as it finishes, in any order.

    only: the seeds that are still to be recorded, with the numbers that recording all of them gives. checkpoints: of each
    of those, see `record`; the caller removes them once what comes is kept. jobs, executor: as many at once, and
    where, as of `evaluate.accuracies`. Raises as `record` and `pool.run`.
    """
    where = devices.choose(device)
    jobs = pool.jobs_for(jobs, where, len(seeds), executor)
    alone = jobs == 1 and executor is None
    todo = list(seeds if only is None else only)
    precision = devices.choose_precision(options.get("precision", "auto"), where)  # here: a worker may have another environment
    shared = {**options, "precision": precision, "progress": progress and alone}
    calls = [(seed, where, {**shared, "checkpoint": (checkpoints or {}).get(seed)}) for seed in todo]
    names = [f"the recording of seed {seed}" for seed in todo]
    with tqdm(total=len(todo), desc="dynamics", unit="run", disable=not progress or alone) as bar:
        for position, recorded in pool.run(_record, calls, jobs, shared=(condensed,), executor=executor, names=names):
            bar.update()
            yield todo[position], recorded


def _record(condensed: CondensedSet, seed: int, device: torch.device, options: Mapping[str, Any]) -> Dynamics:
    return record(condensed, seed=seed, device=device, **options)
