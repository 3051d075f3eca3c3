"""The share of hardest images that CCS drops: the paper's table, or its nearest row."""

from __future__ import annotations

from importlib.resources import files

from yoco.utils.lazy import pd

DATASETS = {"cifar10": 10, "cifar100": 100, "imagenet10": 10}  # number of classes


def paper_table(name: str) -> pd.DataFrame:
    """Return one of the package's CSV files with the paper's numbers."""
    with files("yoco").joinpath("paper_tables", name).open() as file:
        return pd.read_csv(file)


def ccs_cutoffs() -> pd.DataFrame:
    """Return the shares of hardest images that CCS drops.

    Columns: dataset, ipc_from, ipc_to, hard_cutoff (0..1).
    """
    return paper_table("ccs_cutoff.csv")


def dataset_of(name: str, classes: int) -> str | None:
    """Return the paper's dataset that a name stands for ("folder:cifar10-jpeg"), or None."""
    stem = name.removeprefix("folder:").split("-")[0]
    return stem if DATASETS.get(stem) == classes else None


def most_like(classes: int, size: int) -> str:
    """Return the paper's dataset closest to one that it does not cover.

    The size of the images decides first, then the number of classes.
    """
    return "imagenet10" if size >= 64 else "cifar100" if classes >= 100 else "cifar10"


def hard_cutoff(dataset: str, ipc_from: int, ipc_to: int) -> float:
    """Return CCS's cutoff for a budget from the paper's table.

    For a budget that it lacks, the dataset's row with the nearest ipc_to / ipc_from is taken.
    """
    table = ccs_cutoffs()
    rows = table[table.dataset == dataset]
    exact = rows[(rows.ipc_from == ipc_from) & (rows.ipc_to == ipc_to)]
    if len(exact):
        return float(exact.hard_cutoff.iloc[0])
    distance = (rows.ipc_to / rows.ipc_from - ipc_to / ipc_from).abs()
    return float(rows.hard_cutoff.loc[distance.idxmin()])
