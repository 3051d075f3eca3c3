"""Every notebook with parameters, on small odd folders of images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from yoco import cli

# of each class the training images: two classes in grey, 30 in colour; long and odd names
FOLDERS = {
    "two": ({"no": 6, "yes $x$": 3}, 1),
    "thirty": ({f"a class with a rather long name {k}": 1 + k % 5 for k in range(30)}, 3),
}
TESTS, SIDE = 2, 16
SHARED = {
    "preset": "smoke",
    "method": "idc",
    "ipc": 1,
    "factor": 1,  # one image is enough
    "width": 4,
    "epochs": 1,
    "outer_loops": 1,
    "inner_loops": 1,
}
STUDY = {"dynamics": 1, "seeds": 1, "ipc_to": 1}
NOTEBOOKS = {
    "01": {"compare_seconds": 0.01},
    "02": {},
    "03": {"ipc_to": 1},
    "04": STUDY,
    "05": {**STUDY, "methods": "random,yoco", "compare": "idc", "networks": "convnet-d1-w4"},
    "06": {**STUDY, "methods": "random,yoco"},
    "07": {},
}


def written(root: Path, counts: dict[str, int], channels: int) -> str:
    """A folder of noise, each class of a colour of its own; returns the dataset's name."""
    source = np.random.default_rng(0)
    for name, count in counts.items():
        tone = source.integers(30, 225, channels)
        for split, images in (("train", count), ("test", TESTS)):
            (root / split / name).mkdir(parents=True)
            for number in range(images):
                noise = source.normal(tone, 40, (SIDE, SIDE, channels)).clip(0, 255)
                picture = Image.fromarray(noise.astype(np.uint8).squeeze())
                picture.save(root / split / name / f"{number}.png")
    return f"folder:{root}"


@pytest.mark.slow
@pytest.mark.parametrize("kind", FOLDERS)
def test_every_notebook_runs_on_it(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("YOCO_RUNS", str(tmp_path / "runs"))
    dataset = written(tmp_path / kind, *FOLDERS[kind])
    for notebook, own in NOTEBOOKS.items():
        told = {"dataset": dataset, **SHARED, **own}
        options = [part for name, value in told.items() for part in ("-p", name, str(value))]
        assert cli.main(["run", notebook, *options]) == 0, capsys.readouterr().err
