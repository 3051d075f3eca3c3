"""What is timed: each case has two sides, "literal" and "ours".

Both do the same work on the same data.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks import literal
from yoco import condense, dynamics, evaluate, prune
from yoco.data import ImageData, to_floats
from yoco.data.normalise import normalise
from yoco.dynamics import dynamics as dynamics_module
from yoco.selfcheck import speed
from yoco.selfcheck.speed import Work, noise, noise_set
from yoco.sets.condensed_set import CondensedSet
from yoco.training import network as train
from yoco.utils import seeds
from yoco.utils.device import choose, worth_compiling


def compiled(device: torch.device) -> bool:
    """Return whether long work on a device is compiled: on a CPU with a compiler."""
    return worth_compiling(device, 10**9, 32)


def inner_loop(
    side: str, device: torch.device, *, classes: int = 10, ipc: int = 10, per_class: int = 300
) -> Work:
    """One inner loop of IDC at CIFAR-10 shapes, factor 2 (see `speed.inner_loop`)."""
    if side == "ours":
        return speed.inner_loop(
            device, compiled=compiled(device), classes=classes, ipc=ipc, per_class=per_class
        )
    data = noise(classes, per_class)
    settings = condense.settings_for("paper", data.size, ipc, {})
    images = condense.real_set(data, ipc, 2, 0).images
    loops = literal.InnerLoops(
        data, images, 2, lr=settings.image_lr, device=device, source=seeds.generator(0)
    )
    return lambda: loops.step(settings.real_batch, settings.network_images)


def training(side: str, device: torch.device, *, per_class: int, epochs: int) -> Work:
    """Train one network on 10 × per_class formed images (see `speed.training`)."""
    if side == "ours":
        return speed.training(device, compiled=compiled(device), per_class=per_class, epochs=epochs)
    condensed = noise_set(per_class)
    images, labels = condensed.form()
    images = condensed.normalise(images)
    return lambda: literal.fit(images, labels, 10, epochs, seeds.generator(0), device)


def recording(side: str, device: torch.device, *, epochs: int) -> Work:
    """Record dynamics: train on all 400 formed images and keep the logits of every epoch."""
    condensed = noise_set(40)
    if side == "literal":
        images, labels = condensed.form()
        return lambda: literal.fit(
            condensed.normalise(images), labels, 10, epochs, seeds.generator(0), device, []
        )
    return lambda: dynamics.record(
        condensed,
        epochs=epochs,
        seed=0,
        compiled=compiled(device),
        progress=False,
        device=device,
    )


def table_block(side: str, device: torch.device, *, epochs: int, runs: int) -> Work:
    """A block of Table 2: `runs` dynamics with 9 columns × IPC_T 1, 2, 5 each.

    Every cell is scored, pruned, trained and tested. The ninth column, DREAM, is a random draw from
    another set of the same size: here another random draw from this one.
    """
    data, condensed = noise(), noise_set(40)

    def subsets(
        recorded: dynamics.Dynamics, number: int
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        methods = [method for method in prune.compared() if method != "yoco+"]
        columns = [*((method, number) for method in methods), ("random", number + 1000)]
        kept = [
            prune.prune(condensed, recorded, method, budget, seed=seed)
            for method, seed in columns
            for budget in (1, 2, 5)
        ]
        return [selection.subset(condensed) for selection in kept]

    if side == "literal":
        return lambda: _literal_block(condensed, data, subsets, epochs, runs, device)

    def ours() -> list[float]:
        options = {"epochs": epochs, "compiled": compiled(device)}
        recorded = dict(
            dynamics.record_many(
                condensed, seeds=range(runs), device=device, progress=False, **options
            )
        )
        protocol = train.Protocol(**options)
        work = [
            evaluate.Training(*subset, number, protocol)
            for number in range(runs)
            for subset in subsets(recorded[number], number)
        ]
        return [a for _, a in evaluate.accuracies(work, data, device=device, progress=False)]

    return ours


def _literal_block(
    condensed: CondensedSet,
    data: ImageData,
    subsets: Callable,
    epochs: int,
    runs: int,
    device: torch.device,
) -> list[float]:
    images, labels = condensed.form()
    test = normalise(to_floats(data.test_images), data.mean, data.std)
    accuracies = []
    for number in range(runs):
        history: list[torch.Tensor] = []
        model = literal.fit(
            condensed.normalise(images),
            labels,
            10,
            epochs,
            seeds.generator(number),
            device,
            history,
        )
        recorded = _as_dynamics(condensed, history, model, device)
        for chosen, targets in subsets(recorded, number):
            model = literal.fit(
                condensed.normalise(chosen), targets, 10, epochs, seeds.generator(number), device
            )
            accuracies.append(literal.accuracy(model, test, data.test_labels))
    return accuracies


@torch.no_grad()
def _as_dynamics(
    condensed: CondensedSet,
    history: list[torch.Tensor],
    model: torch.nn.Module,
    device: torch.device,
) -> dynamics.Dynamics:
    """Return what the scores read: every epoch's logits, and the trained network's outputs."""
    logits, labels = torch.stack(history), condensed.formed_labels
    inputs = condensed.normalise(condensed.form()[0]).to(device)
    margins = dynamics_module.margin(logits, labels).mean(0)
    correct = logits.argmax(-1) == labels
    return dynamics.Dynamics(
        logits,
        torch.arange(len(logits)),
        correct,
        margins,
        labels,
        model(inputs).cpu(),
        model.features(inputs).cpu(),
    )


CASES: dict[str, Callable[..., Work]] = {
    "inner_loop": inner_loop,
    "train_40": functools.partial(training, per_class=4, epochs=40),
    "train_400": functools.partial(training, per_class=40, epochs=4),
    "dynamics": functools.partial(recording, epochs=4),
    "table_block": functools.partial(table_block, epochs=4, runs=1),
}
# on a CPU their runs are trained side by side, in processes of one thread each
SIDE_BY_SIDE = ("table_block",)


def clock(device: torch.device) -> Callable[[], float]:
    """Return the clock of a measurement.

    With one thread of a CPU it counts the CPU seconds of this process, which other programs on the
    machine disturb least; otherwise it is the wall clock.
    """
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return time.process_time if alone else time.perf_counter


def build(case: str, side: str, device: str, **options: Any) -> Work:
    """Return the work of a case on one side, ready to be timed."""
    return CASES[case](side, choose(device), **options)
