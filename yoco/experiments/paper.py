"""The paper's own numbers as tables, read from the package's CSV files."""

from __future__ import annotations

from yoco.prune.ccs_cutoffs import paper_table
from yoco.utils.lazy import pd


def table2() -> pd.DataFrame:
    """Return Table 2 (appendix B.2).

    Columns: dataset, ipc_from, accuracy_at_ipc_from, ipc_to, method, accuracy_mean, accuracy_std
    (in %). The methods "idc" and "dream" are random selections from sets condensed by these.
    """
    return paper_table("table2.csv")


def beside(dataset: str | None, ipc_from: int) -> pd.DataFrame | None:
    """Return Table 2's rows for one dataset and IPC_F; None if the paper has none.

    Columns: method, ipc_to, mean, std. The paper's column "idc", random selection from the IDC set,
    is called "random" as in `prune.METHODS`.
    """
    table = table2()
    rows = table[(table.dataset == dataset) & (table.ipc_from == ipc_from)]
    if rows.empty:
        return None
    renamed = rows.replace({"method": {"idc": "random"}}).rename(
        columns={"accuracy_mean": "mean", "accuracy_std": "std"}
    )
    return renamed[["method", "ipc_to", "mean", "std"]].reset_index(drop=True)
