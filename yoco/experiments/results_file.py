"""The file of a study's results: one row per training run, appended when it ends.

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
from yoco.utils import digests, tensor_files
from yoco.utils.lazy import pd

# what identifies a cell of a grid
CELL = ["condensation", "method", "keep", "balanced", "ipc_to", "dynamics", "seed", "epochs"]
# settings of the condensation, and of the training
SETTINGS = ["preset", "model", "width", *BEFORE, "precision"]
COLUMNS = [*CELL, "fingerprint", *SETTINGS, "accuracy"]
DATA = "tested_on"  # digests of what the network was tested on, by part
STORED = [*COLUMNS, DATA]
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
        added = (*BEFORE, DATA)
        columns = [name for name in STORED if name in text.columns or name not in added]
        if missing := set(columns) - set(text.columns):
            raise ValueError(f"it lacks the columns {', '.join(sorted(missing))}")
        if CHECK not in text.columns:
            raise ValueError(
                f"it lacks the column {CHECK}, whose checksums show whether a number was changed"
            )
        written = [row[CHECK] == _check(row, columns) for row in text.to_dict("records")]
        if not all(written):
            raise ValueError(
                f"row {written.index(False) + 1} was changed since it was written; remove the row "
                "to train it again"
            )
        text = text.assign(
            **{name: old for name, old in {**BEFORE, DATA: ""}.items() if name not in text.columns}
        )
        table = text[STORED].astype(
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
                f"the last line of {results} is incomplete and is dropped; its training run is "
                "repeated"
            ),
            stacklevel=3,
        )
    return complete.decode() + "\n"


def told(parts: Mapping[str, str]) -> str:
    """Return digests by part as the text of a row: "test images=0123456789abcdef; …"."""
    return "; ".join(f"{part}={digest}" for part, digest in parts.items())


def check_data(
    results: str | Path | None, rows: Mapping[str, Mapping[str, Any]], now: Mapping[str, str]
) -> None:
    """Check that rows come from networks tested on the same data as now.

    Args:
        results: the file, for messages.
        rows: its rows by fingerprint.
        now: the current text of `told` for each wanted row, by fingerprint.

    Raises:
        ValueError: as `digests.check`, which only warns about rows of the previous version.
    """
    parts = lambda told: dict(part.split("=") for part in told.split("; ")) if told else None
    for stored, own in {(rows[name][DATA], text) for name, text in now.items() if name in rows}:
        digests.check(f"a row of {results}", parts(stored), parts(own) or {})


def write_results(results: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace the file by these rows, whole or not at all."""
    tensor_files.write_text(results, ",".join([*STORED, CHECK]) + "\n" + _lines(rows))


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
    texts = [{name: "" if row[name] is None else str(row[name]) for name in STORED} for row in rows]
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerows([*text.values(), _check(text, STORED)] for text in texts)
    return lines.getvalue()


def _check(row: Mapping[str, str], columns: Sequence[str]) -> str:
    """Return 8 hexadecimal digits of the SHA-256 of a row's text."""
    return hashlib.sha256("|".join(row[name] for name in columns).encode()).hexdigest()[:8]
