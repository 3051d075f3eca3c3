"""Runs the notebooks and stores them small: no widget state, small pictures, no times.

    make notebooks        # or: python -m tools.notebooks [NAME …]

Each runs by its defaults in notebooks/, with $YOCO_RUNS as the folder of its runs.
"""

import base64
import io
import json
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

from yoco.workflow.execution import KERNEL
from yoco.workflow.notebooks import names
from yoco.workflow.stills import PICTURE, without_widgets

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
COLOURS = 128  # of a stored picture
MOST_BYTES = 500_000  # of a stored notebook


def executed(path: Path) -> str:
    """Run a notebook and return its text with the outputs."""
    notebook = nbformat.read(path, 4)
    NotebookClient(
        notebook,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        extra_arguments=KERNEL,
        store_widget_state=False,
        shutdown_kernel="immediate",
        record_timing=False,
    ).execute()
    return nbformat.writes(notebook)


def slim(text: str) -> str:
    """A notebook's text without widgets, and with pictures of few colours."""
    content = json.loads(without_widgets(text))
    content["metadata"]["language_info"] = {"name": "python"}  # else it names the Python version
    for cell in content["cells"]:
        for kept in ("execution", "papermill"):
            cell["metadata"].pop(kept, None)
        for output in cell.get("outputs", []):
            data: dict[str, Any] = output.get("data", {})
            if PICTURE in data:
                data[PICTURE] = _smaller(data[PICTURE])
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _smaller(picture: str) -> str:
    """A PNG file in base64 with a palette of `COLOURS`, if it has none and gets smaller by it."""
    with Image.open(io.BytesIO(base64.b64decode(picture))) as opened:
        if opened.mode == "P":
            return picture
        # of Pillow's ways this one keeps both the faded and the strong colours
        few = opened.convert("RGB").quantize(
            COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE
        )
    buffer = io.BytesIO()
    few.save(buffer, "PNG", optimize=True)
    return min(picture, base64.b64encode(buffer.getvalue()).decode(), key=len)


if __name__ == "__main__":
    for name in sys.argv[1:] or names():
        path = FOLDER / f"{name}.ipynb"
        path.write_text(slim(executed(path)), encoding="utf-8")
        print(f"{name}: {path.stat().st_size / 1000:.0f} kB", flush=True)
