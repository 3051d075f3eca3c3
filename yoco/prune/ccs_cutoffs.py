"""The share of hardest images that CCS drops: the paper's table, and its row that is nearest where
it has none.
"""

from __future__ import annotations

from importlib.resources import files

from yoco.utils.lazy import pd

DATASETS = {"cifar10": 10, "cifar100": 100, "imagenet10": 10}  # number of classes


def paper_table(name: str) -> pd.DataFrame:
    """One of the package's CSV files with the paper's numbers."""
    with files("yoco").joinpath("paper_tables", name).open() as file:
        return pd.read_csv(file)


def ccs_cutoffs() -> pd.DataFrame:
    """The shares of hardest images that CCS drops: dataset, ipc_from, ipc_to, hard_cutoff
    (0..1).
    """
    return paper_table("ccs_cutoff.csv")


def dataset_of(name: str, classes: int) -> str | None:
    """The paper's dataset behind a dataset's name ("cifar10", "folder:cifar10-jpeg"), or None if it
    is none of them.
    """
    stem = name.removeprefix("folder:").split("-")[0]
    return stem if DATASETS.get(stem) == classes else None


def most_like(classes: int, size: int) -> str:
    """The paper's dataset whose settings fit data that it has not: by the size of the images, then
    by the number of classes.
    """
    return "imagenet10" if size >= 64 else "cifar100" if classes >= 100 else "cifar10"


def hard_cutoff(dataset: str, ipc_from: int, ipc_to: int) -> float:
    """CCS's cutoff for a budget: the paper's where it has one, else that of the dataset's row
    nearest in ipc_to / ipc_from.
    """
    table = ccs_cutoffs()
    rows = table[table.dataset == dataset]
    exact = rows[(rows.ipc_from == ipc_from) & (rows.ipc_to == ipc_to)]
    if len(exact):
        return float(exact.hard_cutoff.iloc[0])
    distance = (rows.ipc_to / rows.ipc_from - ipc_to / ipc_from).abs()
    return float(rows.hard_cutoff.loc[distance.idxmin()])
