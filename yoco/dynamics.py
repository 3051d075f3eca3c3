"""Train once on the formed images, and record what each of them showed: enough for every score, in bounded memory."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from yoco import checks, files, train, workers
from yoco import device as devices
from yoco.condensed import CondensedSet
from yoco.train import Protocol

KIND = "dynamics"
EARLY = 10  # epochs that EL2N reads
RECORD_ON = ("augmented", "clean")
# paper settings of LBPE (design §5): top_k and within, by what the set is
LBPE_FORMED = {"small": (10, 100), "large": (10, 200)}  # CIFAR-10; CIFAR-100 and ImageNet-10
LBPE_SINGLE = {"mtt": (3, 10), "dsa": (3, 100), "kip": (3, 50)}


def lbpe_settings(condensed: CondensedSet) -> tuple[int, int]:
    """The paper's (top_k, within) for a set: by method where it is single-formation, else by classes and size."""
    if condensed.factor == 1 and condensed.method in LBPE_SINGLE:
        return LBPE_SINGLE[condensed.method]
    return LBPE_FORMED["large" if len(condensed.classes) >= 100 or condensed.size >= 64 else "small"]


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


@dataclass(frozen=True, eq=False)
class Dynamics:
    """What one training run showed of N formed images of K classes over E epochs.

    logits: float [E_kept, N, K], of the epochs `kept` (int64 [E_kept], ascending) that a score can use; correct: bool
    [E, N]; aum: float [N], mean margin over the epochs; labels: int64 [N]; final_logits float [N, K] and features float
    [N, D]: of the trained network on the unaugmented images (None where the run stopped before the schedule's end);
    info: the set's fingerprint, settings, seed, top_k, windows.
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

    def label_probability(self, indices: Sequence[int]) -> Tensor:
        """Probability of the own label of some images in the epochs that were kept, float [E_kept, n] in 0..1.

        indices: in 0..N-1, none needed. Raises TypeError or ValueError at others.
        """
        chosen = torch.tensor([checks.whole("indices", int(index), 0, len(self.labels) - 1) for index in indices], dtype=torch.long)
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
            loaded._check()
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(f"{path} holds no valid dynamics: {error}") from error
        return loaded

    def _check(self) -> None:
        epochs, count, classes = self.logits.shape
        checks.labels("labels", self.labels, count, classes)
        if self.correct.dtype != torch.bool or self.correct.ndim != 2 or self.correct.shape[1] != count:
            raise ValueError(f"correct must be bool [E, {count}], got {self.correct.dtype} {list(self.correct.shape)}")
        if list(self.kept.shape) != [epochs] or list(self.aum.shape) != [count]:
            raise ValueError(f"kept and aum must have shapes [{epochs}] and [{count}], got {list(self.kept.shape)} and {list(self.aum.shape)}")


def _unpacked(bits: Tensor, count: int) -> Tensor:
    if bits.ndim != 2 or bits.shape[1] != -(-count // 8):
        raise ValueError(f"correct must be uint8 [E, {-(-count // 8)}], 8 images a byte, got {list(bits.shape)}")
    return torch.from_numpy(np.unpackbits(bits.numpy(), axis=1, count=count)).bool()


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

    def dynamics(self, info: Mapping[str, Any], final_logits: Tensor | None, features: Tensor | None) -> Dynamics:
        kept = sorted(self.held)
        logits = torch.stack([self.held[epoch] for epoch in kept])
        aum = (self.margins / len(self.correct)).float()
        return Dynamics(logits, torch.tensor(kept), torch.stack(self.correct), aum, self.labels, final_logits, features, info)


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
    device: str | torch.device = "auto",
    progress: bool = True,
    **options: Any,
) -> Dynamics:
    """Train a network on the formed images for `epochs` epochs and record every image, once an epoch.

    until: stop after that many epochs of the schedule (enough for LBPE and EL2N; the learning rate first drops after
    2/3 of `epochs`). record_on: "augmented" records the network in training, on the augmented and mixed batch that it
    trains on, against the original labels, as the paper does; "clean" the unaugmented images after each epoch.
    top_k, windows: LBPE can be asked for these later (None: the paper's, see `lbpe_settings`); early: EL2N for so many
    epochs. options: fields of `train.Protocol`. Raises ValueError or TypeError at bad arguments before any work,
    FloatingPointError where the training diverges.
    """
    checks.one_of("record_on", record_on, RECORD_ON)
    paper_k, paper_window = lbpe_settings(condensed)
    top_k = checks.whole("top_k", paper_k if top_k is None else top_k, 1)
    windows = [checks.whole("windows", w, 1) for w in ([paper_window] if windows is None else windows)]
    checks.whole("early", early, 1)
    where = devices.choose(device)
    protocol = Protocol(epochs=epochs, model=model, **options)
    if until is not None:
        until = checks.whole("until", until, 1, epochs)
    images, labels = condensed.form()
    protocol = protocol.resolved(where, (until or epochs) * len(images), condensed.size)
    inputs = condensed.normalise(images).to(where)
    recorder = Recorder(labels, len(condensed.classes), top_k=top_k, windows=windows, early=early)
    pending = torch.zeros(len(images), len(condensed.classes))

    def seen(index: Tensor, logits: Tensor) -> None:
        pending[index] = logits.cpu()

    def clean(network: nn.Module) -> Tensor:
        return train.outputs(network.eval(), lambda part: inputs[part], len(inputs), protocol.precision).cpu()

    with tqdm(total=until or epochs, desc=f"dynamics, seed {seed}", unit="epoch", disable=not progress) as bar:

        def after_epoch(network: nn.Module) -> None:
            recorder.add(pending.clone() if record_on == "augmented" else clean(network))
            bar.update()

        network = train.fit(
            inputs, labels.to(where), len(condensed.classes), protocol, seed, until=until, seen=seen, after_epoch=after_epoch
        )
    final = features = None
    if until is None or until == epochs:
        embedded = train.outputs(network.features, lambda part: inputs[part], len(inputs), protocol.precision)
        features, final = embedded.cpu(), network.head(embedded).detach().cpu()
    info = {
        "set": condensed.fingerprint, "epochs": epochs, "until": until, "seed": seed, "model": model, "width": protocol.width, "record_on": record_on,
        "top_k": top_k, "windows": list(windows), "early": early, "precision": protocol.precision, "compiled": protocol.compiled,
    }
    return recorder.dynamics(info, final, features)


def record_many(
    condensed: CondensedSet,
    *,
    seeds: Sequence[int],
    only: Sequence[int] | None = None,
    device: str | torch.device = "auto",
    jobs: int | None = None,
    progress: bool = True,
    **options: Any,
) -> Iterator[tuple[int, Dynamics]]:
    """Yield (seed, `record(condensed, seed=seed, **options)`) for each of `seeds` as it finishes, in any order.

    only: the seeds that are still to be recorded, with the numbers that recording all of them gives. jobs: as many at
    once, see `workers` (None: as many as there are cores on a CPU, else one). Raises as `record`.
    """
    jobs = workers.default_jobs(devices.choose(device), len(seeds)) if jobs is None else checks.whole("jobs", jobs, 1)
    todo = list(seeds if only is None else only)
    calls = [(condensed, seed, {**options, "device": device, "progress": progress and jobs == 1}) for seed in todo]
    with tqdm(total=len(todo), desc="dynamics", unit="run", disable=not progress or jobs == 1) as bar:
        for position, recorded in workers.run(_record, calls, jobs):
            bar.update()
            yield todo[position], recorded


def _record(condensed: CondensedSet, seed: int, options: Mapping[str, Any]) -> Dynamics:
    return record(condensed, seed=seed, **options)
