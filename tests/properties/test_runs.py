"""Arguments of long work (loading, condensing, dynamics, evaluation).

Invalid ones are named before any training begins.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import make_data
from tests.properties.nasty import (
    INF,
    NAN,
    WRONG_COUNTS,
    WRONG_FLAGS,
    WRONG_SEEDS,
    documented,
    images,
)
from yoco import CondensedSet, RankedSet, condense, data, dynamics, evaluate, explore, models
from yoco.dynamics import Dynamics
from yoco.experiments import study
from yoco.training import network as train
from yoco.training import resumable

WRONG_NAMES = ("nothing", "", 1, None, ["idc"], {})
WRONG_DEVICES = ("meta", "cudaa", 0, None)
WRONG_NUMBERS = (NAN, INF, -INF, -1, "1", True, None, 10**400, [1.0])
WRONG_FILES = (1, True, [], 2.0, "", ".")  # the last two are folders
COUNTS = [wrong for wrong in WRONG_COUNTS if wrong is not None]
WRONG_CONDENSE = {
    "method": WRONG_NAMES,
    "ipc": (*WRONG_COUNTS, 25, 10**30),
    "factor": (*COUNTS, 17, 9, 10**30),
    "preset": WRONG_NAMES,
    "seed": WRONG_SEEDS,
    "time_budget": [wrong for wrong in WRONG_NUMBERS if wrong is not None],
    "device": WRONG_DEVICES,
    "precision": WRONG_NAMES,
    "checkpoint": WRONG_FILES,
    "watch": (3, "live", explore.Live),
    "compiled": [wrong for wrong in WRONG_FLAGS if wrong is not None],
    "progress": (*WRONG_FLAGS, None),
    "unknown": (1,),
}
MATCHING = {
    "outer_loops": WRONG_COUNTS,
    "real_batch": WRONG_COUNTS,
    "synthetic_batch": WRONG_COUNTS,
    "width": COUNTS,
    "image_lr": WRONG_NUMBERS,
    "network_momentum": (*WRONG_NUMBERS, 1.5),
    "model": (*WRONG_NAMES, "resnet10"),
    "distance": WRONG_NAMES,
}
WRONG_SETTINGS = {
    "idc": {
        **MATCHING,
        "network_images": (-1, True, 1.5, None),
        "pretrain_epochs": (-1, True, 1.5, None),
    },
    "dream": {**MATCHING, "renew_every": WRONG_COUNTS, "pool": COUNTS},
    "dsa": {**MATCHING, "network_epochs": (-1, True, 1.5, None)},
    "mtt": {
        "iterations": WRONG_COUNTS,
        "max_start_epoch": WRONG_COUNTS,
        "experts": WRONG_COUNTS,
        "buffer_seed": WRONG_SEEDS,
        "student_lr": WRONG_NUMBERS,
        "buffer_epochs": (*WRONG_COUNTS, 1),
    },
    "ncfm": {
        **dict.fromkeys(("iterations", "real_batch", "frequencies", "pool_networks"), WRONG_COUNTS),
        "sampler": (-1, True, 1.5, None),
        "calibration": WRONG_NUMBERS,
        "pool_seed": WRONG_SEEDS,
        "pool_images": COUNTS,
        "model": (*WRONG_NAMES, "resnet10"),
    },
    "kip": {
        "iterations": WRONG_COUNTS,
        "depth": WRONG_COUNTS,
        "ridge": WRONG_NUMBERS,
        "kernel": WRONG_NAMES,
        "learn_labels": WRONG_FLAGS,
    },
}
QUICK = {"device": "cpu", "precision": "float32", "compiled": False, "progress": False}


@pytest.fixture(autouse=True)
def no_work(request, monkeypatch):
    """Make any step of a method or training fail a test about invalid arguments."""
    if "wrong" in request.node.name:
        monkeypatch.setattr(resumable, "run", lambda *_, **__: pytest.fail("condensing began"))
        monkeypatch.setattr(train, "epoch", lambda *_, **__: pytest.fail("training began"))


def refused(call, name):
    with pytest.raises((ValueError, TypeError), match=f"(?i){name}"):
        call()


@pytest.mark.parametrize("name", WRONG_CONDENSE)
def test_wrong_arguments_of_condense(toy, name):
    for method in condense.METHODS:
        for wrong in WRONG_CONDENSE[name]:
            arguments = {
                "method": method,
                "ipc": 1,
                "factor": 1,
                "preset": "smoke",
                **QUICK,
                name: wrong,
            }
            refused(lambda: condense.condense(toy, **arguments), name)  # noqa: B023


@pytest.mark.parametrize("method", condense.METHODS)
def test_wrong_settings_of_condense(toy, method):
    for name, values in WRONG_SETTINGS[method].items():
        for wrong in values:
            refused(
                lambda: condense.condense(
                    toy,
                    method,
                    1,
                    1,
                    preset="smoke",
                    **QUICK,
                    **{name: wrong},  # noqa: B023
                ),
                name,
            )
    for strange in (None, "toy", toy.train_images):
        refused(lambda: condense.condense(strange, method), "data must be")  # noqa: B023
    if method != "kip":
        refused(
            lambda: condense.condense(
                make_data(size=12), method, 1, 1, preset="smoke", **QUICK, model="resnet10ap"
            ),
            ("size must be at least 16|width"),
        )


@pytest.mark.parametrize("method", condense.METHODS)
def test_numpy_s_numbers_are_numbers_and_end_up_in_the_file(toy, method, tmp_path):
    few = (
        {"iterations": np.int64(1)}
        if method in ("mtt", "kip", "ncfm")
        else {"outer_loops": np.int64(1), "inner_loops": np.int8(1), "image_lr": np.float32(0.1)}
    )
    few |= (
        {
            "experts": np.int16(1),
            "buffer_epochs": np.int16(3),
            "max_start_epoch": np.uint8(1),
            "student_steps": np.int64(2),
            "width": np.int64(4),
        }
        if method == "mtt"
        else {}
    )
    few |= {"kernel": "fc"} if method == "kip" else {}
    few |= {"width": np.int64(4)} if method in ("idc", "dream", "dsa") else {}
    made = condense.condense(
        toy,
        method,
        np.int64(1),
        np.int64(2),
        preset="smoke",
        seed=np.uint32(2**32 - 1),
        time_budget=np.float32(1e6),
        checkpoint=tmp_path / "c",
        **QUICK,
        **few,
    )
    json.dumps(dict(made.info))
    assert (
        made.save(tmp_path / "set").is_file()
        and made.images.isfinite().all()
        and made.info["steps"] == 1
    )


@given(
    st.sampled_from(
        [
            *data.NAMES,
            "folder:/nowhere",
            "folder:",
            "folder:PATH",
            "digitz",
            "",
            "folder:~nobody-here/x",
            None,
            1,
            ["digits"],
            "folder:a\0b",
        ]
    ),
    st.data(),
)
@settings(max_examples=40)
def test_wrong_arguments_of_load(name, draw):
    wrong = {
        "size": draw.draw(
            st.sampled_from([w for w in WRONG_COUNTS if w is not None] + [7, 4097, 10**30])
        ),
        "limit_per_class": draw.draw(st.sampled_from([w for w in WRONG_COUNTS if w is not None])),
        "root": draw.draw(st.sampled_from([1, True, 0, [], 1.5])),
        "progress": draw.draw(st.sampled_from(WRONG_FLAGS)),
    }
    for argument, value in wrong.items():
        refused(lambda: data.load(name, **{argument: value}), f"{argument} must|name must")  # noqa: B023
    if name not in data.NAMES:
        with pytest.raises(
            (ValueError, TypeError, FileNotFoundError),
            match="name|dataset|no folder|has no folder|placeholder|home",
        ):
            data.load(name)
    elif name == "digits":
        loaded = data.load("digits", size=np.int64(8), limit_per_class=np.int64(1))
        assert loaded.size == 8 and loaded.counts() == [1] * 10


WRONG_TRAINING = {
    "epochs": WRONG_COUNTS,
    "seed": WRONG_SEEDS,
    "model": WRONG_NAMES,
    "device": WRONG_DEVICES,
    "batch_size": WRONG_COUNTS,
    "width": COUNTS,
    "cutmix": (*WRONG_NUMBERS, 1.5),
    "augmentation": WRONG_NAMES,
    "last_batch": WRONG_NAMES,
    "precision": WRONG_NAMES,
    "unknown": (1,),
}


@pytest.mark.parametrize("name", WRONG_TRAINING)
def test_wrong_arguments_of_training(toy, toy_set, name):
    formed, labels = toy_set.form()
    for wrong in WRONG_TRAINING[name]:
        arguments = {"epochs": 2, "seed": 0, "device": "cpu", name: wrong}
        refused(lambda: evaluate.evaluate(formed, labels, toy, **arguments), name)  # noqa: B023
        refused(lambda: dynamics.record(toy_set, progress=False, **arguments), name)  # noqa: B023
        several = {
            "epochs": 2,
            "seeds": [0, 1],
            "device": "cpu",
            "jobs": 1,
            "progress": False,
            **({"seeds": [0, wrong]} if name == "seed" else {name: wrong}),
        }
        refused(lambda: evaluate.evaluate_many({"a": (formed, labels)}, toy, **several), name)  # noqa: B023


def test_wrong_arguments_of_dynamics_and_of_many_evaluations(toy, toy_set):
    subset = toy_set.form()
    for name, values in {
        "until": [*COUNTS, 3],
        "record_on": WRONG_NAMES,
        "top_k": COUNTS,
        "early": WRONG_COUNTS,
    }.items():
        for wrong in values:
            refused(
                lambda: dynamics.record(toy_set, epochs=2, seed=0, progress=False, **{name: wrong}),  # noqa: B023
                name,
            )
    for seeds in ([], None, 3, "01", {0: 1}):
        refused(lambda: evaluate.evaluate_many({"a": subset}, toy, epochs=1, seeds=seeds), "seeds")  # noqa: B023
    for subsets in (
        {},
        None,
        [subset],
        {"a": subset[0]},
        {"a": (subset[0], subset[1], 1)},
        {"a": None},
    ):
        refused(lambda: evaluate.evaluate_many(subsets, toy, epochs=1, seeds=[0]), "subsets")  # noqa: B023
    for jobs in COUNTS:
        refused(
            lambda: evaluate.evaluate_many({"a": subset}, toy, epochs=1, seeds=[0], jobs=jobs),  # noqa: B023
            "jobs",
        )


def test_wrong_arguments_of_a_study(toy, toy_set, toy_dynamics, monkeypatch):
    right = {
        "dynamics": [toy_dynamics],
        "methods": ["random"],
        "ipc_to": [1],
        "seeds": [0],
        "epochs": 10**6,
        "data": toy,
    }
    lists = ([], None, 3, "01", {0: 1})
    for name, values in {
        "dynamics": (*lists, toy_dynamics, ["x"], [toy_set]),
        "methods": ([], 3, "yoco", [None], ["yoko"]),
        "ipc_to": (*lists, [0], [1, 9], [1, 1], [1.0], ["1"]),
        "seeds": (*lists, [0, -1], [0, "1"], [0, 0]),
        "results": WRONG_FILES,
        "data": (None, "digits", toy_set),
    }.items():
        for wrong in values:
            how = {**right, name: wrong}
            what = name.rstrip("s")
            refused(lambda: study.run(toy_set, **how), what)  # noqa: B023
    for seeds in (*lists, [0, -1], [0, "1"]):
        refused(lambda: next(dynamics.record_many(toy_set, epochs=10**6, seeds=seeds)), "seeds")  # noqa: B023
    refused(lambda: next(dynamics.record_many(None, epochs=1, seeds=[0])), "condensed")
    refused(lambda: study.selections(toy_set, None, [1]), "dynamics")
    monkeypatch.undo()
    several = study.run(toy_set, **{**right, "ipc_to": np.array([1, 2]), "epochs": 1, "width": 2})
    assert several["ipc_to"].tolist() == [1, 2]


def test_wrong_files(toy, toy_set, toy_dynamics, tmp_path, monkeypatch):
    how = {"epochs": 10**6, "seed": 0}
    for wrong in WRONG_FILES:
        refused(lambda: evaluate.evaluate(*toy_set.form(), toy, checkpoint=wrong, **how), "checkp")  # noqa: B023
        refused(lambda: dynamics.record(toy_set, checkpoint=wrong, **how), "checkpoint")  # noqa: B023
    for wrong in (None, 3, True, []):
        for call in (
            CondensedSet.load,
            Dynamics.load,
            RankedSet.open,
            toy_set.save,
            toy_dynamics.save,
            toy_set.rank(toy_dynamics).save,
        ):
            refused(lambda: call(wrong), "path")  # noqa: B023
    for dtype in (torch.int32, torch.bool, "float16", None):
        refused(lambda: toy_dynamics.save(tmp_path / "d", dtype), "dtype")  # noqa: B023
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    toy_set.save("~/set")
    evaluate.evaluate(*toy_set.form(), toy, epochs=1, seed=0, width=2, checkpoint="~/state")
    dynamics.record(toy_set, epochs=1, seed=0, width=2, checkpoint="~/run", progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "set", "state"]


@given(images(st.just(8)), st.data())
@settings(max_examples=40)
def test_evaluate_takes_images_of_every_type(batch, draw):
    count = len(batch) if isinstance(batch, torch.Tensor) else 1
    real = REAL[2 if isinstance(batch, torch.Tensor) and batch.shape[1:2] == (2,) else 1]
    labels = draw.draw(
        st.sampled_from(
            [
                torch.zeros(count).long(),
                torch.arange(count) % 3,
                torch.zeros(count),
                torch.arange(count) + 3,
                None,
            ]
        )
    )
    training = {
        "epochs": 1,
        "seed": 0,
        "batch_size": 2,
        "device": "cpu",
        "precision": "float32",
        "compiled": False,
    }
    accuracy = documented(
        lambda: evaluate.evaluate(batch, labels, real, **training, width=2), "images", "labels"
    )
    assert accuracy is None or 0 <= accuracy <= 100


REAL = {channels: make_data(2, 8, channels) for channels in (1, 2)}


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8]
)
def test_a_training_on_any_type_is_that_on_float32(toy, toy_set, dtype):
    formed, labels = toy_set.form()
    rounded = (formed * 255).round() / 255 if dtype == torch.uint8 else formed.to(dtype).float()
    given_images = (
        (formed * 255).round().byte() if dtype == torch.uint8 else formed.to(dtype).requires_grad_()
    )
    training = {
        "epochs": 2,
        "seed": 0,
        "width": 4,
        "device": "cpu",
        "precision": "float32",
        "compiled": False,
    }
    assert evaluate.evaluate(given_images, labels, toy, **training) == evaluate.evaluate(
        rounded, labels, toy, **training
    )


def test_wrong_real_images(toy):
    changes = {
        "train_images": (
            toy.train_images.float() / 255,
            toy.train_images[0],
            toy.train_images[:0],
            toy.train_images.to("meta"),
            None,
        ),
        "test_images": (toy.test_images[:0], toy.test_images[..., :8], None),
        "train_labels": (toy.train_labels.int(), toy.train_labels + 1, toy.train_labels[1:], [0]),
        "test_labels": (toy.test_labels - 1, None),
        "classes": (("a",), ("a", "a", "b"), "abc", None, (1, 2, 3)),
        "mean": ((0.5,), (NAN,) * 3, None, (2.0,) * 3, "abc"),
        "std": ((0.5,), (0.0,) * 3, (INF,) * 3, (-1.0,) * 3),
    }
    for name, values in changes.items():
        for wrong in values:
            refused(lambda: replace(toy, **{name: wrong}), name)  # noqa: B023


def test_wrong_networks_for_condensing():
    for name in ("resnet10", "densenet", *WRONG_NAMES):
        refused(lambda: models.check_matchable(name), "model")  # noqa: B023
