"""Datasets of other libraries, where there is no network."""

import pytest
from torchvision import datasets

from yoco import data


@pytest.mark.parametrize(
    "name, said",
    [
        ("cifar10", r"place https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz in .*here"),
        ("cifar100", r"place https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz in .*here"),
        ("mnist", r"place train-images-idx3-ubyte.gz, .* from https?://.* in .*here/MNIST/raw"),
        ("fashionmnist", r"place train-images.*t10k-labels.* in .*here/FashionMNIST/raw"),
        ("svhn", r"place http.*/train_32x32.mat and http.*/test_32x32.mat in .*here"),
    ],
)
@pytest.mark.parametrize("error", [OSError("no route\nto host"), RuntimeError("corrupted")])
def test_what_cannot_be_downloaded_is_said_with_its_place(name, said, error, tmp_path, monkeypatch):
    def offline(*_, **__):
        raise error

    for kind in (datasets.CIFAR10, datasets.MNIST, datasets.SVHN):
        monkeypatch.setattr(kind, "download", offline)
    why = f"{name} is not in .*here and cannot be downloaded .(no route to host|corrupted)."
    with pytest.raises(FileNotFoundError, match=f"{why}: {said}"):
        data.load(name, tmp_path / "here")
