"""Experts: networks trained on real images and kept in a folder, for MTT and NCFM.

MTT keeps the weights of every epoch, NCFM those at the start and at the end.
"""

import functools
import math
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from yoco import models
from yoco.condense.expert_training import ExpertSettings, ExpertTraining
from yoco.data.image_data import ImageData
from yoco.training import resumable
from yoco.utils import checks, digests, locks, tensor_files
from yoco.utils import device as devices

KIND = "expert"


class Experts:
    """Finished experts.

    Each is a file of `train_experts`, from which two rows at a time are read, or a tensor [epochs +
    1, P].
    """

    def __init__(self, trajectories: Sequence[Path | Tensor]) -> None:
        self.trajectories = list(trajectories)

    def __len__(self) -> int:
        return len(self.trajectories)

    def pair(
        self, number: int, epoch: int, ahead: int
    ) -> tuple[Float[Tensor, "parameters"], Float[Tensor, "parameters"]]:
        """Return the parameters of expert `number` after `epoch` epochs and after `ahead` more.

        They are in named_parameters order. Raises FileNotFoundError if its file
        is gone, ValueError if it is corrupted or holds NaN or infinite values.
        """
        trajectory, rows = self.trajectories[number], [epoch, epoch + ahead]
        first, second = (
            trajectory[rows] if isinstance(trajectory, Tensor) else _read(trajectory, rows)
        )
        return first, second


def _read(path: Path, rows: Sequence[int]) -> list[Tensor]:
    """Return rows of a trajectory's file.

    Nothing else is read once the whole file has been checked.
    """
    with tensor_files.open_tensors(path) as file:
        _check(path, path.stat().st_mtime_ns)
        try:
            parameters = file.get_slice("parameters")
            return [parameters[row] for row in rows]
        except (IndexError, RuntimeError, safetensors.SafetensorError) as error:
            raise ValueError(
                f"{path} is corrupted or holds no epochs {list(rows)}: {error}"
            ) from error


@functools.cache
def _check(path: Path, changed: int) -> None:
    """Raise ValueError if a file is corrupted or holds NaN.

    It is read once per process and modification time.
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
    """Train `count` experts on the normalised training images as `settings` say.

    Each image is augmented by its own draw, without CutMix.

    Args:
        data: the real images.
        folder: one file per expert, `expert-000.safetensors`, whose "parameters" are float32
            [epochs + 1, P], the initial ones first ([2, P] if the settings keep only the first and
            the last). Finished experts are used as they are, whatever `count` they were made for;
            an unfinished one is resumed from its checkpoint, written every minute, to a
            bit-identical result. None: experts are kept in memory.
        settings: how an expert is trained.
        count: number of experts.
        only: numbers of those that are wanted (None: all of 0..count-1).
        seed: seed of the experts.
        device, precision, compiled: where and how they are trained.
        progress: show a progress bar.
        time_budget: seconds after which no epoch is begun; only finished experts are returned.

    Raises:
        ValueError: before any training, if an argument is bad, or a file in the folder is corrupted
            or of other settings.
        FloatingPointError: if an expert's loss or weights are not finite.
        OSError: if the folder cannot be written to.
    """
    checks.whole("count", count, 1)
    folder = None if folder is None else checks.path("folder", folder)
    allowed = math.inf if time_budget is None else checks.real("time_budget", time_budget, 0)
    where = devices.choose(device)
    how = devices.choose_precision(precision, where)
    each = settings.epochs * settings.taken(data)
    if compiled is None:
        compiled = devices.worth_compiling(where, count * each, data.size)
    wanted = [number for number in range(count) if only is None or number in only]
    identities = _identities(data, settings, seed, how, wanted)
    experts: list[Path | Tensor | None] = [_finished(folder, each) for each in identities]
    end = time.monotonic() + allowed
    with tqdm(
        total=len(wanted) * each,
        desc="training experts",
        unit="image",
        unit_scale=True,
        disable=not progress,
    ) as bar:
        for place, identity in enumerate(identities):
            left = end - time.monotonic()
            if experts[place] is not None:
                bar.update(each)
            elif left > 0:
                work = ExpertTraining(data, settings, identity, where, compiled, bar.update)
                experts[place] = _train(work, folder, identity, left)
    return Experts([expert for expert in experts if expert is not None])


def _identities(
    data: ImageData, settings: ExpertSettings, seed: int, precision: str, numbers: Iterable[int]
) -> list[dict[str, Any]]:
    """Return the identity of each expert: the settings that made it, as in its file."""
    common = {
        "dataset": data.name,
        "dataset_images": len(data.train_images),
        "seed": seed,
        "precision": precision,
        "last_batch": "even",
        **models.layout(settings.model, *models.shape_of(data)),
        **asdict(settings),
        digests.MADE_FROM: data.made_from,
    }
    return [{**common, "number": number} for number in numbers]


def missing(folder: str | Path | None, count: int) -> int:
    """Return how many of `count` experts have no file in `folder` yet."""
    return sum(folder is None or not _path(folder, n).exists() for n in range(count))


def _path(folder: str | Path, number: int, suffix: str = "") -> Path:
    return Path(folder) / f"expert-{number:03d}{suffix}.safetensors"


def _finished(folder: str | Path | None, identity: Mapping[str, Any]) -> Path | None:
    """Return the file of the expert in `folder`, if it exists.

    Raises ValueError if it is of other settings.
    """
    path = _path(folder or "", identity["number"])
    if folder is None or not path.exists():
        return None
    with tensor_files.open_tensors(path) as file:
        info, _ = tensor_files.read_header(path, file.metadata() or {}, KIND)
    resumable.check_identity(f"expert {path}", info.get("identity"), identity)
    return path


def _train(
    training: ExpertTraining,
    folder: str | Path | None,
    identity: Mapping[str, Any],
    time_budget: float,
) -> Path | Tensor | None:
    """Train one expert to the end; return its file or trajectory, or None if the time ran out.

    If another run is training it, wait for that one's.
    """
    with locks.hold(None if folder is None else _path(folder, identity["number"]), wait=True):
        return _finished(folder, identity) or _trained(training, folder, identity, time_budget)


def _trained(
    training: ExpertTraining,
    folder: str | Path | None,
    identity: Mapping[str, Any],
    time_budget: float,
) -> Path | Tensor | None:
    """As `_train`, while no other run trains the expert."""
    unfinished = None if folder is None else _path(folder, identity["number"], ".unfinished")
    history = resumable.run(
        training,
        identity["epochs"],
        identity,
        checkpoint=unfinished,
        time_budget=time_budget,
        progress=False,
    )
    if history["steps"] < history["planned_steps"]:
        return None
    trajectory = torch.stack(training.rows)
    if folder is None or unfinished is None:
        return trajectory
    path, info = _path(folder, identity["number"]), {"identity": dict(identity), **history}
    tensor_files.save_tensors(path, KIND, {"parameters": trajectory}, info)
    unfinished.unlink(missing_ok=True)
    return path
