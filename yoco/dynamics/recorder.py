"""Train once on the formed images and record what each image showed, in bounded memory.

The recording suffices for every score.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

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
from yoco.utils import checks, digests, fields, tensor_files
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
            first drops after 2/3 of `epochs`). With the same checkpoint, a later call can go on.
        record_on: "augmented" records the logits during training, on the augmented and mixed
            batches but against the original labels, as the paper does; "clean" records those of the
            unaugmented images after each epoch.
        top_k, windows: settings that LBPE can use later (None: the paper's, see `lbpe_settings`).
        early: epochs that EL2N can use.
        checkpoint: a file to resume from if it exists, written every minute; an interrupted
            recording resumes to a bit-identical result.
        device, progress: where it runs, and whether it shows a bar.
        **options: fields of `protocol.Protocol`, and `protocol`, "even" or "paper".

    Returns:
        The recording; with `until`, without what only a whole run has (see `Dynamics.complete`).

    Raises:
        TypeError, ValueError: if an argument is bad, before any work.
        FloatingPointError: if the training diverges; other errors as `resumable.run`.
    """
    asked = Asked(until, record_on, top_k, windows, early)
    protocol = _protocol(epochs=epochs, model=model, **options)
    where, file = devices.choose(device), tensor_files.file("checkpoint", checkpoint)
    checks.flag("progress", progress)
    return _record(condensed, [seed], where, [file], asked, protocol, progress)[0]


def _windows(name: str, windows: object) -> list[int]:
    return [checks.whole(name, window, 1) for window in checks.sequence(name, windows)]


@dataclass(frozen=True)
class Asked:
    """What `record` is asked to keep of a training run; see there."""

    until: fields.Count | None = None
    record_on: Annotated[str, fields.among(RECORD_ON)] = "augmented"
    top_k: fields.Count | None = None
    windows: Annotated[Sequence[int], _windows] | None = None
    early: fields.Count = EARLY

    def __post_init__(self) -> None:
        fields.check(self)

    def of(self, condensed: CondensedSet) -> dict[str, Any]:
        """Return the values by name, with LBPE's settings for this set in place of None."""
        top_k, window = lbpe_settings(condensed)
        return {
            **vars(self),
            "top_k": self.top_k or top_k,
            "windows": self.windows or [window],
        }


class _Planned(NamedTuple):
    """A recording at its start, and everything that is said about it."""

    recording: Recording
    steps: int
    head: str | None
    info: dict[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint must share; one of fewer epochs can be continued."""
        return {**self.info, **self.recording.run.protocol.told, "until": None}


def _planned(
    condensed: CondensedSet, seed: int, where: torch.device, asked: Asked, protocol: Protocol
) -> _Planned:
    """Check what depends on the set; return the recording at its start."""
    kept = asked.of(checks.instance("condensed", condensed, CondensedSet))
    seed, shape = checks.seed("seed", seed), models.shape_of(condensed)
    steps = checks.whole("until", asked.until or protocol.epochs, 1, protocol.epochs)
    models.check_takes(protocol.model, *shape)
    head = models.head_of(protocol.model, *shape) if steps == protocol.epochs else None
    protocol = protocol.resolved(where, steps * len(condensed.formed_labels), condensed.size)
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
        top_k=kept["top_k"],
        windows=kept["windows"],
        early=steps if steps <= SHORT else asked.early,
    )
    info = {  # everything that determines the dynamics
        "set": condensed.fingerprint,
        digests.MADE_FROM: condensed.made_from,
        "epochs": protocol.epochs,
        "seed": seed,
        "model": protocol.model,
        "width": protocol.width,
        **kept,
        "precision": protocol.precision,
        "compiled": protocol.compiled,
        "batch_size": protocol.batch_size,
        **{name: getattr(protocol, name) for name in BEFORE},
        **models.layout(protocol.model, *shape),
    }
    return _Planned(Recording(run, recorder, asked.record_on), steps, head, info)


def _protocol(**options: Any) -> Protocol:
    protocol = Protocol.of(**{"cutmix": CUTMIX, **options})
    protocol.check_recorded()
    return protocol


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
    checks.instance("condensed", condensed, CondensedSet)
    seeds = [checks.seed("seeds", seed) for seed in checks.sequence("seeds", seeds)]
    jobs = pool.jobs_for(jobs, where, len(seeds), executor)
    alone = jobs == 1 and executor is None
    todo = list(seeds if only is None else only)
    files = [tensor_files.file("checkpoints", (checkpoints or {}).get(seed)) for seed in todo]
    kept = {name: options.pop(name) for name in vars(Asked()) if name in options}
    asked, protocol = Asked(**kept), _protocol(**options)
    # decided here: a worker may have another environment
    protocol = replace(protocol, precision=devices.choose_precision(protocol.precision, where))
    shape = torch.Size((len(condensed.formed_labels), *condensed.images.shape[1:]))
    # one that has begun is resumed alone
    kinds = [(protocol, shape, file if file and file.exists() else None) for file in files]
    groups = stacked.grouped(kinds, where, jobs)
    shared = (asked, protocol, progress and alone)
    calls = [
        ([todo[place] for place in group], where, [files[place] for place in group], *shared)
        for group in groups
    ]
    names = [f"the recording of seed {', '.join(map(str, seeds))}" for seeds, *_ in calls]
    steps = (asked.until or protocol.epochs) * shape[0]
    if progress and todo and protocol.resolved(where, steps, shape[-1]).compiled:
        timing.say_compiling()
    with tqdm(total=len(todo), desc="dynamics", unit="run", disable=not progress or alone) as bar:
        for position, found in pool.run(
            _record, calls, jobs, shared=(condensed,), executor=executor, names=names
        ):
            for place, recorded in zip(groups[position], found):
                bar.update()
                yield todo[place], recorded


def _record(
    condensed: CondensedSet,
    seeds: Sequence[int],
    where: torch.device,
    checkpoints: Sequence[str | Path | None],
    asked: Asked,
    protocol: Protocol,
    progress: bool,
) -> list[Dynamics]:
    """Return the dynamics of the seeds of a group, whose networks train at once."""
    planned = [_planned(condensed, seed, where, asked, protocol) for seed in seeds]
    first = planned[0]
    shown: dict[str, Any] = {"progress": progress, "unit": "epoch"}
    if progress and first.recording.run.protocol.compiled:
        timing.say_compiling()
    if len(planned) == 1:
        shown |= {"description": f"dynamics, seed {seeds[0]}", "checkpoint": checkpoints[0]}
        resumable.run(first.recording, first.steps, first.identity, **shown)
    else:
        identities = [each.identity for each in planned]
        together = RecordedTogether([each.recording for each in planned], checkpoints, identities)
        together.save()  # an unwritable place is found before the work, not after it
        shown |= {"description": f"dynamics, {len(seeds)} seeds at once", "look": together.save}
        resumable.run(together, first.steps, {**first.identity, "seed": list(seeds)}, **shown)
    return [each.recording.dynamics(each.head, each.info) for each in planned]
