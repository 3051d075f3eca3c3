"""Long work in a process that is killed.

`python -m tests.zygote` forks a process for every line "KIND FOLDER SECONDS" that it reads, and
kills it after that many CPU seconds (0: never), which a busy machine does not stretch.

It imports once, also what yoco imports late, and computes nothing itself, so that its children
start at once, spend their time on the work, and have their threads to themselves. It answers with
the exit status and the CPU time taken; a child writes the digest of its result to FOLDER/digest.
"""

import contextlib
import hashlib
import os
import signal
import sys
import time
from pathlib import Path

import pandas  # noqa: F401
import psutil
import torch
import torch._dynamo
import torchvision.models  # noqa: F401

from tests.conftest import make_data
from yoco import condense, dynamics, evaluate
from yoco.condense import mtt_experts
from yoco.experiments import study
from yoco.training import resumable
from yoco.utils import locks, tensor_files

MATCHING = {"outer_loops": 3, "inner_loops": 4, "width": 4}
METHODS = {
    "idc": {**MATCHING, "network_images": 64},
    "dream": {**MATCHING, "network_images": 64, "renew_every": 2},
    "dsa": {**MATCHING, "network_epochs": 1},
    "mtt": {
        "iterations": 12,
        "width": 4,
        "student_steps": 4,
        "experts": 2,
        "buffer_epochs": 3,
        "max_start_epoch": 1,
        "buffer_images": 24,
    },
    "kip": {"iterations": 60, "kernel": "fc", "real_batch": 12},
    "ncfm": {
        "iterations": 12,
        "width": 4,
        "real_batch": 12,
        "frequencies": 16,
        "pool_networks": 2,
        "pool_epochs": 3,
        "pool_images": 24,
    },
}
EXACT = {"precision": "float32", "progress": False}


def condensed_by(method, folder):
    checkpoint = folder / "checkpoint.safetensors"
    made = condense.condense(
        make_data(),
        method,
        ipc=2,
        preset="smoke",
        checkpoint=checkpoint,
        **METHODS[method],
        **EXACT,
    )
    return [made.images]


def buffer(folder):
    settings = mtt_experts.ExpertSettings(epochs=6, width=4, batch_size=16)
    made = mtt_experts.train_experts(make_data(), folder, settings, count=3, **EXACT)
    return [row for number in range(3) for epoch in range(6) for row in made.pair(number, epoch, 1)]


def recording(folder):
    packed = condense.real_set(make_data(), 4, 2, seed=0)
    made = dynamics.record(
        packed,
        epochs=25,
        seed=0,
        width=4,
        model="convnet",
        checkpoint=folder / "d.safetensors",
        **EXACT,
    )
    return [made.logits, made.correct, made.aum, made.final_logits, made.features]


def batch_norm(folder):
    packed = condense.real_set(make_data(), 1, 2, seed=0)
    made = dynamics.record(
        packed,
        epochs=6,
        seed=0,
        model="resnet10",
        record_on="clean",
        checkpoint=folder / "d.safetensors",
        **EXACT,
    )
    return [made.logits, made.correct, made.aum, made.final_logits, made.features]


def grid(folder):
    data, packed = make_data(), condense.real_set(make_data(), 4, 2, seed=0)
    recorded = [dynamics.record(packed, epochs=3, seed=0, width=4, **EXACT)]
    options = {"ipc_to": [1, 2], "seeds": [0, 1], "epochs": 4, "width": 4, "jobs": 1}
    table = study.run(
        packed,
        data,
        recorded,
        methods=["random", "el2n", "yoco"],
        results=folder / "results.csv",
        **options,
        **EXACT,
    )
    return [torch.tensor(table["accuracy"].to_numpy())]


def checked(folder):
    images, labels = condense.real_set(make_data(), 4, 2, seed=0).form()
    found = evaluate.checked(
        images,
        labels,
        make_data(),
        epochs=40,
        every=10,
        seed=0,
        protocol="ncfm",
        width=4,
        precision="float32",
        checkpoint=folder / "checkpoint.safetensors",
    )
    return [torch.tensor(list(found.accuracies.values()))]


def writing(folder, moment):
    """Write a file, and die by SIGKILL at some moment of it."""
    die, flush, path = (
        lambda *_: os.kill(os.getpid(), signal.SIGKILL),
        tensor_files._flush,
        folder / "x.safetensors",
    )
    if moment == "holder":
        tensor_files.write_text = lambda place, text: (
            place.with_name(f".{place.name}.killed00.part").write_text(text),
            die(),
        )
    with locks.hold(path):
        if moment == "writing":
            tensor_files._flush = die
        elif moment == "renaming":
            Path.replace = die
        elif moment == "renamed":
            tensor_files._flush = lambda place: die() if place.is_dir() else flush(place)
        tensor_files.save_tensors(path, "test", {"x": torch.ones(1000)}, {"round": 2})


WORK = {
    **{method: lambda folder, method=method: condensed_by(method, folder) for method in METHODS}
}
WORK |= {"experts": buffer, "dynamics": recording, "batch_norm": batch_norm, "study": grid}
WORK["checked"] = checked
WRITING = {
    moment: lambda folder, moment=moment: writing(folder, moment)
    for moment in ("holder", "writing", "renaming", "renamed")
}


def child(kind: str, folder: Path) -> None:
    """Do the work and write its digest; never returns."""
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    resumable.SAVE_EVERY = 0.0
    torch.set_num_threads(1)
    try:
        digest = hashlib.sha256()
        for tensor in {**WORK, **WRITING}[kind](folder):
            digest.update(tensor.numpy().tobytes())
        (folder / "digest").write_text(digest.hexdigest())
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)


def kill_after(pid: int, seconds: float) -> None:
    """Kill a child after so many CPU seconds, unless it ends first.

    The child has not been waited for.
    """
    process = psutil.Process(pid)
    with contextlib.suppress(psutil.NoSuchProcess):
        while process.status() != psutil.STATUS_ZOMBIE:
            used = process.cpu_times()
            if (left := seconds - used.user - used.system) <= 0:
                return process.kill()
            time.sleep(max(left, 0.005))


if __name__ == "__main__":
    for line in sys.stdin:
        kind, folder, seconds = line.split()
        pid = os.fork()
        if not pid:
            child(kind, Path(folder))
        if float(seconds):
            kill_after(pid, float(seconds))
        _, status, used = os.wait4(pid, 0)
        print(status, used.ru_utime + used.ru_stime, flush=True)
    os._exit(0)  # at once: tearing all modules down takes seconds
