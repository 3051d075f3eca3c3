"""`YOCO_PRECISION`, which overrides "auto"."""

import types

import pytest
import torch

from yoco import dynamics, evaluate
from yoco.utils import device

CPU = torch.device("cpu")


@pytest.fixture
def other(monkeypatch):
    """The precision that this machine would not choose, set in the environment."""
    monkeypatch.delenv("YOCO_PRECISION", raising=False)
    other = {"float32": "bfloat16", "bfloat16": "float32"}[device.choose_precision("auto", CPU)]
    monkeypatch.setenv("YOCO_PRECISION", other)
    return other


def test_the_environment_overrides_auto_alone(other, monkeypatch):
    assert device.choose_precision("auto", CPU) == other
    assert [device.choose_precision(named, CPU) for named in ("float32", "bfloat16")] == [
        "float32",
        "bfloat16",
    ]
    monkeypatch.setenv("YOCO_PRECISION", "auto")
    assert device.choose_precision("auto", CPU) != other


def test_a_bad_variable_is_named(monkeypatch):
    monkeypatch.setenv("YOCO_PRECISION", "bfloat")
    with pytest.raises(
        ValueError,
        match=r"YOCO_PRECISION='bfloat' is unknown \(did you mean 'bfloat16'\?\); allowed: auto, "
        r"float32, bfloat16",
    ):
        device.choose_precision("auto", CPU)
    assert device.choose_precision("float32", CPU) == "float32"


def test_workers_follow_it(toy, toy_set, other):
    options = {"seeds": (0, 1), "width": 4, "device": "cpu", "jobs": 2, "progress": False}
    recorded = dict(dynamics.record_many(toy_set, epochs=2, **options))
    assert {found.info["precision"] for found in recorded.values()} == {other}
    table = evaluate.evaluate_many(
        {"one": (toy.train_images[:6], toy.train_labels[:6])}, toy, epochs=1, **options
    )
    assert set(table["precision"]) == {other}


@pytest.mark.parametrize(
    ("processor", "chosen"),
    [
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True, "amx_bf16": False}, "bfloat16"),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, "bfloat16"),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, "float32"),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": False, "amx_bf16": False}, "float32"),
        ({"avx512_bf16": True}, "bfloat16"),  # no name
        ({"architecture": "arm64"}, "float32"),
    ],
)
def test_auto_is_the_faster_precision(processor, chosen, monkeypatch):
    monkeypatch.delenv("YOCO_PRECISION", raising=False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor)
    assert device.choose_precision("auto", CPU) == chosen


def test_each_gpu_is_asked_for_itself(monkeypatch):
    old_and_new = {"cuda:0": 7, "cuda:1": 9}
    monkeypatch.setattr(
        torch.cuda,
        "get_device_properties",
        lambda where: types.SimpleNamespace(major=old_and_new[str(where)]),
    )
    found = [device.choose_precision("auto", torch.device(name)) for name in old_and_new]
    assert found == ["float32", "bfloat16"]
