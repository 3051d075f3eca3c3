"""Small files that ask for much memory, and crafted files with correct checksums.

Each is the documented ValueError.
"""

import json
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from yoco import CondensedSet, RankedSet, formation
from yoco.condense import mtt_experts
from yoco.data import arrays, decode
from yoco.dynamics import Dynamics
from yoco.sets import layouts
from yoco.utils import tensor_files

LABELS = torch.arange(3).repeat_interleave(2)
STATISTICS = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
# types of tensors that a valid header may name
TYPES = (torch.float8_e4m3fn, torch.complex64, torch.uint16, torch.bool, torch.int32, torch.float64)
WRONG = (None, [], {}, "x", 0, -1, 1.5, True, [[]], ["a", "b"], {"a": 1}, 10**30, float("nan"))


@pytest.fixture(autouse=True)
def little_memory(monkeypatch):
    """Limit the memory that a test's file may ask for to a megabyte."""
    monkeypatch.setattr(layouts, "MOST_BYTES", 2**20)


def pair(images=None, labels=LABELS):
    return [torch.rand(6, 3, 8, 8) if images is None else images, labels]


@pytest.mark.parametrize(
    "held",
    [
        pair(torch.zeros(1).expand(6, 3, 4096, 4096)),
        pair(torch.zeros(1, dtype=torch.uint8).expand(6, 3, 512, 512)),
        pair(labels=torch.zeros(1).expand(6, 2**28)),
        {"data": [pair(torch.zeros(3, 1, 1).expand(600_000, 3, 8, 8))]},
    ],
    ids=["images", "bytes", "labels", "dsa"],
)
def test_tensors_that_are_larger_than_what_they_hold(held, tmp_path):
    torch.save(held, tmp_path / "x.pt")
    assert (tmp_path / "x.pt").stat().st_size < 10_000
    with pytest.raises(
        ValueError, match=r"x.pt would take [\d,]+ bytes of memory, but has only [\d,]+"
    ):
        CondensedSet.from_published(tmp_path / "x.pt", **STATISTICS)


def test_archives_that_unpack_to_far_more(tmp_path, monkeypatch):
    many = {"images": np.zeros((600, 32, 32, 3), np.float32), "labels": np.zeros(600)}
    np.savez_compressed(tmp_path / "x.npz", **many)
    torch.save(pair(torch.zeros(600, 3, 32, 32)), tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as stored,
        zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for name in stored.namelist():
            small.writestr(name, stored.read(name))
    monkeypatch.setattr(np.lib.format, "read_array", lambda *_, **__: pytest.fail("unpacked"))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("unpacked"))
    for name in ("x.npz", "x.pt"):
        assert (tmp_path / name).stat().st_size < 100_000
        with pytest.raises(ValueError, match=f"{name} would take [78],"):
            CondensedSet.from_published(tmp_path / name, **STATISTICS)


def test_a_file_that_is_as_large_as_what_it_holds_is_read(tmp_path):
    torch.save(pair(torch.rand(6, 3, 128, 128)), tmp_path / "x.pt")
    assert CondensedSet.from_published(tmp_path / "x.pt", **STATISTICS).size == 128


def test_a_long_thin_image(tmp_path, monkeypatch):
    Image.new("L", (200_000, 1)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image.Image, "resize", lambda *_, **__: pytest.fail("resized"))
    with pytest.raises(
        ValueError, match="cannot read image .*x.png: it is 200000x1 and would be resized"
    ):
        decode.read_image(tmp_path / "x.png", 64)
    with pytest.raises(ValueError, match="it is 200000x1"):
        arrays.split("train", [Image.open(tmp_path / "x.png")], [0], 64)


def ranked(toy_set, toy_dynamics, tmp_path, **changes):
    path = toy_set.rank(toy_dynamics).save(tmp_path / "ranked.safetensors")
    tensors, values = tensor_files.load_tensors(path, "ranked")
    return tensor_files.save_tensors(path, "ranked", tensors, {**values, **changes})


@pytest.mark.parametrize(
    "size, factor, said", [(40_000, 5000, "between 1 and 4096"), (4096, 512, "at least factor²")]
)
def test_a_ranked_set_that_would_be_enlarged_without_bound(
    toy_set, toy_dynamics, tmp_path, size, factor, said
):
    path = ranked(toy_set, toy_dynamics, tmp_path, size=size, factor=factor)
    with pytest.raises(ValueError, match=f"ranked.safetensors is not a valid ranked set: .*{said}"):
        RankedSet.open(path)


@pytest.mark.parametrize("factor, enlarged", [(8, True), (16, False)])
def test_tiny_cells_are_not_enlarged_without_bound(factor, enlarged, monkeypatch):
    """One-pixel cells would take size² times the memory of their file."""
    monkeypatch.setattr(formation, "MOST_BYTES", 2**20)
    images, labels = torch.rand(3, 1, 64, 64), torch.arange(3)
    whole = CondensedSet(images, labels, factor, ("a", "b", "c"), (0.5,), (0.5,), "idc")
    cells = formation.cells(images, factor).unflatten(0, (3, -1)).transpose(0, 1)
    best = RankedSet(cells, factor, 64, whole.classes, whole.mean, whole.std, "yoco")
    if enlarged:
        assert whole.form()[0].shape == best.take(ipc=1)[0].shape == (3 * factor**2, 1, 64, 64)
        return
    monkeypatch.setattr(torch.nn.functional, "interpolate", lambda *_, **__: pytest.fail("too big"))
    said = "cells of side 4 would be enlarged to side 64, and 49,152 bytes to 12,582,912"
    for form in (whole.form, lambda: best.take(ipc=1)):
        with pytest.raises(ValueError, match=said):
            form()
    assert whole.formed_labels.tolist() == whole.formed_targets.tolist()


def nested():
    return torch.nested.nested_tensor([torch.rand(3, 8, 8), torch.rand(3, 8, 4)])


STRANGE = {
    "float8": lambda: pair(torch.rand(6, 3, 8, 8).to(torch.float8_e5m2)),
    "nested": lambda: pair(nested()),
    "nested labels": lambda: pair(labels=nested()),
    "quantised": lambda: pair(torch.quantize_per_tensor(pair()[0], 0.1, 0, torch.quint8)),
    "complex": lambda: pair(torch.rand(6, 3, 8, 8).to(torch.complex64)),
    "float8 labels": lambda: pair(labels=torch.rand(6, 3).to(torch.float8_e5m2)),
    "bool labels": lambda: pair(labels=torch.rand(6).bool()),
    "sparse": lambda: pair(torch.rand(6, 3, 8, 8).to_sparse()),
    "numbers": lambda: {"images": 1, "labels": [2]},
}


@pytest.mark.filterwarnings("ignore")  # torch's, of prototypes
@pytest.mark.parametrize("kind", STRANGE)
def test_strange_tensors_of_a_published_file(kind, tmp_path):
    torch.save(STRANGE[kind](), tmp_path / "x.pt")
    with pytest.raises(ValueError, match="x.pt"):
        CondensedSet.from_published(tmp_path / "x.pt", **STATISTICS)


def crafted(path, kind, tensors, info, sums=None):
    """A file whose checksums are correct, whatever it holds."""
    sums = {name: tensor_files._entry(tensor) for name, tensor in tensors.items()} | (sums or {})
    header = {"yoco": kind, "version": "2", "info": json.dumps(info), "sums": json.dumps(sums)}
    header["checksum"] = tensor_files._header_sum(header)
    safetensors.torch.save_file(tensors, path, header)
    return path


def used(load, path):
    """Load a file and use the result, or have it refused as documented."""
    try:
        load(path)
    except ValueError as error:
        assert str(path) in str(error), error
        return False
    return True


def use_set(path):
    found = CondensedSet.load(path)
    found.form(), found.fingerprint, found.save(path.with_name("again"))


def use_ranked(path):
    found = RankedSet.open(path)
    found.take(per_class=1), found.save(path.with_name("again"))


def use_dynamics(path):
    found = Dynamics.load(path)
    found.accuracy, found.forgetting, found.training, found.early_logits(1)
    found.save(path.with_name("again"))


def use_expert(path):
    mtt_experts._check.cache_clear()
    mtt_experts.Experts([path]).pair(0, 0, 1)


def files(toy_set, toy_dynamics, tmp_path):
    toy_set.save(tmp_path / "condensed")
    toy_set.rank(toy_dynamics).save(tmp_path / "ranked")
    toy_dynamics.save(tmp_path / "dynamics")
    crafted(tmp_path / "expert", "expert", {"parameters": torch.rand(2, 5)}, {})
    uses = {"condensed": use_set, "ranked": use_ranked, "dynamics": use_dynamics}
    for kind, use in {**uses, "expert": use_expert}.items():
        yield kind, use, *tensor_files.load_tensors(tmp_path / kind, kind)


def test_every_field_of_a_crafted_file_may_be_anything(toy_set, toy_dynamics, tmp_path):
    refused = 0
    for kind, use, tensors, info in files(toy_set, toy_dynamics, tmp_path):
        path = tmp_path / "x.safetensors"
        assert used(use, crafted(path, kind, tensors, info))
        for name in info if kind != "dynamics" else ():
            for wrong in WRONG:
                refused += not used(use, crafted(path, kind, tensors, {**info, name: wrong}))
            less = {key: value for key, value in info.items() if key != name}
            refused += not used(use, crafted(path, kind, tensors, less))
        for name, tensor in tensors.items():
            for dtype in TYPES:
                other = {**tensors, name: tensor.to(dtype)}
                refused += not used(use, crafted(path, kind, other, info))
            for shape in (tensor[..., None], tensor[:0], tensor.flatten(), tensor.flatten()[0]):
                refused += not used(
                    use, crafted(path, kind, {**tensors, name: shape.clone()}, info)
                )
            for sums in (None, 5, [], {"sums": []}, {"sums": None}):
                assert not used(use, crafted(path, kind, tensors, info, {name: sums}))
            assert not used(
                use,
                crafted(
                    path, kind, {k: v for k, v in tensors.items() if k != name}, info, {name: {}}
                ),
            )
        for wrong in (None, [], "x", 1):
            assert not used(use, crafted(path, kind, tensors, wrong))
    assert refused > 150
