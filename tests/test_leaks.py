"""Memory and open files stay flat over 200 repeated calls in one process."""

import gc
import os

import psutil
import pytest

from yoco import CondensedSet, condense, dynamics, evaluate, prune
from yoco.training import resumable

ROUNDS, WARM = 200, 60
EXACT = {"precision": "float32", "progress": False}


def one_round(toy, folder, number):
    """Condense, save and load, record, score, prune, evaluate."""
    checkpoint = folder / f"{number}.safetensors"
    options = {
        "ipc": 2,
        "factor": 1,
        "preset": "smoke",
        "seed": number,
        "iterations": 2,
        "kernel": "fc",
        "real_batch": 12,
    }
    made = condense.condense(toy, "kip", checkpoint=checkpoint, **options, **EXACT)
    made = CondensedSet.load(made.save(folder / "set.safetensors"))
    recorded = dynamics.record(
        made, epochs=1, seed=number, width=4, checkpoint=folder / f"d{number}.safetensors", **EXACT
    )
    prune.score_table(made, recorded)
    kept = [prune.prune(made, recorded, method) for method in ("yoco", "ccs")][0]
    evaluate.evaluate(*kept.subset(made), toy, epochs=1, seed=number, width=4, precision="float32")


@pytest.mark.slow
def test_memory_and_open_files_stay_flat(toy, tmp_path, monkeypatch):
    process = psutil.Process(os.getpid())
    held = []
    monkeypatch.setattr(resumable, "SAVE_EVERY", 0.0)
    for number in range(ROUNDS):
        one_round(toy, tmp_path, number)
        if number >= WARM and number % 20 == 0:
            gc.collect()
            held.append((process.memory_info().rss, process.num_fds(), process.num_threads()))
    memory, files, threads = zip(*held)
    # other tests of this process may leave some that end meanwhile
    assert files[-1] <= files[0] and threads[-1] <= threads[0], (files, threads)
    # a leak of one set a round would be 40 MB and more
    assert memory[-1] - memory[0] < 2e7, [value / 1e6 for value in memory]
