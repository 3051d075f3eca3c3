"""The file of a study's results: one row per finished training, each with a checksum."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yoco.training.network import BEFORE
from yoco.utils import tensor_files
from yoco.utils.lazy import pd

CELL = ["condensation", "method", "keep", "balanced", "ipc_to", "dynamics", "seed", "epochs"]  # what a cell of a grid is
SETTINGS = ["preset", "model", "width", *BEFORE, "precision"]  # of the condensation; of the training
COLUMNS = [*CELL, "fingerprint", *SETTINGS, "accuracy"]
CHECK = "check"  # of a row in a file of results: a checksum of what it says


def read_results(results: str | Path | None) -> dict[str, dict[str, Any]]:
    """The rows of a file of results by fingerprint."""
    if results is None or not Path(results).exists():
        return {}
    try:
        text = pd.read_csv(results, dtype=str, keep_default_na=False)
        columns = [name for name in COLUMNS if name in text.columns or name not in BEFORE]  # older files lack these
        if missing := set(columns) - set(text.columns):
            raise ValueError(f"it lacks the columns {', '.join(sorted(missing))}")
        if CHECK in text.columns and (altered := [n for n, row in enumerate(text.to_dict("records"), 1) if row[CHECK] != _check(row, columns)]):
            raise ValueError(f"row {altered[0]} was altered since it was written; remove the row, and it is trained again")
        text = text.assign(**{name: before for name, before in BEFORE.items() if name not in text.columns})
        table = text[COLUMNS].astype({"ipc_to": int, "dynamics": int, "seed": int, "epochs": int, "accuracy": float})
        table["balanced"] = table["balanced"].map({"True": True, "False": False})
        if not table["accuracy"].between(0, 100).all() or table["balanced"].isna().any():
            raise ValueError("accuracy must lie in 0..100 and balanced be True or False in every row")
    except ValueError as error:
        raise ValueError(f"{results} is no table of results: {error}") from error
    return {row["fingerprint"]: row for row in table.to_dict("records")}


def write_results(results: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows as CSV, each with its checksum."""
    table = pd.DataFrame(rows, columns=COLUMNS)
    text = pd.read_csv(io.StringIO(table.to_csv(index=False)), dtype=str, keep_default_na=False)  # as it will be read
    table[CHECK] = [_check(row, COLUMNS) for row in text.to_dict("records")]
    tensor_files.write_text(results, table.to_csv(index=False))


def _check(row: Mapping[str, str], columns: Sequence[str]) -> str:
    """8 hexadecimal digits of a row's text."""
    return hashlib.sha256("|".join(row[name] for name in columns).encode()).hexdigest()[:8]
