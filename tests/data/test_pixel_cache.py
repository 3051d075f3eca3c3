"""Folders are decoded once into a file that is mapped, whole or not at all.

The memory that this takes does not grow with the folder.
"""

import errno
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import until
from tests.data import mapped
from tests.data.test_datasets import write_folder
from yoco import data, evaluate
from yoco.data import decode, pixel_cache
from yoco.data.batches import RealImages
from yoco.data.normalise import normalise
from yoco.utils import device, digests, tensor_files

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def decoded(monkeypatch):
    """The names of the images, recorded as they are decoded."""
    names, read_image = [], decode.read_image
    monkeypatch.setattr(
        decode, "read_image", lambda path, size: names.append(path.name) or read_image(path, size)
    )
    return names


def load(spec, cache, **options):
    return data.load(spec, cache=cache, progress=False, **options)


def whole(cache):
    """Cached files by kind; no other files may exist."""
    found = sorted(path.name for path in cache.iterdir())
    assert all(name.endswith((".npy", ".json")) and not name.startswith(".") for name in found), (
        found
    )
    return [name for name in found if name.endswith(".npy")]


def test_a_folder_is_decoded_once_and_the_same_as_in_memory(tmp_path, decoded):
    spec, cache = write_folder(tmp_path / "real", size=(20, 12)), tmp_path / "cache"
    first = load(spec, cache, size=8)
    assert len(decoded) == 12 and len(whole(cache)) == 2
    again, in_memory = load(spec, cache, size=8), load(spec, False, size=8)
    assert len(decoded) == 24  # the third
    for other in (again, in_memory):
        assert torch.equal(first.train_images, other.train_images) and torch.equal(
            first.test_images, other.test_images
        )
        assert (
            (first.mean, first.std)
            == (other.mean, other.std)
            == data.channel_statistics(first.train_images)
        )
    assert not hasattr(in_memory.train_images, "mapped_from")


def test_what_decides_the_pixels_decides_the_cache(tmp_path, decoded):
    spec, cache = write_folder(tmp_path / "real", size=(20, 12)), tmp_path / "cache"
    before = load(spec, cache, size=8)
    image = tmp_path / "real/train/b/1.png"
    for change in (
        lambda: Image.new("RGB", (20, 12), (9, 9, 9)).save(image),
        lambda: os.utime(image, ns=(0, 0)),
        lambda: shutil.copy(image, image.with_name("9.png")),
        lambda: image.unlink(),
        lambda: image.with_name("9.png").rename(image.with_name("0a.png")),
    ):
        decoded.clear()
        change()
        changed = load(spec, cache, size=8)
        assert decoded and torch.equal(changed.train_images, load(spec, False, size=8).train_images)
    assert changed.train_images[4, 0, 0, 0] == 9 and before.train_images[4, 0, 0, 0] == 101
    decoded.clear()
    assert load(spec, cache, size=9).size == 9 and load(
        spec, cache, size=8, limit_per_class=1
    ).counts() == [1, 1]
    assert len(decoded) == len(changed.train_images) + 6 + 4


def test_an_outdated_cache_stays_a_day(tmp_path):
    spec, cache = write_folder(tmp_path / "real"), tmp_path / "cache"
    load(spec, cache)
    load(spec, cache, limit_per_class=2)
    os.utime(tmp_path / "real/train/b/1.png", ns=(0, 0))
    load(spec, cache)
    assert len(whole(cache)) == 5  # train and test, of all and of two a class, and train anew
    for file in cache.iterdir():
        os.utime(file, (time.time() - pixel_cache.KEPT - 60,) * 2)
    (cache / ".elsewhere.part").touch()
    # of a decoding that was killed
    left = cache / f".{decode.Source(tmp_path / 'real/train', [], None).place}-0.npy.x.part"
    left.touch()
    os.utime(left, (0, 0))
    os.utime(tmp_path / "real/train/b/1.png", ns=(1, 1))
    # another format
    earlier = cache / f"{decode.Source(tmp_path / 'real/train', [], None).place}-0.u8"
    earlier.touch()
    os.utime(earlier, (0, 0))
    load(spec, cache)
    (cache / ".elsewhere.part").unlink()  # another folder's is nobody else's business
    names = whole(cache)
    assert (
        sum("-train-" in name for name in names) == 2
        and sum("-test-" in name for name in names) == 2
    )


@pytest.mark.parametrize(
    "damage",
    [
        "cut",
        "longer",
        "altered",
        "touched",
        "no note",
        "note cut",
        "note altered",
        "list",
        "gone",
        "no array",
    ],
)
def test_a_damaged_cache_is_decoded_anew(tmp_path, decoded, damage):
    spec, cache = write_folder(tmp_path / "real"), tmp_path / "cache"
    good = load(spec, cache).train_images.clone()
    path = next(cache.glob("real-train-*.npy"))
    note, content = path.with_suffix(".json"), path.read_bytes()
    stamp = path.stat().st_mtime_ns
    if damage in ("cut", "longer", "altered", "no array"):
        path.write_bytes(
            {
                "cut": content[:-1],
                "longer": content + b"0",
                "altered": content[:700] + b"!" + content[701:],
                "no array": b"0",
            }[damage]
        )
    elif damage == "touched":  # a copy, perhaps
        path.touch()
    elif damage in ("no note", "gone"):
        (note if damage == "no note" else path).unlink()
    else:
        record = json.loads(note.read_text())
        texts = {
            "note cut": note.read_text()[:-9],
            "note altered": json.dumps({**record, "counts": [[1] * 256] * 3}),
            "list": "[]",
        }
        note.write_text(texts[damage])
    if damage in ("cut", "no array"):  # whatever its time says
        os.utime(path, ns=(stamp, stamp))
    decoded.clear()
    # the first twice, for its shape
    assert torch.equal(load(spec, cache).train_images, good) and len(decoded) == 7
    assert len(whole(cache)) == 2


def test_what_stops_a_decoding_leaves_nothing(tmp_path, monkeypatch):
    spec, cache = write_folder(tmp_path / "real", count=40), tmp_path / "cache"
    read_image = decode.read_image

    def stopped(path, size):
        if path.parent.name == "b":
            raise KeyboardInterrupt
        return read_image(path, size)

    monkeypatch.setattr(digests, "BLOCK", 900)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(decode, "read_image", stopped)
        load(spec, cache)
    assert whole(cache) == []
    # in blocks of three
    assert torch.equal(load(spec, cache).train_images, load(spec, False).train_images)


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    spec, cache = write_folder(tmp_path / "real"), tmp_path / "cache"

    def full(handle, offset, length):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match="cannot write .*cache/real-train-.*npy: .*No space left"):
        load(spec, cache)
    assert whole(cache) == []
    monkeypatch.setattr(pixel_cache.shutil, "disk_usage", lambda path: SimpleNamespace(free=5))
    with pytest.raises(OSError, match="no space for 1,800 bytes .*5 are free.*YOCO_CACHE"):
        load(spec, cache)


def test_an_unwritable_cache_warns_or_raises(tmp_path, monkeypatch):
    spec = write_folder(tmp_path / "real")
    monkeypatch.setenv("YOCO_CACHE", "/sys/yoco")  # nobody makes folders there
    with pytest.warns(
        UserWarning, match="cannot write to the cache .sys.yoco .*held in memory.*YOCO_CACHE=FOLDER"
    ):
        assert len(load(spec, True).train_images) == 6
    with pytest.raises(OSError, match="cannot write to the cache /sys/yoco"):
        load(spec, "/sys/yoco")
    with pytest.raises(TypeError, match="cache must be a path"):
        load(spec, 3)


def test_a_cache_that_may_only_be_read_is_read(tmp_path, monkeypatch, decoded):
    spec, cache = write_folder(tmp_path / "real"), tmp_path / "cache"
    load(spec, cache)
    decoded.clear()

    def refused(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    for module, name in (
        (pixel_cache.tempfile, "TemporaryFile"),
        (tensor_files, "write_text"),
        (os, "utime"),
    ):
        monkeypatch.setattr(module, name, refused)
    assert len(load(spec, cache).train_images) == 6 and not decoded


def test_one_decodes_and_the_others_wait(tmp_path, monkeypatch, decoded):
    spec, cache, found = write_folder(tmp_path / "real"), tmp_path / "cache", []
    read_image = decode.read_image
    with pytest.warns(UserWarning, match="is being made by .*: waiting for it") as said:
        monkeypatch.setattr(
            decode,
            "read_image",
            lambda *arguments: until(lambda: len(said) >= 2) or read_image(*arguments),
        )
        threads = [
            threading.Thread(target=lambda: found.append(load(spec, cache))) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    # 12 images, the first twice
    assert len(decoded) == 13 and len(found) == 3 and len(whole(cache)) == 2


def test_writing_to_a_mapped_tensor_leaves_the_file(tmp_path):
    spec, cache = write_folder(tmp_path / "real"), tmp_path / "cache"
    mine, other = load(spec, cache), load(spec, cache)
    assert isinstance(pixel_cache.as_array(mine.train_images), np.memmap)
    mine.train_images[:] = 77
    assert not (other.train_images == 77).any() and torch.equal(
        load(spec, cache).train_images, other.train_images
    )
    assert (pixel_cache.as_array(mine.train_images) == 77).all()  # not the file's


def test_a_file_larger_than_memory_is_mapped(tmp_path):
    """Linux refuses to reserve that much for a private map, which NumPy's would ask for."""
    shape = (2**22, 3, 1024, 1024)
    np.lib.format.open_memmap(tmp_path / "large.npy", "w+", np.uint8, shape)
    images = pixel_cache._mapped(tmp_path / "large.npy")
    images[-1, -1, -1, -1] = 3
    assert images.shape == shape and images[-1, -1, -1].sum() == 3 and images[0, 0, 0, 0] == 0


def test_parallel_trainings_read_test_images_from_a_file(tmp_path, toy):
    spec = write_folder(tmp_path / "real", count=30, size=(12, 12))
    real = load(spec, tmp_path / "cache")
    test = evaluate.TestSet.of(real)
    assert isinstance(test.images, np.memmap) and test.images.mode == "r"
    subset = (real.train_images[::7], real.train_labels[::7])
    options = {
        "epochs": 1,
        "seeds": [0, 1],
        "width": 4,
        "precision": "float32",
        "progress": False,
        "jobs": 1,
    }
    on_disk, in_memory = (
        evaluate.evaluate_many({"a": subset}, one, **options) for one in (real, load(spec, False))
    )
    assert on_disk.equals(in_memory)


def test_real_images_are_the_normalised_ones_wherever_they_are(toy, monkeypatch):
    floats = normalise(toy.train_images.float() / 255, toy.mean, toy.std)
    real = RealImages.training(toy, torch.device("cpu"))
    index = torch.tensor([70, 3, 3, 9])
    part = real.of(index)
    assert torch.equal(real[index], floats[index]) and torch.equal(
        part[torch.tensor([1, 0])], floats[[3, 70]]
    )
    assert (len(real), len(part), len(part.of(torch.tensor([2])))) == (72, 4, 1)
    assert torch.equal(part.of(torch.tensor([3])).bytes(torch.tensor([0])), toy.train_images[[9]])
    elsewhere = torch.device("meta")  # stands for a GPU
    for free, where in (
        (2 * toy.train_images.nbytes, "meta"),
        (2 * toy.train_images.nbytes - 1, "cpu"),
    ):
        monkeypatch.setattr(device, "_free", lambda device, free=free: free)
        kept = RealImages.training(toy, elsewhere)
        assert kept.pixels.device.type == where and kept[index].device.type == "meta"


def large_folder(root, side, count):
    """PNGs of one colour each, quick to write and read."""
    contents = []
    for value in range(8):
        Image.new("RGB", (side, side), (value * 20, value * 10, 255 - value)).save(
            buffer := io.BytesIO(), "PNG", compress_level=1
        )
        contents.append(buffer.getvalue())
    for split, number in (("train", count), ("test", 2)):
        for k in "ab":
            (root / split / k).mkdir(parents=True)
            for i in range(number // 2):
                (root / split / k / f"{i}.png").write_bytes(contents[i % 8])
    return str(root)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_memory_does_not_grow_with_the_folder(tmp_path, decoded):
    """117 MB of pixels are decoded, read and condensed from in less than 80 MB.

    The next process maps the same file.
    """
    folders, cache = (
        [large_folder(tmp_path / "small", 320, 8), large_folder(tmp_path / "large", 320, 400)],
        tmp_path / "cache",
    )
    environment = {
        **os.environ,
        "YOCO_CACHE": str(cache),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "tests.data.mapped", *folders]
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["decoded"] == 403  # the first of each split twice, for its shape
    assert found["pixels_mb"] > 117 and found["grown_mb"] < 80 and found["same"]
    real = load(f"folder:{folders[1]}", cache)
    assert not decoded and mapped.inodes(real) == found["inodes"] and len(found["inodes"]) == 1
