"""A small simulation of IDC with classes divided over many GPUs: hours, and what they are spent on.

In a step, every rank matches its classes and trains the same network on the same images; then the
ranks exchange what the plan says. Speeds of GPUs and links are assumed (`Machine`), operations and
bytes are counted, and what CPUs do is measured (`benchmarks.costs`). `benchmarks.imagenet1k` runs
it; docs/imagenet1k.md says which figure is which.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

GPUS = (1, 8, 64, 512)
TERMS = (
    "matching",
    "waiting",
    "network",
    "draws",
    "exchange",
    "images",
    "pretraining",
    "checkpoints",
    "failures",
)


@dataclass(frozen=True)
class Job:
    """What is condensed, with the paper's settings for ImageNet-10."""

    classes: int = 1000
    per_class: int = 1281  # real images; 1,281,167 in all
    side: int = 224
    ipc: int = 50
    real: int = 64
    # of 128 cells the 14 whole images of 9, as version 0.1 took them: what the plan was computed
    # for
    formed: int = 126
    network_images: int = 500
    batch: int = 64
    outer_loops: int = 500
    inner_loops: int = 100
    pretrain_epochs: int = 10

    @property
    def image_bytes(self) -> int:
        return 3 * self.side**2

    @property
    def set_bytes(self) -> int:
        """Bytes of the condensed images in float32."""
        return 4 * self.classes * self.ipc * self.image_bytes


@dataclass(frozen=True)
class Work:
    """Operations per image, bytes, and CPU seconds.

    draws_s: per class. sum_s: per byte of a checkpoint.
    """

    real_flop: float
    formed_flop: float
    trained_flop: float
    weight_bytes: float
    draws_s: float
    sum_s: float
    decode_s: float


@dataclass(frozen=True)
class Machine:
    """Assumptions about a cluster of H100 nodes; none of them could be measured here."""

    flops: float = 989e12  # bfloat16, dense: NVIDIA's data sheet of the H100 SXM
    used: float = 0.15  # share that these small convolutions reach: assumed, 0.05 to 0.30
    least_batch_s: float = 0.005  # of any forward and backward, for its kernels' launches: assumed
    node: int = 8
    # bytes/s a GPU over NVLink: two thirds of the 450e9 a way of the data sheet
    inside: float = 300e9
    outside: float = 35e9  # bytes/s a GPU over InfiniBand: 70 % of 400 Gbit/s
    inside_s: float = 5e-6  # of a message
    outside_s: float = 15e-6
    memory_bytes: float = 80e9
    memory_rate: float = 2e12  # bytes/s of the 3.35e12 of the data sheet, for the image step
    read_rate: float = 5e9  # bytes/s a rank, from the mapped pixels to its GPU: assumed
    # bytes/s of one process to a file, and 10 times that of all together: assumed
    write_rate: float = 2e9
    noise: float = 0.03  # of a rank's step: sigma of a lognormal, assumed
    stall: float = 0.001  # chance of a rank to take twice as long in a step: assumed
    # between failures of a node: 419 unexpected stops in 54 days of 2,048 nodes (Llama 3 report)
    node_hours: float = 6300.0
    restart_s: float = 600.0  # assumed
    save_every: float = 60.0  # yoco's, seconds between checkpoints


@dataclass(frozen=True)
class Plan:
    """Which rank holds and does what.

    own: each rank holds, draws for and writes only the condensed images of its own classes, so that
    in a step only the weights are exchanged, and checkpoints take at most a twentieth of the time;
    otherwise all ranks hold everything and sum a gradient of everything, and rank 0 writes
    everything once a minute. ahead: the networks of the outer loops are pretrained in advance, one
    per GPU; otherwise all ranks pretrain each when it is due.
    """

    name: str
    own: bool = False
    ahead: bool = False

    def save_every(self, checkpoint: float, machine: Machine) -> float:
        """Return the seconds from the end of one checkpoint to the start of the next.

        checkpoint: seconds that a checkpoint takes.
        """
        return max(machine.save_every, 19 * checkpoint) if self.own else machine.save_every


PLANS = (
    Plan("as written"),
    Plan("own images", own=True),
    Plan("own images, networks ahead", own=True, ahead=True),
)


JOB, MACHINE = Job(), Machine()


def most_classes(classes: int, ranks: int) -> int:
    """Return the classes of the rank that has the most."""
    return -(-classes // ranks)


def all_reduce_s(size: float, ranks: int, machine: Machine) -> float:
    """Return the seconds to sum `size` bytes over the ranks.

    Inside a node they are scattered and gathered, between nodes a ring is used.
    """
    inside = min(ranks, machine.node)
    nodes = -(-ranks // machine.node)
    within = 2 * (inside - 1) * (size / inside / machine.inside + machine.inside_s)
    between = (
        2 * (nodes - 1) / nodes * size / inside / machine.outside
        + 2 * math.ceil(math.log2(nodes)) * machine.outside_s
    )
    return within + between


def broadcast_s(size: float, ranks: int, machine: Machine) -> float:
    """Return the seconds to broadcast `size` bytes from one rank: half of an all-reduce."""
    return all_reduce_s(size, ranks, machine) / 2


def images_s(count: float, flop: float, batch: int, machine: Machine) -> float:
    """Return the seconds of `count` images in batches: of operations, or of launches if longer."""
    return max(
        count * flop / (machine.flops * machine.used),
        math.ceil(count / batch) * machine.least_batch_s,
    )


def class_s(job: Job, work: Work, machine: Machine) -> float:
    """Return the seconds to match one class.

    Its real batch and its formed images: forward, backward, and backward through both.
    """
    # three times as many kernels as in training
    formed = images_s(job.formed, work.formed_flop, math.ceil(job.formed / 3), machine)
    return images_s(job.real, work.real_flop, job.real, machine) + formed


def waited(seconds: np.ndarray, machine: Machine, steps: int, seed: int) -> float:
    """Return the mean seconds of the slowest rank, if each takes `seconds` without noise."""
    source = np.random.default_rng(seed)
    shape = (steps, len(seconds))
    factor = source.lognormal(0, machine.noise, shape) * np.where(
        source.random(shape) < machine.stall, 2.0, 1.0
    )
    return float((seconds * factor).max(axis=1).mean())


def simulate(
    job: Job,
    work: Work,
    machine: Machine,
    plan: Plan,
    ranks: int,
    *,
    steps: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the hours of each term of a whole run, and what the run needs.

    `waiting`: for the rank with the most classes beyond an even share, and for the slowest.
    """
    most = most_classes(job.classes, ranks)
    counts = np.full(ranks, job.classes // ranks) + (np.arange(ranks) < job.classes % ranks)
    held = most / job.classes if plan.own else 1.0
    network = images_s(job.network_images, work.trained_flop, job.batch, machine)
    matching = counts * class_s(job, work, machine)
    exchange = broadcast_s(work.weight_bytes, ranks, machine)
    exchange += 0 if plan.own else all_reduce_s(job.set_bytes, ranks, machine)
    reading = (most * job.real + job.network_images) * job.image_bytes / machine.read_rate
    # the image step reads and writes them about ten times
    moving = 10 * held * job.set_bytes / machine.memory_rate
    step = {
        "matching": job.classes / ranks * class_s(job, work, machine),
        "waiting": waited(matching + network, machine, steps, seed)
        - network
        - job.classes / ranks * class_s(job, work, machine),
        "network": network,
        "draws": (most if plan.own else job.classes) * work.draws_s,
        "exchange": exchange if ranks > 1 else 0.0,
        "images": moving + reading,
    }
    every = {name: seconds * job.outer_loops * job.inner_loops for name, seconds in step.items()}
    one = images_s(
        job.pretrain_epochs * job.classes * job.per_class, work.trained_flop, job.batch, machine
    )
    every["pretraining"] = one * (
        most_classes(job.outer_loops, ranks) if plan.ahead else job.outer_loops
    )
    busy = sum(every.values())
    checkpoint = checkpoint_s(job, work, machine, plan, ranks)
    between = plan.save_every(checkpoint, machine)
    every["checkpoints"] = busy * checkpoint / between
    system_s = machine.node_hours * 3600 / max(1.0, ranks / machine.node)
    lost = (machine.restart_s + (between + checkpoint) / 2) / system_s
    every["failures"] = (busy + every["checkpoints"]) * lost
    hours = {name: every[name] / 3600 for name in TERMS}
    return {
        "plan": plan.name,
        "gpus": ranks,
        "used": machine.used,
        "hours": sum(hours.values()),
        **hours,
        # images, velocity, gradient, and two on the way to the next
        "held_gb": 5 * held * job.set_bytes / 1e9,
        "checkpoint_s": checkpoint,
        "step_s": sum(step.values()),
        "dominant": max(hours, key=hours.get),
    }


def checkpoint_s(job: Job, work: Work, machine: Machine, plan: Plan, ranks: int) -> float:
    """Return the seconds in which a checkpoint is summed and written while the work waits.

    A checkpoint holds the images and their velocity.
    """
    writers = min(ranks, job.classes) if plan.own else 1
    size = 2 * job.set_bytes + 2 * work.weight_bytes
    return size / writers * work.sum_s + size / (machine.write_rate * min(writers, 10))
