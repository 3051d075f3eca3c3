"""Results are appended in linear time, and a changed number is noticed.

An incomplete line costs only its own training.
"""

import os
import sys
import warnings
from pathlib import Path

import pandas as pd
import pytest

from yoco.experiments import results_file, study

FAST = {
    "methods": ["random"],
    "ipc_to": [1],
    "epochs": 1,
    "width": 4,
    "precision": "float32",
    "progress": False,
    "jobs": 1,
}


@pytest.fixture
def trained(monkeypatch):
    """The seeds of the trainings that are done.

    Each gives an accuracy immediately, the last one first.
    """
    seeds = []

    def accuracies(work, data, *, only, **options):
        for number in reversed(only):
            seeds.append(work[number].seed)
            yield number, work[number].seed / 64

    monkeypatch.setattr(study, "accuracies", accuracies)
    return seeds


def run(toy, toy_set, path, seeds, **options):
    return study.run(toy_set, toy, [None], results=path, seeds=seeds, **FAST, **options)


def written_bytes():
    """Bytes that this process has written so far."""
    return int(Path("/proc/self/io").read_text().split("wchar:")[1].split()[0])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="bytes are read from /proc")
def test_rows_are_appended(toy, toy_set, tmp_path, monkeypatch, trained):
    """2,000 rows cost a few times their own bytes.

    Each is on disk before the next training, and the final file is in order.
    """
    path, flushed = tmp_path / "r.csv", []
    monkeypatch.setattr(
        os, "fsync", lambda handle: flushed.append(path.exists() and path.stat().st_size)
    )
    before = written_bytes()
    table = run(toy, toy_set, path, range(2000))
    written = written_bytes() - before
    assert written < 3 * path.stat().st_size + 50_000 and len(flushed) >= 2000
    rows = pd.read_csv(path)
    assert (
        rows.seed.tolist() == list(range(2000)) == table.seed.tolist()
        and trained == list(range(2000))[::-1]
    )
    assert rows.accuracy.tolist() == table.accuracy.tolist()


def test_a_killed_study_keeps_its_rows_except_a_torn_line(toy, toy_set, tmp_path, trained):
    path = tmp_path / "r.csv"
    run(toy, toy_set, path, range(4))
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    trained.clear()
    with pytest.warns(UserWarning, match="the last line of .*r.csv is incomplete and is dropped"):
        run(toy, toy_set, path, range(4))
    assert trained == [3] and path.read_bytes() == whole
    # killed at any byte: what is read was written, and all else is an error that names the file
    for size in range(0, len(whole), 9):
        path.write_bytes(whole[:size])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                rows = results_file.read_results(path)
            assert len(rows) == max(0, whole[:size].count(b"\n") - 1) and [
                row["seed"] for row in rows.values()
            ] == list(range(len(rows)))
        except ValueError as error:
            assert b"\n" not in whole[:size] and "r.csv is not a valid results file" in str(error)


def test_a_stopped_study_keeps_rows_that_the_next_sorts(
    toy, toy_set, tmp_path, trained, monkeypatch
):
    path, accuracies = tmp_path / "r.csv", study.accuracies
    run(toy, toy_set, path, [7])

    def stopped(*arguments, **options):
        for count, found in enumerate(accuracies(*arguments, **options)):
            if count == 2:
                raise KeyboardInterrupt
            yield found

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(study, "accuracies", stopped)
        run(toy, toy_set, path, range(4))
    assert pd.read_csv(path).seed.tolist() == [7, 3, 2]
    trained.clear()
    run(toy, toy_set, path, range(4))
    assert trained == [1, 0] and pd.read_csv(path).seed.tolist() == [7, 0, 1, 2, 3]
    before = path.stat().st_mtime_ns
    run(toy, toy_set, path, range(4))
    assert path.stat().st_mtime_ns == before


def test_an_altered_number_is_noticed(toy, toy_set, tmp_path, trained):
    path = tmp_path / "r.csv"
    run(toy, toy_set, path, range(2, 4))
    text = path.read_text()
    for old, new in ((",0.0469,", ",99.5,"), (",random,", ",yoco,")):
        assert old in text
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(
            ValueError,
            match="r.csv is not a valid results file: row [12] was changed since it was written",
        ):
            run(toy, toy_set, path, [0])
    without = [line.rsplit(",", 1)[0] for line in text.splitlines()]
    path.write_text("\n".join(without) + "\n")
    with pytest.raises(
        ValueError, match="r.csv is not a valid results file: it lacks the column check"
    ):
        run(toy, toy_set, path, [0])
    # nor without the columns that files of version 0.1 lack
    older = pd.read_csv(path).drop(columns=["last_batch", "augmentation", "tested_on"])
    older.to_csv(path, index=False)
    with pytest.raises(ValueError, match="it lacks the column check"):
        results_file.read_results(path)


def test_a_file_that_cannot_be_appended_to_is_said(tmp_path):
    row = dict.fromkeys(results_file.STORED, 1)
    with pytest.raises(FileNotFoundError, match="cannot write .*gone/r.csv: No such file"):
        results_file.append_result(tmp_path / "gone/r.csv", row)
