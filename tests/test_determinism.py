"""One seed, one result.

Every public entry is called twice, in another order, after other work; the global random state is
left alone.
"""

import hashlib
import random

import numpy as np
import pandas as pd
import pytest
import torch

from tests.condense.test_methods import SHORT, TINY
from yoco import condense, data, dynamics, evaluate, models, prune, scores, zoo
from yoco.condense import mtt_experts
from yoco.experiments import study

EXACT = {"precision": "float32", "progress": False}
TRAINING = {"epochs": 2, "width": 4, **EXACT}


def entries(toy, toy_set, toy_dynamics, folder):
    """Name -> a call of a public entry, with a seed if it takes one."""
    d, formed = toy_dynamics, toy_set.form()
    logits = d.early_logits()
    found = {
        f"condense {name}": lambda name=name: (
            condense.condense(toy, name, ipc=2, **SHORT, **TINY[name]).images
        )
        for name in TINY
    }
    start = lambda name: (
        condense.start_set(toy, name, 2, preset="smoke", precision="float32").images
    )
    found |= {f"start {name}": lambda name=name: start(name) for name in ("idc", "dream", "mtt")}
    found |= {
        f"prune {name}": lambda name=name: prune.prune(toy_set, d, name, 2, seed=3).indices
        for name in prune.METHODS
    }
    weights = lambda name: torch.cat(
        [p.flatten() for p in models.build_seeded(1, name, 3, 3, 16).parameters()]
    )
    found |= {f"build {name}": lambda name=name: weights(name) for name in models.MODELS}
    settings = mtt_experts.ExpertSettings(epochs=2, width=4, batch_size=16)
    return found | {
        "load": lambda: data.load("digits").train_images,
        "zoo": lambda: zoo.load("digits-idc-ipc10").images,
        "real_set": lambda: condense.real_set(toy, 3, 2, seed=0).images,
        "experts": lambda: mtt_experts.train_experts(toy, None, settings, count=1, **EXACT).pair(
            0, 1, 1
        )[1],
        "record": lambda: dynamics.record(toy_set, seed=0, **TRAINING).logits,
        "record clean": lambda: (
            dynamics.record(toy_set, seed=0, record_on="clean", **TRAINING).features
        ),
        "record_many": lambda: torch.cat(
            [
                made.logits
                for _, made in dynamics.record_many(toy_set, seeds=[0, 1], jobs=1, **TRAINING)
            ]
        ),
        "lbpe": lambda: scores.lbpe(logits, d.labels),
        "el2n": lambda: scores.el2n(logits, d.labels),
        "ssp": lambda: scores.ssp(d.features, 7, seed=1),
        "stratified": lambda: prune.stratified(
            scores.el2n(logits, d.labels), 9, hard_cutoff=0.3, seed=1
        ),
        "ranking": lambda: prune.ranking(toy_set, d, "random", seed=2),
        "score_table": lambda: prune.score_table(toy_set, d),
        "evaluate": lambda: evaluate.evaluate(
            *formed, toy, seed=0, **{k: v for k, v in TRAINING.items() if k != "progress"}
        ),
        "checked": lambda: evaluate.checked(
            *formed, toy, epochs=3, seed=0, every=2, protocol="ncfm", width=8, precision="float32"
        ),
        "evaluate_many": lambda: evaluate.evaluate_many(
            {"all": formed}, toy, seeds=[0, 1], jobs=1, **TRAINING
        ),
        "study": lambda: study.run(
            toy_set, toy, [d], methods=["random", "yoco"], ipc_to=[1], jobs=1, **TRAINING
        ),
        "by_bytes": lambda: study.by_bytes(
            toy_set, toy, d, folder, methods=["yoco", "ccs"], ipc_to=[1], jobs=1, **TRAINING
        ),
    }


def digest(result):
    """Return a digest of the bits of a tensor, a table or a number."""
    if isinstance(result, torch.Tensor):
        held = result.detach().contiguous().numpy().tobytes()
    else:
        held = (
            result.to_csv().encode() if isinstance(result, pd.DataFrame) else repr(result).encode()
        )
    return hashlib.sha256(held).hexdigest()


def states():
    """Return the global random state of every library."""
    kind, keys, *rest = np.random.get_state()
    return (
        torch.get_rng_state().tolist(),
        (kind, keys.tolist(), *rest),
        random.getstate(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
    )


def disturb(seed):
    """Do what other work in a kernel may do."""
    torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
    torch.rand(seed + 1), np.random.rand(seed + 1)


def test_every_entry_repeats_and_leaves_the_global_state(toy, toy_set, toy_dynamics, tmp_path):
    calls = entries(toy, toy_set, toy_dynamics, tmp_path)
    first, names = {}, list(calls)
    disturb(1)
    for name in names:
        before = states()
        first[name] = digest(calls[name]())
        assert states() == before, f"{name} changed the global state"
    random.Random(0).shuffle(names)
    disturb(2)
    differ = [name for name in names if digest(calls[name]()) != first[name]]
    assert not differ


def test_another_seed_gives_another_result(toy, toy_set):
    """The digests above can differ."""
    assert digest(dynamics.record(toy_set, seed=0, **TRAINING).logits) != digest(
        dynamics.record(toy_set, seed=1, **TRAINING).logits
    )
    images = [condense.real_set(toy, 3, 2, seed=seed).images for seed in (0, 1)]
    assert digest(images[0]) != digest(images[1])


@pytest.mark.parametrize("what", ["record_many", "evaluate_many"])
def test_side_by_side_gives_the_bits_of_one_thread(toy, toy_set, what):
    def result(jobs):
        if what == "record_many":
            made = dict(dynamics.record_many(toy_set, seeds=[0, 1], jobs=jobs, **TRAINING))
            return torch.cat([made[seed].logits for seed in (0, 1)])
        return evaluate.evaluate_many(
            {"all": toy_set.form()}, toy, seeds=[0, 1], jobs=jobs, **TRAINING
        )

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = digest(result(1))
    finally:
        torch.set_num_threads(threads)
    assert digest(result(2)) == alone
    disturb(3)
    assert digest(result(2)) == alone
