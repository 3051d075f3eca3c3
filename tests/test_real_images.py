"""A short run on real images.

$YOCO_REAL_DATA is a folder with cifar10-jpeg.tar.gz and tiny-imagenet-10.tar.gz (`.ci/run` sets
it).
"""

import os
import tarfile
from pathlib import Path

import pandas as pd
import pytest

from yoco import CondensedSet, cli, condense, data, evaluate

SOURCE = os.environ.get("YOCO_REAL_DATA")
pytestmark = pytest.mark.skipif(
    not SOURCE, reason="YOCO_REAL_DATA is not set: no real images at hand"
)
ROOT = Path(__file__).parent.parent


def unpacked(tmp_path_factory, archive: str) -> Path:
    folder = tmp_path_factory.mktemp("real")
    with tarfile.open(Path(SOURCE) / f"{archive}.tar.gz") as file:
        file.extractall(folder, filter="data")
    return next(folder.iterdir())


@pytest.fixture(scope="module")
def cifar(tmp_path_factory) -> Path:
    return unpacked(tmp_path_factory, "cifar10-jpeg")


def test_all_of_cifar_loads(cifar):
    real = data.load(f"folder:{cifar}", progress=False)
    assert real.counts() == [5000] * 10 and len(real.test_images) == 10_000 and real.size == 32
    assert real.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=0.002)


def part(whole: Path, folder: Path, classes: int, train: int, test: int) -> Path:
    """The first images of the first classes: more of them take CI too long."""
    for split in (path for path in whole.iterdir() if path.is_dir()):
        for source in sorted(split.iterdir())[:classes]:
            copy = folder / split.name / source.name
            copy.mkdir(parents=True)
            for image in sorted(source.iterdir())[: train if split.name == "train" else test]:
                (copy / image.name).hardlink_to(image)
    return folder


def notebooks(images: Path, names: str, **values: str) -> int:
    pairs = [part for name, value in values.items() for part in ("-p", name, value)]
    return cli.main(
        [
            "run",
            *names.split(),
            "--folder",
            str(ROOT / "notebooks"),
            "-p",
            "dataset",
            f"folder:{images}",
            *pairs,
        ]
    )


def test_the_notebooks_run_on_part_of_it(cifar, tmp_path, monkeypatch):
    monkeypatch.setenv("YOCO_RUNS", str(tmp_path / "runs"))
    images = part(cifar, tmp_path / cifar.name, 10, 500, 100)
    small = {"preset": "smoke", "epochs": "30", "ipc": "2", "dynamics": "1"}
    short = {"compare_seconds": "1", "bytes_epochs": "10", "ipc_to": "1,2"}
    assert notebooks(images, "01 02 03 04", **small, **short, methods="random,el2n,yoco") == 0
    run = tmp_path / "runs" / images.name
    accuracy = pd.read_csv(run / "condensation.csv").groupby("subset")["accuracy"].mean()
    assert accuracy["condensed"] > accuracy["start"] > 12  # 10 is chance
    table = pd.read_csv(run / "table2.csv")
    assert table.condensation.value_counts().to_dict() == {"idc": 6, "dream": 2}
    assert not (run / "beside_paper.csv").exists()  # the paper has no IPC_F of 2
    assert (
        CondensedSet.load(run / "condensed.safetensors").info["dataset"] == f"folder:{images.name}"
    )
    assert (
        notebooks(
            images,
            "05",
            **small,
            methods="yoco",
            top_k="10",
            within="100",
            compare="idc,dream",
            networks="resnet10-w16",
        )
        == 0
    )
    counts = pd.read_csv(run / "ablations.csv").ablation.value_counts().to_dict()
    assert counts == {
        "condensation": 8,
        "rules": 4,
        "network": 4,
        "output": 2,
        "record_on": 2,
        "epochs_read": 1,
    }


def test_imagenet_settings_at_64_pixels(tmp_path_factory):
    """ResNet10-AP with factor 3, at a size that 3 does not divide."""
    whole = unpacked(tmp_path_factory, "tiny-imagenet-10")
    images = part(whole, tmp_path_factory.mktemp("part") / whole.name, 3, 20, 10)
    real = data.load(f"folder:{images}", progress=False)
    few = {"outer_loops": 1, "inner_loops": 1, "real_batch": 8, "network_images": 20}
    made = condense.condense(real, "idc", 1, 3, preset="smoke", progress=False, **few)
    assert (
        made.info["settings"]["model"] == "resnet10ap"
        and made.info["settings"]["distance"] == "l1"
        and made.size == 64
    )
    assert evaluate.evaluate(*made.form(), real, epochs=1, seed=0, model="resnet10ap") >= 0
