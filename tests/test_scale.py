"""The simulation behind docs/imagenet1k.md: its limits, and that the page and its files agree."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import costs, imagenet1k, scale, scale_check
from benchmarks.scale import GPUS, PLANS, TERMS, Job, Machine, Work

ROOT = Path(__file__).parent.parent
JOB = Job()
WORK = Work(
    real_flop=1e10,
    formed_flop=3e10,
    trained_flop=1e10,
    weight_bytes=2e7,
    draws_s=5e-5,
    sum_s=1e-9,
    decode_s=0.005,
)
QUIET = Machine(noise=0.0, stall=0.0)
WRITTEN, OWN, AHEAD = PLANS


def run(plan=WRITTEN, ranks=8, machine=QUIET, **job):
    return scale.simulate(replace(JOB, **job), WORK, machine, plan, ranks, steps=50)


def test_one_gpu_without_noise_takes_the_sum_of_its_parts():
    free = replace(QUIET, least_batch_s=0.0)
    found = run(ranks=1, machine=free)
    step = JOB.classes * scale.class_s(JOB, WORK, free) + 500 * 1e10 / (989e12 * 0.15)
    assert found["waiting"] == pytest.approx(0, abs=1e-9) and found["exchange"] == 0
    assert found["matching"] + found["network"] == pytest.approx(step * 50_000 / 3600)
    assert found["pretraining"] == pytest.approx(
        500 * 10 * 1000 * 1281 * 1e10 / (989e12 * 0.15) / 3600
    )
    assert found["hours"] == pytest.approx(sum(found[term] for term in TERMS))


def test_classes_divide_what_matching_takes_and_nothing_else():
    one, eight = run(ranks=1), run(ranks=8)
    assert eight["matching"] == pytest.approx(one["matching"] / 8)
    assert (
        eight["network"] == one["network"]
        and eight["pretraining"] == one["pretraining"]
        and eight["draws"] == one["draws"]
    )
    assert run(OWN)["draws"] == pytest.approx(one["draws"] / 8)


def test_more_gpus_than_classes_gain_nothing():
    step = lambda ranks: run(OWN, ranks, classes=8)["step_s"]
    assert step(8) < step(4) < step(1)
    assert step(64) >= step(8)  # as long, and weights go farther
    # two of 1.95
    assert run(ranks=512)["waiting"] == pytest.approx(
        run(ranks=512)["matching"] * (2 / (1000 / 512) - 1)
    )


def test_noise_makes_the_step_wait_and_more_so_with_more_gpus():
    assert scale.waited(np.ones(4), QUIET, 10, 0) == 1
    slow = [scale.waited(np.ones(ranks), Machine(), 200, 0) for ranks in (1, 8, 64, 512)]
    assert slow == sorted(slow) and slow[0] < 1.01 < slow[-1]
    assert scale.waited(np.ones(8), Machine(), 200, 0) == slow[1]


def test_exchange_grows_with_ranks_and_with_bytes():
    for of in (scale.all_reduce_s, scale.broadcast_s):
        seconds = [of(1e9, ranks, QUIET) for ranks in GPUS]
        assert seconds[0] == 0 and seconds == sorted(seconds) and len(set(seconds)) == 4
        assert of(2e9, 64, QUIET) > of(1e9, 64, QUIET) > of(0, 64, QUIET) > 0
    # half of it out, half in
    assert scale.all_reduce_s(1e9, 2, QUIET) == pytest.approx(1e9 / QUIET.inside, rel=0.01)
    # a gradient of all images, or the weights
    assert run(ranks=64)["exchange"] > 100 * run(OWN, 64)["exchange"]


def test_own_images_and_networks_ahead_share_the_memory():
    assert run(ranks=8)["held_gb"] == pytest.approx(5 * JOB.set_bytes / 1e9) and run(OWN)[
        "held_gb"
    ] == pytest.approx(run()["held_gb"] / 8)
    assert run(AHEAD)["pretraining"] == pytest.approx(run(OWN)["pretraining"] * 63 / 500)
    # a network has one GPU
    assert run(AHEAD, 512)["pretraining"] == pytest.approx(run(AHEAD, 500)["pretraining"])


def test_small_batches_take_their_launches():
    assert (
        scale.images_s(64, 1.0, 64, QUIET) == QUIET.least_batch_s
        and scale.images_s(65, 1.0, 64, QUIET) == 2 * QUIET.least_batch_s
    )
    assert scale.images_s(64, 1e15, 64, QUIET) == pytest.approx(64e15 / (989e12 * 0.15))


def test_checkpoints_and_failures_cost_more_at_scale():
    assert run(OWN, 64)["checkpoint_s"] < run(ranks=64)["checkpoint_s"]
    assert (
        run(OWN, 512)["failures"] / run(OWN, 512)["hours"]
        > 30 * run(OWN, 8)["failures"] / run(OWN, 8)["hours"]
    )
    assert run(OWN, machine=replace(QUIET, node_hours=1e12))["failures"] == pytest.approx(
        0, abs=1e-4
    )


def test_rates_are_found_again_from_what_they_make():
    true = costs.Rates(real=0.002, formed=0.007, trained=0.003, a_class=0.01)
    rows = [
        {
            "model": "convnet",
            "side": 32,
            "classes": k,
            "real": real,
            "formed": formed,
            "images": 100,
            "network_s": 0.3,
            "match_s": true.match(k, real, formed),
        }
        for k, real, formed in ((10, 64, 4), (10, 64, 40), (10, 16, 40), (2, 8, 128))
    ]
    assert costs.rates(pd.DataFrame(rows), "convnet", 32) == pytest.approx(true)


def test_counted_operations_grow_with_double_gradients():
    found = costs.flops("convnet", 32, 10)
    forward = 2 * 9 * 128 * (3 * 32**2 + 128 * 16**2 + 128 * 8**2) + 2 * 2048 * 10
    first = 2 * 9 * 128 * 3 * 32**2  # no gradient of the images
    assert (
        found["trained_flop"]
        == found["real_flop"] + 2 * 2048 * 10
        == pytest.approx(3 * forward - first)
    )
    assert found["formed_flop"] > 2 * found["real_flop"]


def test_classes_cut_by_index_are_as_large(toy):
    cut = scale_check.cut(toy, 4)
    assert (
        cut.counts() == [6] * 12
        and len(cut.classes) == 12
        and torch.equal(cut.train_labels // 4, toy.train_labels)
    )


def test_the_page_shows_assumptions_and_the_simulation():
    page, bench = (ROOT / "docs/imagenet1k.md").read_text(), ROOT / "figures/bench"
    found, work = pd.read_csv(bench / "imagenet1k.csv"), imagenet1k.known_work(bench)
    for row in imagenet1k.assumptions().splitlines()[2:]:
        assert row in page  # with its source after it
    again = imagenet1k.simulated(JOB, work)
    assert np.allclose(found.hours, again.hours, rtol=1e-3) and list(found.dominant) == list(
        again.dominant
    )
