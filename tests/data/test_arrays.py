"""Images from memory and from other libraries' datasets."""

import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset
from torchvision import datasets
from torchvision.transforms import ToTensor

from yoco import data
from yoco.data import decode

GREY = torch.arange(256).repeat(2)[: 10 * 36].view(10, 1, 6, 6).to(torch.uint8)
COLOUR = torch.stack([GREY[:, 0], 255 - GREY[:, 0], GREY[:, 0] // 2], 1)
LABELS = torch.arange(10) % 2


def taken(images, labels=LABELS, **options) -> data.ImageData:
    return data.from_arrays(images, labels, images, labels, **options)


@pytest.mark.parametrize("kind", [lambda x: x, lambda x: x.numpy(), lambda x: list(x.numpy())])
@pytest.mark.parametrize(
    "images, given",
    [
        (COLOUR, COLOUR),
        (COLOUR, COLOUR.permute(0, 2, 3, 1)),
        (COLOUR, COLOUR.float() / 255),
        (COLOUR, COLOUR.double().permute(0, 2, 3, 1) / 255),
        (GREY, GREY),
        (GREY, GREY[:, 0]),
        (GREY, GREY.permute(0, 2, 3, 1)),
        (GREY, GREY[:, 0].half() / 255),
    ],
)
def test_arrays_and_tensors_of_every_layout(kind, images, given):
    loaded = taken(
        kind(given), LABELS.numpy().astype(np.uint8), classes=["cat", "dog"], name="pets"
    )
    assert torch.equal(loaded.train_images, images) and torch.equal(loaded.test_images, images)
    assert torch.equal(loaded.train_labels, LABELS) and (loaded.classes, loaded.name) == (
        ("cat", "dog"),
        "pets",
    )
    assert (loaded.mean, loaded.std) == data.channel_statistics(images)


def test_classes_are_numbers_if_they_have_no_names():
    assert taken(COLOUR).classes == ("0", "1") and taken(COLOUR, LABELS.tolist()).name == "mine"


def test_images_are_resized_if_a_size_is_given():
    wide = torch.zeros(10, 3, 8, 12, dtype=torch.uint8)
    wide[..., 2:10] = 100
    assert (taken(wide, size=8).train_images == 100).all() and taken(wide, size=8).size == 8
    with pytest.raises(ValueError, match="train_images must be square, got 12x8; pass size="):
        taken(wide)


def test_without_test_images_a_share_is_drawn_and_said_so(capsys):
    loaded = data.from_arrays(COLOUR, LABELS, name="pets")
    assert loaded.counts() == [4, 4] and torch.bincount(loaded.test_labels).tolist() == [1, 1]
    assert (
        "pets has no test split: 20% of each class, 2 images, were drawn" in capsys.readouterr().out
    )
    assert torch.equal(data.from_arrays(COLOUR, LABELS).test_images, loaded.test_images)
    with pytest.raises(ValueError, match="test_images must be given if test_labels are, got None"):
        data.from_arrays(COLOUR, LABELS, test_labels=LABELS)
    with pytest.raises(ValueError, match="mine has no test images: pass some, or test_share="):
        data.from_arrays(COLOUR, LABELS, test_share=None)


@pytest.mark.parametrize(
    "images, labels, error, match",
    [
        (
            COLOUR.float(),
            LABELS,
            ValueError,
            ("train_images must lie in 0..1 if they are floats, got 0..255"),
        ),
        (COLOUR.float() / 255 - 1, LABELS, ValueError, "train_images must lie in 0..1"),
        (COLOUR.float() * float("nan"), LABELS, ValueError, "train_images holds .* NaN"),
        (
            COLOUR.int(),
            LABELS,
            TypeError,
            ("train_images must be uint8, or floating point in 0..1, got torch.int32"),
        ),
        (
            COLOUR.repeat(1, 2, 1, 1),
            LABELS,
            ValueError,
            (r"train_images must have shape .*got \[10, 6, 6, " r"6\]"),
        ),
        (COLOUR[:0], LABELS[:0], ValueError, "train_images must have shape"),
        ([], LABELS, ValueError, "train_images must hold at least one"),
        ("images", LABELS, TypeError, "train_images must be a NumPy array"),
        (
            [COLOUR[0].numpy(), COLOUR[0, :, :5].numpy()],
            LABELS[:2],
            ValueError,
            ("train_images must have one shape"),
        ),
        (COLOUR, LABELS[:-1], ValueError, r"train_labels must have shape \[10\]"),
        (COLOUR, LABELS.float(), TypeError, "train_labels must be whole numbers"),
        (COLOUR, None, TypeError, "train_labels must be whole numbers"),
        (COLOUR, LABELS - 1, ValueError, "train_labels must be at least 0, got -1"),
        (COLOUR, ["a"] * 10, TypeError, "train_labels must be whole numbers"),
        (COLOUR, LABELS + 1, ValueError, "no training image in class 0"),
        (COLOUR, LABELS * 0, ValueError, "classes: at least 2 classes are needed"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(images, labels, error, match):
    with pytest.raises(error, match=match):
        taken(images, labels)


def test_torch_datasets():
    whole = TensorDataset(COLOUR.float() / 255, LABELS)
    mixed = data.from_arrays(whole, test_images=COLOUR, test_labels=LABELS)
    for loaded in (data.from_arrays(whole, whole), data.from_arrays(whole, None, whole), mixed):
        assert (
            torch.equal(loaded.train_images, COLOUR)
            and torch.equal(loaded.test_images, COLOUR)
            and torch.equal(loaded.test_labels, LABELS)
        )
    with pytest.raises(TypeError, match="train_labels must be None for a dataset"):
        data.from_arrays(whole, LABELS, whole)
    with pytest.raises(TypeError, match="a dataset must hold .image, label. pairs"):
        data.from_arrays(TensorDataset(COLOUR), None, whole)


def test_torchvision_datasets(tmp_path):
    for number, image in enumerate(COLOUR):
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(
            tmp_path / "ab"[number % 2] / f"{number}.png"
        )
    for transform in (None, ToTensor()):
        folder = datasets.ImageFolder(tmp_path, transform)
        loaded = data.from_arrays(folder, folder, name="folder")
        assert loaded.classes == ("a", "b") and torch.equal(
            loaded.train_images, torch.cat([COLOUR[::2], COLOUR[1::2]])
        )


def test_grey_and_mixed_pictures():
    grey = [Image.fromarray(image[0].numpy()) for image in GREY]
    assert torch.equal(taken(grey).train_images, GREY)
    mixed = taken([Image.fromarray(COLOUR[0].permute(1, 2, 0).numpy()), *grey[1:]])
    assert torch.equal(mixed.train_images[0], COLOUR[0]) and torch.equal(
        mixed.train_images[1], GREY[1].expand(3, -1, -1)
    )


@pytest.mark.parametrize("name, channels", [("mnist", 1), ("fashionmnist", 1), ("svhn", 3)])
def test_torchvision_s_by_name(monkeypatch, tmp_path, name, channels):
    class Fake:
        classes = [f"{k} - name" for k in range(10)]

        def __init__(self, root, train=None, split=None, download=False):
            if not download:  # the files are missing
                raise RuntimeError("Dataset not found or corrupted.")
            assert root == tmp_path and (
                split in ("train", "test") if name == "svhn" else train in (True, False)
            )
            labels, grey = torch.arange(20) % 10, 7 if train or split == "train" else 9
            if name == "svhn":
                self.data, self.labels = np.full((20, 3, 32, 32), grey, np.uint8), labels.numpy()
            else:
                self.data, self.targets = torch.full((20, 28, 28), grey, dtype=torch.uint8), labels

    monkeypatch.setattr(
        datasets, {"mnist": "MNIST", "fashionmnist": "FashionMNIST", "svhn": "SVHN"}[name], Fake
    )
    loaded = data.load(name, tmp_path, size=16, limit_per_class=1)
    assert loaded.train_images.shape == (10, channels, 16, 16)
    assert (loaded.train_images == 7).all() and (loaded.test_images == 9).all()
    assert (loaded.mean, loaded.std) == data.STATISTICS[name] and len(loaded.classes) == 10


class Rows:
    """Like a split of a Hugging Face dataset."""

    def __init__(self, label="label"):
        kind = lambda word, **fields: type(word, (), fields)()
        self.features = {
            "id": kind("Value"),
            "img": kind("Image"),
            label: kind("ClassLabel", names=["cat", "dog"]),
        }
        self.column_names, self.label = list(self.features), label

    def __len__(self):
        return 10

    def __getitem__(self, number):
        return {
            "id": number,
            "img": Image.fromarray(COLOUR[number].permute(1, 2, 0).numpy()),
            self.label: int(LABELS[number]),
        }


def test_hugging_face_s_datasets(monkeypatch, tmp_path, capsys):
    for rows in (Rows(), Rows("fine_label"), Rows("species")):
        loaded = data.from_arrays(rows, rows)
        assert torch.equal(loaded.train_images, COLOUR) and loaded.classes == ("cat", "dog")
    module = ModuleType("datasets")
    module.load_dataset = lambda name: (
        {"train": Rows(), "validation": Rows()} if name == "me/pets" else {"other": Rows()}
    )
    module.load_from_disk = lambda path: {"train": Rows()}
    monkeypatch.setitem(sys.modules, "datasets", module)
    loaded = data.load("hf:me/pets", limit_per_class=2)
    assert loaded.name == "hf:pets" and loaded.counts() == [2, 2] and len(loaded.test_images) == 4
    with pytest.raises(ValueError, match="dataset hf:me/x has no split train, only other"):
        data.load("hf:me/x")
    (tmp_path / "dataset_dict.json").write_text("{}")
    assert (
        len(data.load(f"hf:{tmp_path}").test_images) == 2
        and "has no test split" in capsys.readouterr().out
    )
    with pytest.raises(ValueError, match="hf:NAME is a placeholder for your own data"):
        data.load("hf:NAME")


def test_hugging_face_s_package_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        ModuleNotFoundError,
        match="dataset hf:mnist needs the package datasets: pip install datasets",
    ):
        data.load("hf:mnist")


def test_data_keeps_its_values_if_the_caller_changes_its_own():
    for images, labels in ((COLOUR.clone(), LABELS.clone()), (COLOUR.numpy().copy(), [0, 1] * 5)):
        loaded = taken(images, labels)
        images[:], labels[0] = 0, 1
        assert torch.equal(loaded.train_images, COLOUR) and torch.equal(loaded.train_labels, LABELS)


def test_lists_and_tuples_of_statistics_are_the_same_data():
    loaded = taken(COLOUR)
    listed = replace(loaded, classes=[*loaded.classes], mean=[*loaded.mean], std=[*loaded.std])
    assert listed.made_from == loaded.made_from


class Named:
    """A torch dataset in memory with names of its classes."""

    def __init__(self, classes, count):
        self.classes, self.items = classes, [(COLOUR[k], k % count) for k in range(9)]

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        return self.items[number]


def test_datasets_of_other_classes_do_not_mix():
    for names in (["a", "c"], ["a", "c", "b"]):
        with pytest.raises(ValueError, match="must have the same classes, but differ"):
            data.from_arrays(Named(["a", "b", "c"], 3), Named(names, 2))
    assert data.from_arrays(Named(["a", "b"], 2), Named(["a", "b"], 2)).classes == ("a", "b")


def test_a_16_bit_pgm_is_scaled_as_a_png_is(tmp_path):
    image = Image.fromarray(np.full((4, 4), 200, np.uint16))
    read = []
    for ending in ("png", "tif", "pgm"):
        image.save(tmp_path / f"x.{ending}", format="PPM" if ending == "pgm" else None)
        read.append(decode.read_image(tmp_path / f"x.{ending}", None).max())
    assert read == [1, 1, 1]
