import json
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from yoco.sets.condensed_set import CondensedSet
from yoco.utils import tensor_files


def test_save_and_load_give_the_same_set(toy_set, tmp_path):
    loaded = CondensedSet.load(toy_set.save(tmp_path / "a/set.safetensors"))
    assert torch.equal(loaded.images, toy_set.images) and torch.equal(loaded.labels, toy_set.labels)
    for name in ("factor", "classes", "mean", "std", "method", "info"):
        assert getattr(loaded, name) == getattr(toy_set, name)
    # no temporary file is left
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["set.safetensors"]


def test_a_set_of_bytes_takes_a_quarter_and_loads_as_floats(toy_set, tmp_path):
    made = replace(toy_set, images=toy_set.images.sqrt())  # no whole bytes
    exact, small = made.save(tmp_path / "a"), made.save(tmp_path / "b", torch.uint8)
    held = safetensors.torch.load_file(small)["images"]
    saved = exact.stat().st_size - small.stat().st_size
    assert held.dtype == torch.uint8 and saved > 2.9 * held.numel()
    loaded = CondensedSet.load(small)
    assert loaded.images.dtype == torch.float32 and loaded.info == made.info
    assert 0 < (loaded.images - made.images).abs().max() <= 0.5001 / 255
    again = CondensedSet.load(loaded.save(tmp_path / "c", torch.uint8))
    assert torch.equal(again.images, loaded.images)  # rounding is done once
    with pytest.raises(ValueError, match="dtype must be torch.uint8 or torch.float32"):
        toy_set.save(tmp_path / "d", torch.float16)
    with pytest.raises(ValueError, match="unbounded"):
        replace(toy_set, bounded=False).save(tmp_path / "d", torch.uint8)
    assert not (tmp_path / "d").exists()


def test_form_gives_factor_squared_images_class_after_class(toy_set):
    images, labels = toy_set.form()
    assert images.shape == (60, 3, 16, 16) and labels.tolist() == [0] * 20 + [1] * 20 + [2] * 20


@pytest.mark.parametrize(
    "change, error, match",
    [
        ({"images": torch.full((15, 3, 16, 16), float("nan"))}, ValueError, "NaN"),
        (
            {"images": torch.full((15, 3, 16, 16), 1.5)},
            ValueError,
            ("images must lie in 0..1, got 1.5..1.5"),
        ),
        ({"images": torch.zeros(15, 3, 16, 16, dtype=torch.uint8)}, TypeError, "float"),
        ({"images": torch.zeros(15, 16, 16)}, ValueError, "square images"),
        ({"labels": torch.full((15,), 3)}, ValueError, "labels must lie in 0..2"),
        (
            {"labels": torch.tensor([0] * 6 + [1] * 5 + [2] * 4)},
            ValueError,
            ("equally many images in each class"),
        ),
        ({"labels": torch.tensor([0, 1, 2] * 5)}, ValueError, "sorted"),
        ({"factor": 0}, ValueError, "factor must be between 1 and 16, got 0"),
        ({"mean": (0.5,)}, ValueError, "mean must hold 3 values"),
    ],
)
def test_a_set_that_does_not_fit_is_refused(toy_set, change, error, match):
    with pytest.raises(error, match=match):
        replace(toy_set, **change)


def test_missing_cut_foreign_and_newer_files(toy_set, tmp_path):
    path = toy_set.save(tmp_path / "set.safetensors")
    whole = path.read_bytes()
    with pytest.raises(FileNotFoundError, match="no file at"):
        CondensedSet.load(tmp_path / "none")
    for cut in (0, 4, 100, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="corrupted or truncated"):
            CondensedSet.load(path)
    tensors = {"images": toy_set.images, "labels": toy_set.labels}
    safetensors.torch.save_file(tensors, path)
    with pytest.raises(ValueError, match="not a yoco condensed file"):
        CondensedSet.load(path)
    safetensors.torch.save_file(tensors, path, {"yoco": "condensed", "version": "99", "info": "{}"})
    with pytest.raises(ValueError, match="format version 99, but this yoco reads 2"):
        CondensedSet.load(path)
    safetensors.torch.save_file(
        tensors, path, {"yoco": "condensed", "version": "1", "info": json.dumps({"factor": 2})}
    )
    with pytest.raises(ValueError, match="not a valid condensed set"):
        CondensedSet.load(path)


def test_nan_in_a_file_is_refused(toy_set, tmp_path):
    path = tmp_path / "set.safetensors"
    values = {
        "factor": 2,
        "classes": ["a", "b", "c"],
        "mean": [0] * 3,
        "std": [1] * 3,
        "method": "x",
        "info": {},
    }
    tensor_files.save_tensors(
        path,
        "condensed",
        {"images": toy_set.images * float("nan"), "labels": toy_set.labels},
        values,
    )
    with pytest.raises(ValueError, match="images holds NaN"):
        CondensedSet.load(path)


def test_a_write_that_fails_leaves_the_old_file(toy_set, tmp_path, monkeypatch):
    path = toy_set.save(tmp_path / "set.safetensors")
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full_disk)
    with pytest.raises(OSError, match="cannot write .*set.safetensors.*No space left.*untouched"):
        toy_set.save(path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_made_is_named(toy_set, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write .*file/set.safetensors"):
        toy_set.save(tmp_path / "file" / "set.safetensors")
