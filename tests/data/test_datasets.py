from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torchvision import datasets

from yoco import data


def write_folder(
    root, splits=("train", "test"), classes=("a", "b"), count=3, size=(10, 10), mode="RGB"
):
    for split in splits:
        for k, name in enumerate(classes):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.full((size[1], size[0], 3), (100 * k + i) % 256, np.uint8)
                Image.fromarray(pixels).convert(mode).save(root / split / name / f"{i}.png")
    return f"folder:{root}"


def test_digits_are_scikit_learn_s_split_by_its_seed_0():
    pixels, labels = load_digits(return_X_y=True)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=0.2, random_state=0, stratify=labels
    )
    digits = data.load("digits", size=8)
    for images, targets, chosen in (
        (digits.train_images, digits.train_labels, train),
        (digits.test_images, digits.test_labels, test),
    ):
        expected = torch.from_numpy(pixels)[chosen].mul(255 / 16).round().to(torch.uint8)
        assert torch.equal(images.flatten(1), expected)
        assert torch.equal(targets, torch.from_numpy(labels)[chosen].long())


def test_digits_are_16_pixels_of_grey_in_ten_classes():
    digits = data.load("digits")
    assert digits.train_images.shape == (1437, 1, 16, 16) and digits.test_images.shape == (
        360,
        1,
        16,
        16,
    )
    assert digits.train_images.dtype == torch.uint8 and digits.train_labels.dtype == torch.int64
    assert digits.classes == tuple("0123456789")
    pixels = digits.train_images.double() / 255
    assert digits.mean[0] == pytest.approx(pixels.mean().item()) and digits.std[0] == pytest.approx(
        pixels.std(correction=0).item()
    )


def test_limit_per_class_takes_the_first_of_each():
    whole, limited = data.load("digits"), data.load("digits", limit_per_class=5)
    assert limited.counts() == [5] * 10 and torch.bincount(limited.test_labels).tolist() == [5] * 10
    threes = whole.train_images[whole.train_labels == 3][:5]
    assert torch.equal(limited.train_images[limited.train_labels == 3], threes)


@pytest.mark.parametrize("test_name", ["test", "val"])
def test_folder_reads_classes_in_order_and_pixels_as_they_are(tmp_path, test_name):
    loaded = data.load(write_folder(tmp_path, ("train", test_name)), progress=False)
    assert loaded.classes == ("a", "b") and loaded.train_images.shape == (6, 3, 10, 10)
    assert loaded.train_images[:, 0, 0, 0].tolist() == [0, 1, 2, 100, 101, 102]
    assert loaded.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert loaded.name == f"folder:{tmp_path.name}"
    assert data.load(
        loaded.name.replace(tmp_path.name, str(tmp_path)), limit_per_class=2, progress=False
    ).train_labels.tolist() == [0, 0, 1, 1]


def test_grey_pictures_of_any_shape_become_square_and_rgb(tmp_path):
    loaded = data.load(write_folder(tmp_path, size=(20, 12), mode="L"), size=8, progress=False)
    assert loaded.train_images.shape == (6, 3, 8, 8)


def test_imagenet10_takes_its_ten_classes_in_the_design_s_order(tmp_path):
    write_folder(tmp_path, ("train", "val"), (*data.IMAGENET10, "n00000001"), count=1)
    loaded = data.load("imagenet10", tmp_path, size=16, progress=False)
    assert loaded.classes == data.IMAGENET10 and loaded.mean == (0.485, 0.456, 0.406)
    assert len(loaded.train_images) == 10


@pytest.mark.parametrize("name, classes", [("cifar10", 10), ("cifar100", 100)])
def test_cifar_has_the_published_statistics(monkeypatch, tmp_path, name, classes):
    class Fake:
        def __init__(self, root, train, download):
            assert root == tmp_path
            if not download:
                raise RuntimeError("Dataset not found or corrupted.")
            shift = 0 if train else 1
            self.data = np.zeros((classes + shift, 32, 32, 3), np.uint8)
            self.data[..., 1] = 9 if shift else 7
            self.targets = [(k + shift) % classes for k in range(classes + shift)]
            self.classes = [f"class {k}" for k in range(classes)]

    monkeypatch.setattr(datasets, name.upper(), Fake)
    loaded = data.load(name, tmp_path)
    assert (
        loaded.train_images.shape == (classes, 3, 32, 32) and (loaded.train_images[:, 1] == 7).all()
    )
    assert len(loaded.test_images) == classes + 1 and (loaded.test_images[:, 1] == 9).all()
    assert (loaded.train_labels[0], loaded.test_labels[0]) == (0, 1)
    assert loaded.mean == (0.4914, 0.4822, 0.4465) and loaded.std == (0.2023, 0.1994, 0.2010)


def test_unknown_dataset_names_the_nearest():
    with pytest.raises(ValueError, match="cifr10.*did you mean 'cifar10'.*allowed: digits"):
        data.load("cifr10")


def test_folder_without_images_or_split_or_with_one_class(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder at"):
        data.load(f"folder:{tmp_path}/none")
    with pytest.raises(FileNotFoundError, match="test or testing or val"):
        data.load(write_folder(tmp_path / "a", ("train",)), progress=False, test_share=None)
    with pytest.raises(ValueError, match="at least 2 class folders"):
        data.load(write_folder(tmp_path / "b", classes=("only",)), progress=False)
    spec = write_folder(tmp_path / "c")
    for image in (tmp_path / "c/train/b").iterdir():
        image.unlink()
    with pytest.raises(FileNotFoundError, match="no images in .*train/b"):
        data.load(spec, progress=False)


def test_unreadable_image_is_named(tmp_path):
    spec = write_folder(tmp_path)
    (tmp_path / "train/b/1.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="cannot read image .*train/b/1.png"):
        data.load(spec, progress=False)


def test_images_of_several_sizes_ask_for_a_size(tmp_path):
    spec = write_folder(tmp_path)
    Image.new("RGB", (12, 12)).save(tmp_path / "train/b/1.png")
    with pytest.raises(ValueError, match="1.png is 12x12.*size="):
        data.load(spec, progress=False)
    assert data.load(spec, size=8, progress=False).size == 8


@pytest.mark.parametrize(
    "change, error",
    [
        ({"train_labels": torch.full((72,), 3)}, "train_labels must lie in 0..2"),
        (
            {"train_labels": torch.zeros(72, dtype=torch.long)},
            ("no training image in class middle, bright"),
        ),
        ({"train_images": torch.zeros(72, 3, 16, 12, dtype=torch.uint8)}, "square"),
        ({"classes": ("one",)}, "at least 2 classes"),
    ],
)
def test_image_data_refuses_what_does_not_fit(toy, change, error):
    with pytest.raises(ValueError, match=error):
        replace(toy, **change)


def test_image_data_refuses_floats(toy):
    with pytest.raises(TypeError, match="train_images must be uint8"):
        replace(toy, train_images=toy.train_images.float() / 255)
