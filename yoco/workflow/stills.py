"""Executed notebooks without widgets: a still picture and its caption stand in their place."""

import json
from typing import Any

WIDGET = "application/vnd.jupyter.widget-view+json"
PICTURE = "image/png"


def without_widgets(notebook: str) -> str:
    """Return a notebook's file with its widgets replaced by their pictures.

    A stored widget needs a kernel to be drawn: without one, GitHub, documentation sites and
    nbconvert show an error or nothing in its place. Widgets without a picture (progress bars) are
    removed, and so is the state of all widgets.

    Args:
        notebook: the text of an .ipynb file.

    Returns:
        The text of the new file.
    """
    content = json.loads(notebook)
    content["metadata"].pop("widgets", None)
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = [new for output in cell["outputs"] for new in _still(output)]
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _still(output: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what takes an output's place: the output itself, unless it is a widget."""
    data = output.get("data", {})
    if WIDGET not in data:
        return [output]
    if PICTURE not in data:
        return []
    caption = "".join(data["text/plain"])
    words = {"text/markdown": f"*{caption}*", "text/plain": caption}
    return [
        {**output, "data": {name: data[name] for name in data if name != WIDGET}},
        {"output_type": "display_data", "metadata": {}, "data": words},
    ]
