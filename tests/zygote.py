"""Long work in a process that is killed: `python -m tests.zygote` forks one for every line "KIND FOLDER SECONDS" that it
reads, and kills it after so many seconds (0: never).

It imports once, and computes nothing itself, so that its children start at once and have their threads to themselves.
Answers with the exit status; a child writes the digest of its result to FOLDER/digest.
"""

import hashlib
import os
import signal
import sys
import time
from pathlib import Path

import torch

from tests.conftest import make_data
from yoco import condense, dynamics, loop, study
from yoco.condense import experts

MATCHING = {"outer_loops": 5, "inner_loops": 4, "width": 4}
METHODS = {
    "idc": {**MATCHING, "network_images": 64},
    "dream": {**MATCHING, "network_images": 64, "renew_every": 2},
    "dsa": {**MATCHING, "network_epochs": 1},
    "mtt": {"iterations": 12, "width": 4, "student_steps": 4, "experts": 2, "buffer_epochs": 3, "max_start_epoch": 1, "buffer_images": 24},
    "kip": {"iterations": 60, "kernel": "fc", "real_batch": 12},
    "ncfm": {"iterations": 12, "width": 4, "real_batch": 12, "frequencies": 16, "pool_networks": 2, "pool_epochs": 3, "pool_images": 24},
}
EXACT = {"precision": "float32", "progress": False}


def condensed_by(method, folder):
    checkpoint = folder / "checkpoint.safetensors"
    made = condense.condense(make_data(), method, ipc=2, preset="smoke", checkpoint=checkpoint, **METHODS[method], **EXACT)
    return [made.images]


def buffer(folder):
    settings = experts.ExpertSettings(epochs=6, width=4, batch_size=16)
    made = experts.train_experts(make_data(), folder, settings, count=3, **EXACT)
    return [row for number in range(3) for epoch in range(6) for row in made.pair(number, epoch, 1)]


def recording(folder):
    packed = condense.real_set(make_data(), 4, 2, seed=0)
    made = dynamics.record(packed, epochs=25, seed=0, width=4, model="convnet", checkpoint=folder / "d.safetensors", **EXACT)
    return [made.logits, made.correct, made.aum, made.final_logits, made.features]


def batch_norm(folder):
    packed = condense.real_set(make_data(), 1, 2, seed=0)
    made = dynamics.record(packed, epochs=6, seed=0, model="resnet10", record_on="clean", checkpoint=folder / "d.safetensors", **EXACT)
    return [made.logits, made.correct, made.aum, made.final_logits, made.features]


def grid(folder):
    data, packed = make_data(), condense.real_set(make_data(), 4, 2, seed=0)
    recorded = [dynamics.record(packed, epochs=3, seed=0, width=4, **EXACT)]
    options = {"ipc_to": [1, 2], "seeds": [0, 1], "epochs": 4, "width": 4, "jobs": 1}
    table = study.run(packed, data, recorded, methods=["random", "el2n", "yoco"], results=folder / "results.csv", **options, **EXACT)
    return [torch.tensor(table["accuracy"].to_numpy())]


WORK = {**{method: lambda folder, method=method: condensed_by(method, folder) for method in METHODS}}
WORK |= {"experts": buffer, "dynamics": recording, "batch_norm": batch_norm, "study": grid}


def child(kind: str, folder: Path) -> None:
    """Do the work and write its digest; never returns."""
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    loop.SAVE_EVERY = 0.0
    torch.set_num_threads(1)
    try:
        digest = hashlib.sha256()
        for tensor in WORK[kind](folder):
            digest.update(tensor.numpy().tobytes())
        (folder / "digest").write_text(digest.hexdigest())
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)


if __name__ == "__main__":
    for line in sys.stdin:
        kind, folder, seconds = line.split()
        pid = os.fork()
        if not pid:
            child(kind, Path(folder))
        if float(seconds):  # whoever waits for a process may kill it: until then its number is its own
            time.sleep(float(seconds))
            os.kill(pid, signal.SIGKILL)
        print(os.waitpid(pid, 0)[1], flush=True)
