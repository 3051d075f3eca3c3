"""Sets out of the package and back in, without loss."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from yoco.sets.condensed_set import CondensedSet
from yoco.sets.exported import folder_names


@pytest.fixture(scope="module", params=["bounded", "wild"])
def condensed(request, toy_set) -> CondensedSet:
    if request.param == "bounded":
        return toy_set
    targets = torch.eye(3)[toy_set.labels] * 0.7 + 0.1
    return replace(
        toy_set,
        images=toy_set.normalise(toy_set.images) * 2,
        labels=targets,
        bounded=False,
        whitening="pixels",
    )


def name_of(folder, format):
    return folder / ("pictures" if format == "images" else f"out.{format}")


@pytest.mark.parametrize("format", ["images", "pt", "npz"])
def test_an_export_is_read_back_without_loss(condensed, tmp_path, format):
    path = condensed.export(name_of(tmp_path, format), format)
    assert path == name_of(tmp_path, format) and [entry.name for entry in tmp_path.iterdir()] == [
        path.name
    ]
    back = CondensedSet.from_published(path)
    assert torch.equal(back.images, condensed.images) and torch.equal(back.labels, condensed.labels)
    for name in (
        "factor",
        "classes",
        "mean",
        "std",
        "method",
        "bounded",
        "whitening",
        "fingerprint",
    ):
        assert getattr(back, name) == getattr(condensed, name)
    assert back.info == json.loads(json.dumps(dict(condensed.info)))


def test_pictures_are_an_image_folder_of_eight_bits(condensed, tmp_path):
    folder = ImageFolder(condensed.export(tmp_path / "out"))
    assert tuple(folder.classes) == tuple(sorted(condensed.classes)) and len(folder) == 15
    shown = condensed.pictures(condensed.images)
    for label, name in enumerate(condensed.classes):
        for number, index in enumerate(condensed.members(label)):
            pixels = np.asarray(Image.open(tmp_path / "out" / name / f"{number:04}.png"))
            assert (
                np.abs(pixels.transpose(2, 0, 1) / 255 - shown[index].numpy()).max()
                <= 1 / 510 + 1e-6
            )


def test_grey_sets_and_names_that_are_no_folders(tmp_path, toy_set):
    names = ("a/b", "..", "con\x00")
    grey = replace(toy_set, images=toy_set.images[:, :1], mean=(0.5,), std=(0.2,), classes=names)
    grey.export(tmp_path / "out")
    assert Image.open(tmp_path / "out" / folder_names(names)[0] / "0000.png").mode == "L"
    assert (
        sorted(entry.name for entry in tmp_path.iterdir()) == ["out"]
        and len(list((tmp_path / "out").iterdir())) == 4
    )
    assert folder_names(("Cat", "cat")) == ["000_Cat", "001_cat"] and folder_names(
        ("cat", "dog")
    ) == ["cat", "dog"]


def test_bad_exports(toy_set, tmp_path):
    with pytest.raises(ValueError, match="format='png' is unknown.*allowed: images, pt, npz"):
        toy_set.export(tmp_path / "x", "png")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="path=.*full' must be a new or empty folder"):
        toy_set.export(tmp_path / "full")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write .*file/set.pt"):
        toy_set.export(tmp_path / "file/set.pt", "pt")


def test_a_dataset_of_the_formed_images(condensed):
    dataset = condensed.as_dataset()
    images, labels = condensed.form()
    assert (
        len(dataset) == 60
        and dataset.classes == condensed.classes
        and dataset.mean == condensed.mean
    )
    assert torch.equal(dataset[7][0], images[7]) and (condensed.soft or dataset[59][1] == 2)
    batches = list(DataLoader(dataset, batch_size=25))
    assert torch.equal(torch.cat([batch for batch, _ in batches]), images) and torch.equal(
        torch.cat([batch for _, batch in batches]), labels
    )


def test_a_saved_set_is_read_as_what_it_is(condensed, tmp_path, capsys):
    saved = condensed.save(tmp_path / "set.safetensors")
    for path in (saved, condensed.export(tmp_path / "folder")):
        back = CondensedSet.from_published(path)
        assert back.fingerprint == condensed.fingerprint and back.method == condensed.method
        assert capsys.readouterr().out == f"{path.name}: an export of yoco\n"


@pytest.mark.parametrize("format", ["images", "pt", "npz"])
def test_an_export_says_all_but_the_factor_itself(condensed, tmp_path, format):
    path = condensed.export(tmp_path / f"set.{format}", format)
    assert CondensedSet.from_published(path, "auto", factor=1).factor == 1
    for given in (
        {"method": "dsa"},
        {"dataset": "cifar10"},
        {"mean": (0.5,) * 3, "std": (0.2,) * 3},
    ):
        with pytest.raises(ValueError, match=f"{next(iter(given))} cannot be given for an export"):
            CondensedSet.from_published(path, **given)
