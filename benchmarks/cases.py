"""What is timed: each case has two sides, "literal" and "ours".

Both do the same work on the same data.
"""

from collections.abc import Callable
from typing import Any

import torch

from benchmarks import literal
from yoco import condense, dynamics, evaluate, prune
from yoco.condense.idc import GradientMatching
from yoco.data import ImageData, to_floats
from yoco.data.normalise import normalise
from yoco.dynamics import dynamics as dynamics_module
from yoco.sets.condensed_set import CondensedSet
from yoco.training import network as train
from yoco.utils import seeds
from yoco.utils.device import can_compile, choose, choose_precision

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
Work = Callable[[], Any]


def random_data(
    classes: int = 10, per_class: int = 300, test: int = 64, size: int = 32
) -> ImageData:
    """Return noise in CIFAR-10's shapes: time does not depend on the content of images."""
    source = seeds.generator(0)

    def split(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        images = torch.randint(0, 256, (count, 3, size, size), generator=source, dtype=torch.uint8)
        return images, torch.arange(classes).repeat_interleave(-(-count // classes))[:count]

    return ImageData(
        "noise",
        *split(classes * per_class),
        *split(test),
        tuple(map(str, range(classes))),
        MEAN,
        STD,
    )


def inner_loop(
    side: str, device: torch.device, *, classes: int = 10, ipc: int = 10, per_class: int = 300
) -> Work:
    """One inner loop of IDC at CIFAR-10 shapes, factor 2.

    Every class is matched, then the image step and the network step on 2,000 images.
    """
    data = random_data(classes, per_class)
    settings = condense.settings_for("paper", data.size, ipc, {})
    source = seeds.generator(0)
    if side == "literal":
        images = condense.real_set(data, ipc, 2, 0).images
        loops = literal.InnerLoops(
            data, images, 2, lr=settings.image_lr, device=device, source=source
        )
        return lambda: loops.step(settings.real_batch, settings.network_images)
    ours = GradientMatching(
        data,
        ipc,
        2,
        settings,
        source,
        device,
        choose_precision("auto", device),
        can_compile(device),
    )
    return lambda: ours.step(1)


def formed_set(per_class: int) -> CondensedSet:
    return condense.real_set(random_data(), per_class // 4, 2, 0)


def training(side: str, device: torch.device, *, per_class: int, epochs: int) -> Work:
    """Train one network on 10 × per_class formed images, with augmentation.

    The schedule is the paper's, shortened to `epochs`.
    """
    condensed = formed_set(per_class)
    images, labels = condensed.form()
    images = condensed.normalise(images)
    if side == "literal":
        return lambda: literal.fit(images, labels, 10, epochs, seeds.generator(0), device)
    protocol = train.Protocol(epochs=epochs, compiled=can_compile(device)).resolved(device, 0, 32)
    return lambda: train.fit(images.to(device), labels.to(device), 10, protocol, 0)


def recording(side: str, device: torch.device, *, epochs: int) -> Work:
    """Record dynamics: train on all 400 formed images and keep the logits of every epoch."""
    condensed = formed_set(40)
    if side == "literal":
        images, labels = condensed.form()
        return lambda: literal.fit(
            condensed.normalise(images), labels, 10, epochs, seeds.generator(0), device, []
        )
    return lambda: dynamics.record(
        condensed,
        epochs=epochs,
        seed=0,
        compiled=can_compile(device),
        progress=False,
        device=device,
    )


def table_block(side: str, device: torch.device, *, epochs: int, runs: int) -> Work:
    """A block of Table 2: `runs` dynamics with 9 columns × IPC_T 1, 2, 5 each.

    Every cell is scored, pruned, trained and tested. The ninth column, DREAM, is a random draw from
    another set of the same size: here another random draw from this one.
    """
    data, condensed = random_data(), formed_set(40)

    def subsets(
        recorded: dynamics.Dynamics, number: int
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        columns = [(method, number) for method in prune.compared()] + [("random", number + 1000)]
        kept = [
            prune.prune(condensed, recorded, method, budget, seed=seed)
            for method, seed in columns
            for budget in (1, 2, 5)
        ]
        return [selection.subset(condensed) for selection in kept]

    if side == "literal":
        return lambda: _literal_block(condensed, data, subsets, epochs, runs, device)

    def ours() -> list[float]:
        options = {"epochs": epochs, "compiled": can_compile(device)}
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


CASES: dict[str, Callable[[str, torch.device], Work]] = {
    "inner_loop": inner_loop,
    "train_40": lambda side, device: training(side, device, per_class=4, epochs=40),
    "train_400": lambda side, device: training(side, device, per_class=40, epochs=4),
    "dynamics": lambda side, device: recording(side, device, epochs=4),
    "table_block": lambda side, device: table_block(side, device, epochs=4, runs=1),
}
IMAGES = {"train_40": 40 * 40, "train_400": 400 * 4, "dynamics": 400 * 4}  # trained on in one run


def build(case: str, side: str, device: str, **options: Any) -> Work:
    """Return the work of a case on one side, ready to be timed."""
    return CASES[case](side, choose(device), **options)
