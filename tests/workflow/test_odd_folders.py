"""Every notebook with parameters, on small odd folders of images."""

from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

from tests.conftest import HUNG
from yoco.workflow import notebooks
from yoco.workflow.execution import KERNEL

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
STUDY = {"dynamics": 1, "seeds": 1, "ipc_to": [1]}
NOTEBOOKS = {
    "01_condensation": {"compare_seconds": 0.01},
    "02_scores": {},
    "03_class_balance": {"ipc_to": [1]},
    "04_pruning": STUDY,
    "05_ablations": {
        **STUDY,
        "methods": ["random", "yoco"],
        "compare": ["idc"],
        "networks": ["convnet-d1-w4"],
    },
    "06_noise": {**STUDY, "methods": ["random", "yoco"]},
    "07_gallery": {},
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


def joined(dataset: str) -> nbformat.NotebookNode:
    """All notebooks one after another, each with its parameters: they share a kernel's start."""
    cells = []
    for notebook, own in NOTEBOOKS.items():
        values = {"dataset": dataset, **SHARED, **own}.items()
        cells.append(nbformat.v4.new_code_cell("%reset -f"))
        for cell in nbformat.read(notebooks.find(notebook), as_version=4).cells:
            cells.append(cell)
            if "parameters" in cell.metadata.get("tags", ()):
                lines = [f"{name} = {value!r}" for name, value in values]
                given = "\n".join(["# Parameters", *lines])  # as papermill writes them
                cells.append(nbformat.v4.new_code_cell(given))
    return nbformat.v4.new_notebook(cells=cells)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FOLDERS)
def test_every_notebook_runs_on_it(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("YOCO_RUNS", str(tmp_path / "runs"))
    notebook = joined(written(tmp_path / kind, *FOLDERS[kind]))
    NotebookClient(notebook, timeout=HUNG, kernel_name="python3", extra_arguments=KERNEL).execute()
