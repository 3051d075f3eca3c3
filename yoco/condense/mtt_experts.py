"""Experts: networks trained on real images, for MTT (every epoch kept) and NCFM (the first and the
last weights; design §5 and §6).
"""

import functools
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import safetensors
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import parameters_to_vector
from tqdm.auto import tqdm

from yoco import augment, models
from yoco.condense.presets import network_of
from yoco.data.batches import RealImages
from yoco.data.image_data import ImageData
from yoco.training import network as train
from yoco.training import resumable
from yoco.utils import checks, seeds, tensor_files
from yoco.utils import device as devices

KIND = "expert"
STREAM = 1000  # expert n draws from stream STREAM + n of its seed
CHUNK = 32  # batches that are drawn from the same part of an epoch
# DSA's, of experts and students
AUGMENTATION = augment.Augmentation(augment.OPERATIONS, single=True)


@dataclass(frozen=True)
class ExpertSettings:
    """How one expert of MTT is trained.

    The defaults are the published ones for CIFAR, plain SGD.
    """

    weight_decay: ClassVar[float] = 0.0
    # whether the weights after each epoch are kept, or the first and the last alone
    every_epoch: ClassVar[bool] = True
    augmentation: ClassVar[augment.Augmentation] = AUGMENTATION

    epochs: int = 50
    model: str = "convnet"
    width: int | None = None  # channels of the ConvNet's layers; None: 128
    # real images of each expert at most, a random subset of its own; None: all
    images: int | None = None
    lr: float = 0.01
    momentum: float = 0.0
    batch_size: int = 256

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", models.check_matchable(self.model))
        for name in ("epochs", "batch_size"):
            checks.whole(name, getattr(self, name), 1)
        for name in ("width", "images"):
            if getattr(self, name) is not None:
                checks.whole(name, getattr(self, name), 1)
        checks.real("lr", self.lr, 0)
        checks.real("momentum", self.momentum, 0, 1)

    def taken(self, data: ImageData) -> int:
        """Images that an expert trains on."""
        return min(self.images or len(data.train_images), len(data.train_images))

    def lr_at(self, progress: float) -> float:
        """The learning rate after a share of the training, in 0..1."""
        return self.lr


@dataclass(frozen=True)
class PairSettings(ExpertSettings):
    """How one network of NCFM's pool is trained: momentum SGD, a linear warm-up, then a cosine to
    0.
    """

    lr: float = 0.04
    momentum: float = 0.9
    weight_decay: float = 5e-4  # type: ignore[misc]  # fixed for MTT, a setting here
    warmup: float = 0.05  # share of the training

    every_epoch: ClassVar[bool] = False
    augmentation: ClassVar[augment.Augmentation] = augment.Augmentation(
        ("color", "crop", "flip", "cutout")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.real("weight_decay", self.weight_decay, 0)
        checks.real("warmup", self.warmup, 0, 1)

    def lr_at(self, progress: float) -> float:
        """The learning rate after a share of the training, in 0..1."""
        if progress < self.warmup:
            return self.lr * progress / self.warmup
        return self.lr * (1 + math.cos(math.pi * (progress - self.warmup) / (1 - self.warmup))) / 2


class Experts:
    """Finished experts, each a file of `train_experts` (of which two rows at a time are read) or a
    tensor [epochs + 1, P].
    """

    def __init__(self, trajectories: Sequence[Path | Tensor]) -> None:
        self.trajectories = list(trajectories)

    def __len__(self) -> int:
        return len(self.trajectories)

    def pair(self, number: int, epoch: int, ahead: int) -> tuple[Tensor, Tensor]:
        """Parameters of expert `number` after `epoch` epochs and after `ahead` more, float32 [P]
        each, in named_parameters order.

        Raises FileNotFoundError if its file is gone, ValueError if it is damaged, or holds NaN or
        infinite values.
        """
        trajectory = self.trajectories[number]
        rows = [epoch, epoch + ahead]
        first, second = (
            trajectory[rows] if isinstance(trajectory, Tensor) else _read(trajectory, rows)
        )
        return first, second


def _read(path: Path, rows: Sequence[int]) -> list[Tensor]:
    """Rows of a trajectory's file, of which no more is read once the whole file has been
    checked.
    """
    with tensor_files.open_tensors(path) as file:
        _check(path, path.stat().st_mtime_ns)
        try:
            parameters = file.get_slice("parameters")
            return [parameters[row] for row in rows]
        except (IndexError, RuntimeError, safetensors.SafetensorError) as error:
            raise ValueError(
                f"{path} is damaged, or holds no epochs {list(rows)}: {error}"
            ) from error


@functools.cache
def _check(path: Path, changed: int) -> None:
    """Raise ValueError if a file is damaged or holds NaN; once per process and time at which it was
    changed.
    """
    tensor_files.load_tensors(path, KIND)


def train_experts(
    data: ImageData,
    folder: str | Path | None,
    settings: ExpertSettings,
    *,
    count: int,
    only: Collection[int] | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    precision: str = "auto",
    compiled: bool | None = None,
    progress: bool = True,
    time_budget: float | None = None,
) -> Experts:
    """Train `count` experts on the normalised training images as `settings` say; a draw of the
    augmentation per image, no CutMix.

    folder: one file for each expert, `expert-000.safetensors`, whose "parameters" are float32
    [epochs + 1, P], the start first ([2, P] if the settings keep the first and the last alone).
    Finished ones are used as they are, whatever `count` they were made for; an unfinished one goes
    on from its checkpoint, written every minute, and ends as if never stopped. None: they are kept
    in memory. only: the numbers of those that are wanted (None: all of 0..count-1). time_budget:
    seconds after which no epoch is begun; only finished experts come back.
    Raises ValueError at bad arguments and where a file in the folder is damaged or of other
    settings, before any training; FloatingPointError if an expert's loss or weights leave the
    finite numbers; OSError if the folder cannot be written.
    """
    checks.whole("count", count, 1)
    allowed = math.inf if time_budget is None else checks.real("time_budget", time_budget, 0)
    where = devices.choose(device)
    how = devices.choose_precision(precision, where)
    if compiled is None:
        compiled = devices.worth_compiling(
            where, count * settings.epochs * settings.taken(data), data.size
        )
    common = {
        "dataset": data.name,
        "dataset_images": len(data.train_images),
        "seed": seed,
        "precision": how,
        "last_batch": "even",
    }
    common |= models.layout(settings.model, *models.shape_of(data)) | asdict(settings)
    identities = [
        {**common, "number": number} for number in range(count) if only is None or number in only
    ]
    found = [_finished(folder, identity) for identity in identities]
    experts: list[Path | Tensor] = []
    started = time.monotonic()
    each = settings.epochs * settings.taken(data)
    with tqdm(
        total=len(identities) * each,
        desc="training experts",
        unit="image",
        unit_scale=True,
        disable=not progress,
    ) as bar:
        for present, identity in zip(found, identities):
            expert: Path | Tensor | None = present
            left = allowed - (time.monotonic() - started)
            if expert is not None:
                bar.update(each)
            elif left > 0:
                training = _Training(data, settings, identity, where, compiled, bar.update)
                expert = _train(training, folder, identity, None if left == math.inf else left)
            experts += [] if expert is None else [expert]
    return Experts(experts)


def missing(folder: str | Path | None, count: int) -> int:
    """How many of `count` experts have no file in `folder` yet."""
    return (
        count
        if folder is None
        else sum(not _path(folder, number).exists() for number in range(count))
    )


def _path(folder: str | Path, number: int, suffix: str = "") -> Path:
    return Path(folder) / f"expert-{number:03d}{suffix}.safetensors"


def _finished(folder: str | Path | None, identity: Mapping[str, Any]) -> Path | None:
    """The file of the expert in `folder`, if it is there.

    Raises ValueError if it is of other settings.
    """
    if folder is None or not _path(folder, identity["number"]).exists():
        return None
    path = _path(folder, identity["number"])
    with tensor_files.open_tensors(path) as file:
        info, _ = tensor_files.read_header(path, file.metadata() or {}, KIND)
    stored = info.get("identity", {})
    differ = [
        f"{name}: {stored.get(name)!r} there, {value!r} here"
        for name, value in identity.items()
        if stored.get(name) != value
    ]
    if differ:
        raise ValueError(
            f"expert {path} was trained otherwise ({'; '.join(differ)}); give another folder, or "
            "the same settings"
        )
    return path


def _train(
    training: "_Training",
    folder: str | Path | None,
    identity: Mapping[str, Any],
    time_budget: float | None,
) -> Path | Tensor | None:
    """Train one expert to the end, its file or its trajectory; None if the time ran out."""
    unfinished = None if folder is None else _path(folder, identity["number"], ".unfinished")
    epochs = identity["epochs"]
    history = resumable.run(
        training, epochs, identity, checkpoint=unfinished, time_budget=time_budget, progress=False
    )
    if history["steps"] < epochs:
        return None
    trajectory = torch.stack(training.rows)
    if folder is None or unfinished is None:
        return trajectory
    info = {"identity": dict(identity), **history}
    path = tensor_files.save_tensors(
        _path(folder, identity["number"]), KIND, {"parameters": trajectory}, info
    )
    unfinished.unlink(missing_ok=True)
    return path


class _Training(resumable.Stepper):
    """One expert in training, as the loop takes it: a step is an epoch."""

    def __init__(
        self,
        data: ImageData,
        settings: ExpertSettings,
        identity: Mapping[str, Any],
        device: torch.device,
        compiled: bool,
        advance: Callable[[int], Any],
    ) -> None:
        devices.keep_memory(device)
        self.data, self.settings, self.advance = data, settings, advance
        self.source = seeds.generator(identity["seed"], STREAM + identity["number"])
        self.model = network_of(settings, data, seeds.draw_seed(self.source)).to(device)
        optimiser = train.Optimiser(settings.lr, settings.momentum, settings.weight_decay).build(
            self.model
        )
        self.network_step = train.Step(self.model, optimiser, identity["precision"], compiled)
        chosen = seeds.choice(len(data.train_images), settings.taken(data), self.source)
        self.images, self.labels = (
            RealImages.training(data, device).of(chosen),
            data.train_labels[chosen].to(device),
        )
        self.own_source = seeds.for_device(self.source, device)
        self.rows = [self._parameters()]  # on the CPU
        self.shown = 0  # images that the bar has

    def _parameters(self) -> Tensor:
        return parameters_to_vector(self.model.parameters()).detach().cpu()

    def step(self, number: int) -> float:
        """Epoch `number`.

        Returns its mean cross-entropy, NaN where the weights leave the finite numbers.
        """
        self.progress = number * len(self.images)  # in images, over all epochs
        self._look()
        order = seeds.choice(len(self.images), len(self.images), self.own_source).to(
            self.images.device
        )
        total = torch.zeros((), device=self.labels.device)
        for part in order.tensor_split(-(-len(order) // (CHUNK * self.settings.batch_size))):
            total += self._train_on(part)
        self.rows = [
            *(self.rows if self.settings.every_epoch else self.rows[:1]),
            self._parameters(),
        ]
        return total.item() / len(self.images) if self.rows[-1].isfinite().all() else math.nan

    def _train_on(self, part: Tensor) -> Tensor:
        """Train on the images with these indices; the sum of their losses."""
        images, labels = self.images.of(part), self.labels[part]
        losses = []

        def seen(index: Tensor, logits: Tensor) -> None:
            losses.append(F.cross_entropy(logits, labels[index], reduction="sum"))
            self.progress += len(index)
            self._look()

        options: dict[str, Any] = {
            "classes": len(self.data.classes),
            "augmentation": self.settings.augmentation,
        }
        options |= {"batch_size": self.settings.batch_size, "cutmix": 0.0, "seen": seen}
        train.epoch(self.network_step, images, labels, self.own_source, **options)
        return torch.stack(losses).sum()

    def _look(self) -> None:
        """Set the learning rate of the next batch, and advance the bar."""
        self.advance(self.progress - self.shown)
        self.shown = self.progress
        self.network_step.optimizer.lr = self.settings.lr_at(
            self.progress / (self.settings.epochs * len(self.images))
        )

    def state(self) -> dict[str, Tensor]:
        """The parameters that are kept and the present ones, float32 [n, P], the momentum, and the
        states of the generators.
        """
        momentum = parameters_to_vector(self.network_step.optimizer.momenta)
        return {
            "parameters": torch.stack(self.rows),
            "momentum": momentum,
            **seeds.states(self.source, self.own_source),
        }

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go back to what `state` gave."""
        self.rows = list(state["parameters"])
        seeds.restore(state, self.source, self.own_source)
        _fill(list(self.model.parameters()), self.rows[-1])
        if "momentum" in state:  # files of version 0.1 lack it if there was none
            _fill(self.network_step.optimizer.momenta, state["momentum"])


def _fill(tensors: Sequence[Tensor], values: Tensor) -> None:
    """Copy a flat vector into tensors, one after another."""
    for tensor, part in zip(tensors, values.split([tensor.numel() for tensor in tensors])):
        tensor.copy_(part.view_as(tensor))
