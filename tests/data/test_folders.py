"""Folders as users have them: which files are read, how, and what is said about the others."""

import os
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.test_datasets import write_folder
from yoco import data
from yoco.data import decode, folders


def load(root, **options):
    return data.load(f"folder:{root}", progress=False, cache=False, **options)


def told(root, **options) -> tuple[data.ImageData, str]:
    """The data, and the one warning that came with it ("" if none)."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = load(root, **options)
    assert len(caught) <= 1, [str(warning.message) for warning in caught]
    return loaded, str(caught[0].message) if caught else ""


def read(tmp_path, image, name="x.png", **options) -> np.ndarray:
    image.save(tmp_path / name, **options)
    return decode.read_image(tmp_path / name, None)


def test_sixteen_bits_are_scaled_by_their_range(tmp_path):
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    for name in ("x.png", "x.tif"):
        found = read(tmp_path, Image.fromarray(values), name)
        assert np.abs(found - values / 257).max() <= 0.5 and found.shape == (3, 8, 8)
    assert (read(tmp_path, Image.fromarray(np.full((8, 8), 32768, np.uint16))) == 128).all()


@pytest.mark.parametrize(
    "values, wanted",
    [
        (np.linspace(0, 1, 64, dtype=np.float32), np.linspace(0, 255, 64)),
        (np.linspace(0, 255, 64, dtype=np.float32), np.linspace(0, 255, 64)),
        (np.linspace(-3, 5, 64, dtype=np.float32), np.linspace(0, 255, 64)),
        (np.full(64, -2, np.float32), np.zeros(64)),
        (np.linspace(0, 60000, 64).astype(np.int32), np.linspace(0, 60000 / 257, 64)),
        (np.linspace(0, 2e9, 64).astype(np.int32), np.linspace(0, 255, 64)),
        (np.linspace(0, 200, 64).astype(np.int32), np.linspace(0, 200, 64)),
    ],
)
def test_floats_and_32_bits_are_scaled_by_their_range(tmp_path, values, wanted):
    found = read(tmp_path, Image.fromarray(values.reshape(8, 8)), "x.tif")
    assert np.abs(found[0].flatten() - wanted).max() <= 1


def test_floats_that_are_no_numbers_are_refused(tmp_path):
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(ValueError, match="cannot read image .*x.tif: it holds NaN"):
        decode.read_image(tmp_path / "x.tif", None)


def test_exif_rotation_is_applied(tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255  # the upper half white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    found = read(tmp_path, Image.fromarray(pixels), exif=exif)
    assert (found[:, :, 4:] == 255).all() and (found[:, :, :4] == 0).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_composed_on_white(tmp_path, mode):
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 8, 4))
    if mode == "P":
        image = Image.fromarray(np.repeat([[1], [0]], 4, 0).repeat(8, 1).astype(np.uint8), "P")
        image.putpalette([0, 0, 0] * 256)
        found = read(tmp_path, image, transparency=0)
    else:
        found = read(tmp_path, image.convert(mode))
    assert (found[:, :4] == 0).all() and (found[:, 4:] == 255).all()


@pytest.mark.parametrize("mode, by", [("RGBa", "RGBA"), ("La", "LA"), ("PA", "P")])
def test_transparency_of_images_in_memory(mode, by):
    image = Image.new(by, (8, 8)) if mode == "PA" else Image.new("RGBA", (8, 8)).convert(by)
    clear = image.convert(mode)
    if mode == "PA":
        clear.putalpha(Image.new("L", (8, 8)))
    assert clear.mode == mode and (np.asarray(decode.upright(clear)) == 255).all()


@pytest.mark.parametrize("name", ["x.gif", "x.jfif", "X.JPG"])
def test_gif_and_jfif_are_read(tmp_path, name):
    write_folder(tmp_path)
    Image.new("RGB", (10, 10), (200, 200, 200)).save(
        tmp_path / "train/a" / name, "GIF" if "gif" in name else "JPEG"
    )
    loaded, warning = told(tmp_path)
    assert loaded.counts() == [4, 3] and warning == ""
    assert (
        loaded.train_images[3 if name == "x.gif" or name == "x.jfif" else 3].float() - 200
    ).abs().max() < 3


def test_hidden_files_and_folders_are_skipped_at_every_level(tmp_path):
    write_folder(tmp_path)
    junks = (
        "train/.ipynb_checkpoints/a.png",
        "train/__MACOSX/a/x.png",
        "train/a/._0.png",
        "train/a/.cache/0.png",
        "test/.DS_Store",
    )
    for junk in (*junks, "train/a/Thumbs.db"):
        (tmp_path / junk).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / junk).write_bytes(b"no picture")
    loaded, warning = told(tmp_path)
    assert loaded.counts() == [3, 3] and loaded.classes == ("a", "b") and warning == ""


def test_all_that_is_skipped_is_counted_in_one_warning(tmp_path):
    root = tmp_path / "pictures"
    write_folder(root)
    write_folder(tmp_path / "elsewhere", ("train",))
    Image.new("RGB", (10, 10)).save(tmp_path / "elsewhere/x.png")
    (root / "train/a/notes.txt").write_text("")
    (root / "test/b/more.txt").write_text("")
    (root / "train/readme").write_text("")
    os.mkfifo(root / "train/a/pipe.png")  # opening it would wait for ever
    (root / "train/a/linked.png").symlink_to(tmp_path / "elsewhere/x.png")
    (root / "train/c").symlink_to(tmp_path / "elsewhere/train/b")
    (root / "test/extra").mkdir()
    Image.new("RGB", (10, 10)).save(root / "test/extra/0.png")
    loaded, warning = told(root)
    assert loaded.counts() == [3, 3] and loaded.classes == ("a", "b")
    for part in (
        "pictures: skipped",
        "2 files ending in .txt",
        "1 file outside the classes' folders",
        "1 entry other than a file or folder",
        "2 links out of the folder (read with follow_links=True)",
        "1 class only in the test split",
    ):
        assert part in warning
    with pytest.raises(FileNotFoundError, match="test has no folder for class c"):
        load(root, follow_links=True)
    (root / "train/c").unlink()
    loaded, warning = told(root, follow_links=True)
    assert loaded.counts() == [4, 3] and "links" not in warning


def test_links_inside_the_folder_are_followed_and_circles_end(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "train/a/again.png").symlink_to(tmp_path / "train/b/0.png")
    (tmp_path / "train/a/loop").symlink_to(tmp_path / "train/a")
    (tmp_path / "link").symlink_to(tmp_path)
    for root in (tmp_path, tmp_path / "link"):
        loaded, warning = told(root)
        assert loaded.counts() == [4, 3] and warning == ""


def test_a_split_that_is_a_link_elsewhere_is_asked_about(tmp_path):
    write_folder(tmp_path / "real")
    (tmp_path / "mine").mkdir()
    for split in ("train", "test"):
        (tmp_path / "mine" / split).symlink_to(tmp_path / "real" / split)
    with pytest.raises(
        FileNotFoundError, match="mine/train is a link that leads out of .*; pass follow_links=True"
    ):
        load(tmp_path / "mine")
    assert load(tmp_path / "mine", follow_links=True).counts() == [3, 3]


@pytest.mark.parametrize("name", ["valid", "validation"])
def test_validation_splits_have_several_names(tmp_path, name):
    write_folder(tmp_path, ("train", name))
    assert len(load(tmp_path).test_images) == 6


@pytest.mark.parametrize("layout", ["train", "classes"])
def test_without_a_test_split_a_share_is_drawn_and_said_so(tmp_path, capsys, layout):
    write_folder(tmp_path, (layout,), count=10)
    root = tmp_path if layout == "train" else tmp_path / "classes"
    loaded = load(root)
    assert loaded.counts() == [8, 8] and torch.bincount(loaded.test_labels).tolist() == [2, 2]
    assert (
        f"{root.name} has no test split: 20% of each class, 4 images, were drawn as test images "
        "(seed 0)"
    ) in capsys.readouterr().out
    values = lambda images: set(images[:, 0, 0, 0].tolist())
    assert values(loaded.train_images) | values(loaded.test_images) == {
        *range(10),
        *range(100, 110),
    }
    assert torch.equal(load(root).test_images, loaded.test_images)
    assert load(root, test_share=0.5).counts() == [5, 5] and load(
        root, limit_per_class=3
    ).counts() == [3, 3]
    assert load(root, test_share=0.99).counts() == [1, 1]  # never all, though 9.9 are rounded to 10
    assert values(load(root, limit_per_class=3).test_images) == values(loaded.test_images)
    with pytest.raises(FileNotFoundError, match="test or testing or val or valid or validation"):
        write_folder(tmp_path / "other", ("train",))
        load(tmp_path / "other", test_share=None)
    for share, error in ((0, ValueError), (1, ValueError), ("a", TypeError)):
        with pytest.raises(error, match="test_share must be"):
            load(root, test_share=share)


def test_a_test_split_alone_and_a_class_of_one_image(tmp_path):
    write_folder(tmp_path / "x", ("test",))
    with pytest.raises(FileNotFoundError, match="has no folder train or training; wanted"):
        load(tmp_path / "x")
    write_folder(tmp_path / "y", ("train",), count=1)
    with pytest.raises(ValueError, match="class 0 has only one image, which cannot be spared"):
        load(tmp_path / "y")


def test_tiny_imagenet_s_own_layout(tmp_path):
    root = tmp_path / "tiny-imagenet-200"
    write_folder(root, ("train",), ("n01", "n02"))
    (root / "val/images").mkdir(parents=True)
    rows = []
    for number, name in enumerate(["n02", "n01", "n02", "n03"]):  # n03 is not in train/
        Image.new("L", (10, 10), number).save(root / f"val/images/val_{number}.JPEG")
        rows.append(f"val_{number}.JPEG\t{name}\t0\t0\t62\t62\n")
    (root / "val/val_annotations.txt").write_text("".join(rows))
    loaded = data.load("tinyimagenet", tmp_path, progress=False, cache=False)
    assert (
        loaded.name == "tinyimagenet"
        and loaded.test_labels.tolist() == [0, 1, 1]
        and loaded.mean == data.IMAGENET_MEAN
    )
    assert loaded.test_images[:, 0, 0, 0].tolist() == [1, 0, 2] and loaded.counts() == [3, 3]
    assert data.load(
        "tinyimagenet", root, progress=False, cache=False, limit_per_class=1
    ).counts() == [1, 1]
    with pytest.raises(FileNotFoundError, match="no tiny-imagenet-200 in .*: unpack http"):
        data.load("tinyimagenet", tmp_path / "none")


def test_listing_holds_paths_as_text(tmp_path):
    write_folder(tmp_path)
    first, second, names = folders.listed(tmp_path, (), None)
    assert first.names == [
        "a/0.png",
        "a/1.png",
        "a/2.png",
        "b/0.png",
        "b/1.png",
        "b/2.png",
    ] and names == ["a", "b"]
    assert first.labels == [0, 0, 0, 1, 1, 1] and second.root == tmp_path / "test"


@pytest.mark.parametrize("splits", [("Train", "Test"), ("training", "testing"), ("TRAIN", "val")])
def test_splits_have_their_usual_names_in_any_case(tmp_path, splits):
    write_folder(tmp_path, splits)
    loaded = load(tmp_path)
    assert loaded.classes == ("a", "b") and len(loaded.test_labels) == 6


def test_a_test_folder_without_classes_is_not_the_test_split(tmp_path):
    """ImageNet has one beside val/."""
    write_folder(tmp_path, ("train", "val"))
    (tmp_path / "test").mkdir()
    Image.new("RGB", (10, 10)).save(tmp_path / "test/0.png")
    assert len(load(tmp_path).test_labels) == 6


def test_a_folder_can_be_loaded_in_inference_mode(tmp_path):
    write_folder(tmp_path)
    with torch.inference_mode():
        assert load(tmp_path).made_from["training images"]
