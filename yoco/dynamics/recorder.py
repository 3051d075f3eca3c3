"""Train once on the formed images and record what each image showed, in bounded memory.

The recording suffices for every score.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from yoco import models
from yoco.dynamics.dynamics import CUTMIX, EARLY, SHORT, Dynamics, lbpe_settings
from yoco.dynamics.recording import RECORD_ON as RECORD_ON
from yoco.dynamics.recording import RecordedTogether, Recorder, Recording
from yoco.parallel import pool
from yoco.sets.condensed_set import CondensedSet
from yoco.training import network as training
from yoco.training import resumable, stacked, timing
from yoco.training.protocol import BEFORE, Protocol
from yoco.utils import checks, digests
from yoco.utils import device as devices
from yoco.utils.foreign import Factory


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
    planned = _planned(
        condensed,
        epochs,
        seed,
        device,
        model=model,
        until=until,
        record_on=record_on,
        top_k=top_k,
        windows=windows,
        early=early,
        **options,
    )
    if progress and planned.recording.run.protocol.compiled:
        timing.say_compiling()
    resumable.run(
        planned.recording,
        planned.steps,
        planned.identity,
        checkpoint=checkpoint,
        progress=progress,
        description=f"dynamics, seed {seed}",
        unit="epoch",
    )
    return planned.dynamics()


@dataclass(frozen=True)
class _Planned:
    """A recording at its start, and all that is told of it."""

    recording: Recording
    steps: int
    head: str | None
    info: Mapping[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint must share."""
        protocol = replace(self.recording.run.protocol, compiled=None)
        return {**self.info, "protocol": repr(protocol)}

    def dynamics(self) -> Dynamics:
        """Return what was recorded."""
        return self.recording.dynamics(self.head, self.info)


def _planned(
    condensed: CondensedSet,
    epochs: int,
    seed: int,
    device: str | torch.device,
    *,
    model: str | Factory = "convnet",
    until: int | None = None,
    record_on: str = "augmented",
    top_k: int | None = None,
    windows: Sequence[int] | None = None,
    early: int = EARLY,
    **options: Any,
) -> _Planned:
    """Check the arguments of `record`; return the recording at its start."""
    asked = _asked(condensed, record_on, top_k, windows, early)
    seed = checks.seed("seed", seed)
    epochs = checks.whole("epochs", epochs, 1)
    protocol = _protocol(epochs=epochs, model=model, **options)
    if until is not None:
        until = checks.whole("until", until, 1, epochs)
    shape = models.shape_of(condensed)
    models.check_takes(protocol.model, *shape)
    head = models.head_of(protocol.model, *shape) if until in (None, epochs) else None
    where, steps = devices.choose(device), until or epochs
    protocol = protocol.resolved(where, steps * len(condensed.formed_labels), condensed.size)
    info = _info(condensed, protocol, {"until": until, "seed": seed, **asked})
    return _Planned(_recording(condensed, protocol, seed, where, steps, asked), steps, head, info)


def _protocol(**fields: Any) -> Protocol:
    return Protocol.of(**{"cutmix": CUTMIX, **fields})


def _recording(
    condensed: CondensedSet,
    protocol: Protocol,
    seed: int,
    where: torch.device,
    epochs: int,
    asked: Mapping[str, Any],
) -> Recording:
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
    return Recording(run, recorder, asked["record_on"])


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
        only: the seeds to record (None: all). Results do not change if only some are recorded; on a
            GPU, up to rounding, as several train at once there (see `stacked`).
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
    files = [(checkpoints or {}).get(seed) for seed in todo]
    kinds = [_kind(condensed, file, shared) for file in files]
    groups = stacked.grouped(kinds, where, jobs)
    calls = [
        ([todo[place] for place in group], where, [files[place] for place in group], shared)
        for group in groups
    ]
    names = [f"the recording of seed {', '.join(map(str, seeds))}" for seeds, *_ in calls]
    if progress and any(_compiled(*kind[:2], where, options.get("until")) for kind in kinds):
        timing.say_compiling()
    with tqdm(total=len(todo), desc="dynamics", unit="run", disable=not progress or alone) as bar:
        for position, found in pool.run(
            _record, calls, jobs, shared=(condensed,), executor=executor, names=names
        ):
            for place, recorded in zip(groups[position], found):
                bar.update()
                yield todo[place], recorded


def _kind(
    condensed: CondensedSet, checkpoint: Path | None, options: Mapping[str, Any]
) -> tuple[Protocol, torch.Size, Any]:
    """Return what recordings that train at once share, see `stacked.grouped`.

    One that has begun goes on alone.
    """
    named = {"protocol", *(field.name for field in fields(Protocol))}
    protocol = _protocol(**{name: options[name] for name in named & set(options)})
    shape = torch.Size((len(condensed.formed_labels), *condensed.images.shape[1:]))
    return protocol, shape, checkpoint if checkpoint and checkpoint.exists() else None


def _compiled(
    protocol: Protocol, shape: torch.Size, where: torch.device, until: int | None
) -> bool | None:
    """Return whether a recording compiles its training step."""
    steps = until if isinstance(until, int) else protocol.epochs
    return protocol.resolved(where, steps * shape[0], shape[-1]).compiled


def _record(
    condensed: CondensedSet,
    seeds: Sequence[int],
    device: torch.device,
    checkpoints: Sequence[Path | None],
    options: Mapping[str, Any],
) -> list[Dynamics]:
    """Return the dynamics of the seeds of a group."""
    if len(seeds) == 1:
        how = {**options, "seed": seeds[0], "checkpoint": checkpoints[0], "device": device}
        return [record(condensed, **how)]
    own = {name: value for name, value in options.items() if name != "progress"}
    planned = [_planned(condensed, seed=seed, device=device, **own) for seed in seeds]
    identities = [each.identity for each in planned]
    together = RecordedTogether([each.recording for each in planned], checkpoints, identities)
    together.save()  # an unwritable place is found before the work, not after it
    resumable.run(
        together,
        planned[0].steps,
        {**identities[0], "seed": list(seeds)},
        look=together.save,
        progress=options["progress"],
        description=f"dynamics, {len(seeds)} seeds at once",
        unit="epoch",
    )
    return [each.dynamics() for each in planned]
