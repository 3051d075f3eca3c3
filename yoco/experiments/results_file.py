"""The file of a study's results: one row per training, appended when it finishes.

Each row has a checksum.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from yoco.training.protocol import BEFORE
from yoco.utils import tensor_files
from yoco.utils.lazy import pd

# what identifies a cell of a grid
CELL = ["condensation", "method", "keep", "balanced", "ipc_to", "dynamics", "seed", "epochs"]
# settings of the condensation, and of the training
SETTINGS = ["preset", "model", "width", *BEFORE, "precision"]
COLUMNS = [*CELL, "fingerprint", *SETTINGS, "accuracy"]
CHECK = "check"  # column with the checksum of a row's text


def read_results(results: str | Path | None) -> dict[str, dict[str, Any]]:
    """Read the rows of a results file.

    Args:
        results: a CSV file; a missing one, or None, has no rows. An incomplete last line (the
            process was killed while appending it) is dropped with a warning. Files of version 0.1
            lack the columns in `BEFORE`.

    Returns:
        The rows by fingerprint.

    Raises:
        ValueError: if it is not a results file, a row was changed, or the checksums were removed.
    """
    if results is None or not Path(results).exists():
        return {}
    try:
        text = pd.read_csv(io.StringIO(_complete(Path(results))), dtype=str, keep_default_na=False)
        columns = [name for name in COLUMNS if name in text.columns or name not in BEFORE]
        if missing := set(columns) - set(text.columns):
            raise ValueError(f"it lacks the columns {', '.join(sorted(missing))}")
        # the columns in BEFORE came later than the checksums
        if CHECK not in text.columns and set(columns) & set(BEFORE):
            raise ValueError(
                f"it lacks the column {CHECK} that it was written with, which shows whether a "
                "number was changed"
            )
        if CHECK in text.columns and (
            altered := [
                n
                for n, row in enumerate(text.to_dict("records"), 1)
                if row[CHECK] != _check(row, columns)
            ]
        ):
            raise ValueError(
                f"row {altered[0]} was changed since it was written; remove the row to train it "
                "again"
            )
        text = text.assign(
            **{name: before for name, before in BEFORE.items() if name not in text.columns}
        )
        table = text[COLUMNS].astype(
            {"ipc_to": int, "dynamics": int, "seed": int, "epochs": int, "accuracy": float}
        )
        table["balanced"] = table["balanced"].map({"True": True, "False": False})
        if not table["accuracy"].between(0, 100).all() or table["balanced"].isna().any():
            raise ValueError(
                "accuracy must lie in 0..100 and balanced be True or False in every row"
            )
    except ValueError as error:
        raise ValueError(f"{results} is not a valid results file: {error}") from error
    return {row["fingerprint"]: row for row in table.to_dict("records")}


def _complete(results: Path) -> str:
    """Return the text of a file up to the end of its last complete line."""
    written = results.read_bytes()
    complete, newline, torn = written.rpartition(b"\n")
    if not newline:
        return written.decode()
    if torn:
        warnings.warn(
            (
                f"the last line of {results} is incomplete and is dropped; its training is done "
                "again"
            ),
            stacklevel=3,
        )
    return complete.decode() + "\n"


def write_results(results: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace the file by these rows, whole or not at all."""
    tensor_files.write_text(results, ",".join([*COLUMNS, CHECK]) + "\n" + _lines(rows))


def append_result(results: str | Path, row: Mapping[str, Any]) -> None:
    """Append a row in one write, and make sure that it is on disk.

    Raises OSError that names the file if that fails.
    """
    try:
        with open(results, "ab") as file:
            file.write(_lines([row]).encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise type(error)(error.errno, f"cannot write {results}: {error.strerror}") from error


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows as CSV, each with its checksum."""
    texts = [
        {name: "" if row[name] is None else str(row[name]) for name in COLUMNS} for row in rows
    ]
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerows([*text.values(), _check(text, COLUMNS)] for text in texts)
    return lines.getvalue()


def _check(row: Mapping[str, str], columns: Sequence[str]) -> str:
    """Return 8 hexadecimal digits of the SHA-256 of a row's text."""
    return hashlib.sha256("|".join(row[name] for name in columns).encode()).hexdigest()[:8]
