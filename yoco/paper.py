"""The paper's own numbers, as tables: Table 2 and the cutoffs of CCS (read from the package's CSV files)."""

from __future__ import annotations

from importlib.resources import files

from yoco.lazy import pd

DATASETS = {"cifar10": 10, "cifar100": 100, "imagenet10": 10}  # number of classes


def _table(name: str) -> pd.DataFrame:
    with files("yoco").joinpath("paper_tables", name).open() as file:
        return pd.read_csv(file)


def table2() -> pd.DataFrame:
    """Table 2 (appendix B.2): dataset, ipc_from, accuracy_at_ipc_from, ipc_to, method, accuracy_mean, accuracy_std (in %).

    Methods "idc" and "dream" are sets condensed so and pruned at random.
    """
    return _table("table2.csv")


def ccs_cutoffs() -> pd.DataFrame:
    """The shares of hardest images that CCS drops: dataset, ipc_from, ipc_to, hard_cutoff (0..1)."""
    return _table("ccs_cutoff.csv")


def dataset_of(name: str, classes: int) -> str | None:
    """The paper's dataset behind a dataset's name ("cifar10", "folder:cifar10-jpeg"), or None where it is none of them."""
    stem = name.removeprefix("folder:").split("-")[0]
    return stem if DATASETS.get(stem) == classes else None


def most_like(classes: int, size: int) -> str:
    """The paper's dataset whose settings fit data that it has not: by the size of the images, then by the number of classes."""
    return "imagenet10" if size >= 64 else "cifar100" if classes >= 100 else "cifar10"


def hard_cutoff(dataset: str, ipc_from: int, ipc_to: int) -> float:
    """CCS's cutoff for a budget: the paper's where it has one, else that of the dataset's row nearest in ipc_to / ipc_from."""
    table = ccs_cutoffs()
    rows = table[table.dataset == dataset]
    exact = rows[(rows.ipc_from == ipc_from) & (rows.ipc_to == ipc_to)]
    if len(exact):
        return float(exact.hard_cutoff.iloc[0])
    distance = (rows.ipc_to / rows.ipc_from - ipc_to / ipc_from).abs()
    return float(rows.hard_cutoff.loc[distance.idxmin()])


def beside(dataset: str | None, ipc_from: int) -> pd.DataFrame | None:
    """Table 2's rows for one dataset and IPC_F with columns method, ipc_to, mean, std; None where the paper has none.

    Random selection from the IDC set, the paper's column "idc", is called "random" as in `prune.METHODS`.
    """
    table = table2()
    rows = table[(table.dataset == dataset) & (table.ipc_from == ipc_from)]
    if rows.empty:
        return None
    renamed = rows.replace({"method": {"idc": "random"}}).rename(columns={"accuracy_mean": "mean", "accuracy_std": "std"})
    return renamed[["method", "ipc_to", "mean", "std"]].reset_index(drop=True)
