import json
from dataclasses import replace

import pytest
import torch

from yoco import evaluate, formation, prune, scores
from yoco.sets.condensed_set import CondensedSet
from yoco.sets.ranked_set import RankedSet
from yoco.utils import tensor_files

SCORED = ("random", "entropy", "aum", "forgetting", "el2n", "yoco")


def small_set(size: int = 8, factor: int = 3, channels: int = 3, ipc: int = 2) -> CondensedSet:
    images = torch.rand(3 * ipc, channels, size, size, generator=torch.Generator().manual_seed(0))
    return CondensedSet(
        images,
        torch.arange(3).repeat_interleave(ipc),
        factor,
        ("a", "b", "c"),
        (0.5,) * channels,
        (0.2,) * channels,
        "x",
    )


def ranked_of(condensed: CondensedSet, order: torch.Tensor) -> RankedSet:
    """A ranked set in a given order [classes, n]."""
    cells = formation.cells(condensed.images, condensed.factor)[order].transpose(0, 1).contiguous()
    return RankedSet(
        cells,
        condensed.factor,
        condensed.size,
        condensed.classes,
        condensed.mean,
        condensed.std,
        condensed.method,
    )


def shuffled(condensed: CondensedSet) -> torch.Tensor:
    per_class = condensed.ipc * condensed.factor**2
    return torch.stack(
        [torch.randperm(per_class) + k * per_class for k in range(len(condensed.classes))]
    )


@pytest.fixture
def path(toy_set, toy_dynamics, tmp_path):
    return toy_set.rank(toy_dynamics).save(tmp_path / "ranked.safetensors")


@pytest.mark.parametrize("method", SCORED)
def test_every_prefix_is_the_balanced_selection(toy_set, toy_dynamics, method):
    options = {"seed": 3} if method == "random" else {}
    order = prune.ranking(toy_set, toy_dynamics, method, **options)
    formed, labels = toy_set.form()
    held = toy_set.rank(toy_dynamics, method, **options)
    for ipc in range(1, toy_set.ipc + 1):
        selection = prune.prune(
            toy_set, toy_dynamics, method, ipc, balanced=True, **options
        ).indices
        assert set(order[:, : ipc * 4].flatten().tolist()) == set(selection.tolist())
        assert torch.equal(held.take(ipc=ipc)[0], formed[selection]) and torch.equal(
            held.take(ipc=ipc)[1], labels[selection]
        )


def test_prefixes_between_the_budgets_are_select_s(toy_set, toy_dynamics):
    score = scores.EL2N.hardness(toy_set, toy_dynamics)
    formed, labels = toy_set.form()
    for keep in ("easy", "hard"):
        held = toy_set.rank(toy_dynamics, "el2n", keep=keep)
        for k in range(1, 21):
            selection = prune.select(score, labels, k, keep=keep, balanced=True)
            assert torch.equal(held.take(per_class=k)[0], formed[selection])
        assert (
            held.info["keep"] == keep
            and held.info["ranked_by"] == "el2n"
            and held.info["set"] == toy_set.fingerprint
        )
        assert held.info["dynamics"]["precision"] == "float32" and "precision" in held.info


@pytest.mark.parametrize("method", ["ssp", "ccs"])
def test_methods_that_choose_anew_are_refused(toy_set, toy_dynamics, method):
    with pytest.raises(
        ValueError,
        match=f"method='{method}' makes a new selection for every budget.*allowed: random, entropy",
    ):
        toy_set.rank(toy_dynamics, method)
    with pytest.raises(ValueError, match="method='yoko' is unknown.*did you mean 'yoco'"):
        toy_set.rank(toy_dynamics, "yoko")


@pytest.mark.parametrize(
    "size, factor, channels", [(8, 3, 3), (7, 2, 1), (8, 1, 3), (5, 5, 1), (16, 2, 3)]
)
def test_a_float32_file_gives_the_formed_images_to_the_bit(tmp_path, size, factor, channels):
    condensed = small_set(size, factor, channels)
    order = shuffled(condensed)
    opened = RankedSet.open(
        ranked_of(condensed, order).save(tmp_path / "r.safetensors", dtype=torch.float32)
    )
    formed, labels = condensed.form()
    for k in (1, opened.ranks):
        images, taken = opened.take(per_class=k)
        assert torch.equal(images, formed[order[:, :k].flatten()]) and torch.equal(
            taken, labels[order[:, :k].flatten()]
        )
    for name in ("factor", "size", "classes", "mean", "std", "method", "info"):
        assert getattr(opened, name) == getattr(ranked_of(condensed, order), name)


def test_repr_is_one_line():
    named = replace(small_set(), info={"dataset": "digits"})
    told = "3 classes, {}, factor 3, 3x8x8, method='x', source={})"
    assert repr(named) == f"CondensedSet({told.format('IPC 2', repr('digits'))}"
    ranked = ranked_of(named, shuffled(named))
    assert repr(ranked) == f"RankedSet({told.format('18 cells per class', None)}"


@pytest.mark.parametrize("size, factor", [(8, 3), (8, 2)])
def test_uint8_is_off_by_half_a_step_at_most(tmp_path, size, factor):
    condensed = small_set(size, factor)
    held = ranked_of(condensed, shuffled(condensed))
    opened = RankedSet.open(held.save(tmp_path / "r.safetensors"))
    images, exact = opened.take(ipc=2)[0], held.take(ipc=2)[0]
    worst = (images - exact).abs().max().item()
    assert (
        1e-4 < worst <= 1 / 510 + 1e-6
        and images.dtype == torch.float32
        and images.min() >= 0
        and images.max() <= 1
    )
    again = RankedSet.open(opened.save(tmp_path / "again.safetensors"))
    assert torch.equal(again.take(ipc=2)[0], images)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_prefix_needs_none_of_what_follows_it(toy_set, toy_dynamics, tmp_path, dtype):
    path = toy_set.rank(toy_dynamics).save(tmp_path / "r.safetensors", dtype)
    opened = RankedSet.open(path)
    rank = 3 * 3 * 8 * 8 * dtype.itemsize
    assert opened.rank_bytes == rank and opened.ranks == 20
    requests = (
        ({"per_class": 1}, 1),
        ({"per_class": 7}, 7),
        ({"ipc": 2}, 8),
        ({"bytes": 3 * rank - 1}, 2),
        ({"bytes": 10**12}, 20),
    )
    taken = [opened.take(**request) for request, _ in requests]
    for (_, ranks), (images, labels) in zip(requests, taken):
        assert len(images) == 3 * ranks and torch.bincount(labels).tolist() == [ranks] * 3
    whole = bytearray(path.read_bytes())
    whole[-12 * rank :] = bytes(12 * rank)
    path.write_bytes(whole)
    for (request, ranks), (images, _) in zip(requests, taken):
        if ranks <= 8:
            assert torch.equal(opened.take(**request)[0], images)
    with pytest.raises(
        ValueError, match="r.safetensors is corrupted: cells does not have the checksum"
    ):
        opened.take(per_class=20)


def test_what_take_cannot_give(path):
    opened = RankedSet.open(path)
    for request, match in (
        ({"per_class": 21}, "per_class must be between 1 and 20, got 21"),
        ({"ipc": 6}, ("ipc must be between 1 and 5, got 6")),
        ({"per_class": 0}, "between 1 and 20, got 0"),
        ({"bytes": 575}, ("bytes must be at least 576, got 575")),
        ({}, "exactly one of per_class, ipc and bytes, got none"),
        ({"ipc": 1, "bytes": 999}, ("exactly one.*got ipc, bytes")),
    ):
        with pytest.raises(ValueError, match=match):
            opened.take(**request)
    with pytest.raises(TypeError, match="ipc must be a whole number"):
        opened.take(ipc=1.5)


def test_what_is_taken_trains(toy, path):
    images, labels = RankedSet.open(path).take(ipc=1)
    accuracy = evaluate.evaluate(
        images, labels, toy, epochs=2, seed=0, width=8, precision="float32"
    )
    assert 0 <= accuracy <= 100


def test_missing_and_cut_files(path, tmp_path):
    with pytest.raises(FileNotFoundError, match="no file at"):
        RankedSet.open(tmp_path / "none")
    whole = path.read_bytes()
    for cut in (0, 4, 8, 100, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="ranked.safetensors is corrupted or truncated"):
            RankedSet.open(path)
    path.write_bytes(whole)
    opened = RankedSet.open(path)
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="ranked.safetensors is corrupted or truncated"):
        opened.take(per_class=1)


def with_header(path, change) -> None:
    """Rewrite a file's header by `change(header)`."""
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    # as in a file from before checksums, which has the other checks alone
    del header["__metadata__"]["checksum"]
    header["__metadata__"]["version"] = "1"
    changed = change(header)
    text = changed if isinstance(changed, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + length :])


def entry(**values):
    return lambda header: header["cells"].update(values)


def told(**values):
    def change(header):
        info = json.loads(header["__metadata__"]["info"])
        header["__metadata__"]["info"] = json.dumps({**info, **values})

    return change


@pytest.mark.parametrize(
    "change, match",
    [
        (lambda h: b"{" * 20, "corrupted or truncated"),
        (lambda h: b"[" * 200_000, "corrupted or truncated"),
        (lambda h: b"\xff\xfe", "corrupted or truncated"),
        (lambda h: b"[1]", "corrupted or truncated"),
        (lambda h: b"{}", "corrupted or truncated"),
        (
            lambda h: h["__metadata__"].update(yoco="condensed"),
            ("not a yoco ranked file .its kind: 'condensed'"),
        ),
        (
            lambda h: h["__metadata__"].update(version="3"),
            "format version 3, but this yoco reads 2",
        ),
        (lambda h: h.pop("cells") and None, "corrupted or truncated"),
        (entry(dtype="I8"), "stored as U8 or F32, got I8"),
        (lambda h: h.update(other=h.pop("cells")), "stored as U8 or F32, got None"),
        (entry(data_offsets=[0, 11521]), "corrupted or truncated"),
        (entry(data_offsets=[64, 11584]), "corrupted or truncated"),
        (entry(data_offsets=[-1, 11519]), "corrupted or truncated"),
        (entry(data_offsets=[0]), "corrupted or truncated"),
        (entry(shape=[20, 3, 3, 64]), "cells must have shape"),
        (entry(shape=[20, 3, 3, 4, 16]), "cells must have shape"),
        (entry(shape=[60, 1, 3, 8, 8]), r"cells must have shape \[ranks, 3, C, 8, 8\]"),
        (entry(shape=[0, 3, 3, 8, 8], data_offsets=[0, 0]), "corrupted or truncated"),
        (told(factor=3), r"cells must have shape \[ranks, 3, C, 6, 6\]"),
        (told(factor="2"), "factor must be a whole number"),
        (told(size=10**9), "size must be between 1 and 4096"),
        (told(mean=[0.5]), "mean must hold 3 values"),
        (told(classes=["a"]), "at least 2 classes"),
    ],
)
def test_damaged_headers(path, change, match):
    with_header(path, change)
    with pytest.raises(ValueError, match=f"ranked.safetensors.*{match}"):
        RankedSet.open(path)


@pytest.mark.parametrize(
    "bad, match", [(float("nan"), "cells holds 1 NaN"), (1.5, ("cells must lie in 0..1"))]
)
def test_bad_values_are_refused(tmp_path, bad, match):
    held = ranked_of(small_set(8, 2), shuffled(small_set(8, 2)))
    path = held.save(tmp_path / "r.safetensors", torch.float32)
    whole = bytearray(path.read_bytes())
    whole[-4:] = torch.tensor([bad]).numpy().tobytes()
    path.write_bytes(whole)
    opened = RankedSet.open(path)
    assert len(opened.take(ipc=1)[0]) == 12  # the ranks before it are whole
    with pytest.raises(
        ValueError, match="r.safetensors is corrupted: cells does not have the checksum"
    ):
        opened.take(ipc=2)
    with pytest.raises(ValueError, match=f"r.safetensors: {match}"):
        # from before checksums
        replace(opened, cells=replace(opened.cells, written=None)).take(ipc=2)
    held.cells[0, 0, 0, 0, 0] = bad
    with pytest.raises(ValueError, match=match):
        held.save(path)
    assert path.read_bytes() == whole


def test_a_ranked_set_that_does_not_fit_is_refused(toy_set, toy_dynamics, tmp_path):
    held = toy_set.rank(toy_dynamics)
    for change, error, match in (
        ({"cells": held.cells.double()}, TypeError, "uint8 or float32"),
        ({"classes": ("a", "b")}, ValueError, (r"\[ranks, 2, C, 8, " r"8\]")),
        ({"size": 0}, ValueError, "size must be between 1 and 4096"),
        ({"std": (1.0,)}, ValueError, ("std must hold 3 values")),
    ):
        with pytest.raises(error, match=match):
            replace(held, **change)
    with pytest.raises(
        ValueError, match="dtype must be torch.uint8 or torch.float32, got torch.float16"
    ):
        held.save(tmp_path / "r.safetensors", torch.float16)
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_nothing(toy_set, toy_dynamics, tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensor_files.safetensors.torch, "save_file", full_disk)
    with pytest.raises(OSError, match="cannot write .*r.safetensors.*No space left"):
        toy_set.rank(toy_dynamics).save(tmp_path / "r.safetensors")
    assert not list(tmp_path.iterdir())
