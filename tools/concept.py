"""The figure of docs/concepts.md: one condensation per budget against one for all budgets.

python -m tools.concept        # figures/concept.png
"""

from pathlib import Path

import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from yoco import formation, plots, prune, zoo
from yoco.plots import style
from yoco.sets import CondensedSet

CLASSES = 5  # rows of each set that is shown
HEIGHT = 1.4  # of a set
BUDGETS = {5: 1.9, 2: 0.0, 1: -1.9}  # IPC, and the middle of its set
CONDENSE, PRUNE = plots.DROPPED, plots.KEPT  # colours of arrows


def mosaic(
    condensed: CondensedSet, kept: Int[Tensor, " cells"], per_class: int
) -> Float[Tensor, "height width 3"]:
    """Return the kept cells of the first classes, packed into `per_class` condensed images each.

    There is one row per class.
    """
    cells, factor = formation.cells(condensed.images, condensed.factor), condensed.factor
    rows = []
    for label in range(CLASSES):
        members = cells[kept[condensed.formed_labels[kept] == label]]
        side = members.shape[-1]
        grid = members.view(per_class, factor, factor, 3, side, side)
        rows.append(grid.permute(1, 4, 0, 2, 5, 3).reshape(factor * side, -1, 3))
    return torch.cat(rows)


def place(
    ax: Axes, picture: Float[Tensor, "height width 3"], left: float, middle: float, ipc: int
) -> None:
    """Draw a set with its left side at `left`, and its budget below."""
    width = HEIGHT * picture.shape[1] / picture.shape[0]
    bottom, top = middle - HEIGHT / 2, middle + HEIGHT / 2
    ax.imshow(picture.numpy(), extent=(left, left + width, bottom, top))
    ax.text(left + width / 2, bottom - 0.08, f"IPC {ipc}", ha="center", va="top", size="small")


def arrow(
    ax: Axes, start: tuple[float, float], end: tuple[float, float], colour: str, text: str = ""
) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2})
    middle = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.12
    ax.text(*middle, text, ha="center", va="bottom", color=colour, size="small")


def real_images(ax: Axes, left: float) -> None:
    for shift in (0.2, 0.1, 0.0):
        corner = (left + shift, shift - 0.7)
        ax.add_patch(Rectangle(corner, 1.4, 1.4, facecolor="#f4f4f4", edgecolor="#666666"))
    ax.text(left + 0.7, 0, "real\nimages", ha="center", va="center", size="small")


def draw() -> Axes:
    condensed = zoo.load("cifar10-idc-ipc10")
    dynamics = zoo.load_dynamics("cifar10-idc-ipc10")
    ax = style.axes(11, 4.1)
    real_images(ax, 0)
    ax.text(0, 3.15, "A condensation for each budget", weight="bold")
    for budget, middle in BUDGETS.items():
        arrow(ax, (1.8, middle * 0.2), (3.7, middle), CONDENSE, "" if middle else "hours each")
        chance = prune.prune(condensed, None, "random", budget, balanced=True, seed=budget)
        place(ax, mosaic(condensed, chance.indices, budget), 3.8, middle, budget)

    shifted = 7.2
    ax.text(shifted, 3.15, "YOCO: condense once, prune for each budget", weight="bold")
    real_images(ax, shifted)
    arrow(ax, (shifted + 1.8, 0), (shifted + 3.7, 0), CONDENSE, "hours, once")
    place(
        ax, mosaic(condensed, torch.arange(len(condensed.formed_labels)), 10), shifted + 3.8, 0, 10
    )
    for budget, middle in BUDGETS.items():
        end = (shifted + 8.9, middle)
        arrow(ax, (shifted + 6.8, middle * 0.2), end, PRUNE, "" if middle else "seconds each")
        kept = prune.prune(condensed, dynamics, "yoco", budget)
        place(ax, mosaic(condensed, kept.indices, budget), shifted + 9.0, middle, budget)
    ax.set(xlim=(-0.1, shifted + 10.6), ylim=(-3.1, 3.6), aspect="equal")
    ax.axis("off")
    return ax


if __name__ == "__main__":
    plots.use_style()
    plots.save(draw(), Path("figures/concept.png"))
