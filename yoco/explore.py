"""Widgets for a notebook (ipywidgets): browse the formed images of a condensed set by class and score."""

import io

import ipywidgets as widgets
import pandas as pd
import torch
from PIL import Image
from torchvision.utils import make_grid

from yoco import checks
from yoco.condensed import CondensedSet

COLUMNS, SHOWN, SIDE = 10, 40, 64  # images a row, images at most, pixels an image


def browse(condensed: CondensedSet, table: pd.DataFrame, *, score: str = "lbpe") -> widgets.VBox:
    """A browser of the formed images: choose a class, a score and an order; the picture and its numbers follow.

    table: of `prune.score_table`. Returns the widget; a viewer without widgets shows nothing of it. Raises ValueError at
    an unknown score.
    """
    names = [column for column in table.columns if column not in ("index", "label", "class")]
    checks.one_of("score", score, names)
    formed, _ = condensed.form()
    by_class = widgets.Dropdown(options=["all", *condensed.classes], description="class")
    by_score = widgets.Dropdown(options=names, value=score, description="score")
    order = widgets.Dropdown(options=["lowest first", "highest first"], description="order")
    picture, numbers = widgets.Image(format="png"), widgets.HTML()

    def update(_: object = None) -> None:
        rows = table if by_class.value == "all" else table[table["class"] == by_class.value]
        rows = rows.sort_values(by_score.value, ascending=order.value == "lowest first", kind="stable").head(SHOWN)
        picture.value = png(formed[rows["index"].tolist()])
        values = ", ".join(f"{value:.3g}" for value in rows[by_score.value].head(COLUMNS))
        numbers.value = f"{len(rows)} formed images, row after row; {by_score.value} of the first row: {values}"

    for control in (by_class, by_score, order):
        control.observe(update, "value")
    update()
    return widgets.VBox([widgets.HBox([by_class, by_score, order]), picture, numbers])


def png(images: torch.Tensor) -> bytes:
    """A grid of images [N, C, S, S] in 0..1 as a PNG file, pixels enlarged without smoothing."""
    scale = max(1, SIDE // images.shape[-1])
    large = images.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    grid = (make_grid(large, nrow=COLUMNS, padding=2, pad_value=1.0) * 255).round().to(torch.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grid.permute(1, 2, 0).numpy()).save(buffer, "PNG")
    return buffer.getvalue()
