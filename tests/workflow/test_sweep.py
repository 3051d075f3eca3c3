"""Sweeps: a grid of notebooks, one folder per point; finished points are not run again."""

import json
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch

from yoco import cli
from yoco.utils import device, owned
from yoco.workflow import sweep

PARAMETERS = 'seed = 0\nmethod = "idc"\nipc_to = [1]\nrun_dir = None'
# what it does is in its log; `$OUT/once`: the first point kills the process that runs it;
# `$OUT/bad`: seed 1 fails
WORK = """
import os, pathlib, signal, time
run = pathlib.Path(run_dir)
with open(run.parent / "log", "a") as log:
    log.write(f"{seed} {method} {ipc_to} {os.environ.get('OMP_NUM_THREADS')}\\n")
if (run.parent / "once").exists() and seed == 0:
    (run.parent / "once").unlink()
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
if (run.parent / "bad").exists() and seed == 1:
    raise ValueError("two lines,\\nthe last of which counts")
"""
TABLE = """
rows = f"yoco,{ipc_to[0]},{seed + 0.5}\\nrandom,{ipc_to[0]},0.25"
(run / "table.csv").write_text(f"method,ipc_to,mean\\n{rows}\\n")
"""


@pytest.fixture
def notebook(tmp_path):
    """A small stand-in for 04."""
    cells = [nbformat.v4.new_code_cell(source) for source in (PARAMETERS, WORK, TABLE)]
    cells[0].metadata.tags = ["parameters"]
    path = tmp_path / "04_pruning.ipynb"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


def log(out: Path) -> list[str]:
    return sorted((out / "log").read_text().splitlines())


def test_only_a_failed_point_runs_again(notebook, tmp_path, capsys):
    out = tmp_path / "out"
    (owned.claim(out) / "bad").touch()
    command = [
        "sweep",
        str(notebook),
        "-p",
        "seed",
        "1,0",
        "-p",
        "ipc_to",
        "2,5",
        "--out",
        str(out),
        "--jobs",
        "1",
    ]
    assert cli.main(command) == 1
    assert "yoco: failed: seed=1: ValueError: the last of which counts" in capsys.readouterr().err
    table = pd.read_csv(out / "sweep.csv")
    assert table.seed.tolist() == [1, 0, 0] and table.status.tolist() == ["failed", "done", "done"]
    assert (
        table.error[0] == "ValueError: the last of which counts"
        and "table_method" not in table.columns
    )
    assert (
        table.method.tolist()[1:] == ["yoco", "random"]
        and ",yoco,2,0.5\n" in (out / "sweep.csv").read_text()
    )
    (out / "bad").unlink()
    assert cli.main(command) == 0 and cli.main(command) == 0
    assert [line.split()[0] for line in log(out)] == ["0", "1", "1"], (
        "a finished point is not run again"
    )
    table = pd.read_csv(out / "sweep.csv")
    assert (
        set(table.status) == {"done"}
        and table["mean"].tolist() == [1.5, 0.25, 0.5, 0.25]
        and table.seconds.min() > 0
    )
    folders = [path for path in out.iterdir() if path.is_dir()]
    assert sorted(path.name.split("-")[0] for path in folders) == ["seed=0", "seed=1"]
    assert all((path / "04_pruning.ipynb").is_file() for path in folders)
    cut = folders[0] / "04_pruning.ipynb"  # as a run leaves it that was stopped in its last cell
    executed = json.loads(cut.read_text())
    executed["cells"][-1]["metadata"]["papermill"]["status"] = "pending"
    cut.write_text(json.dumps(executed))
    assert cli.main(command) == 0 and len(log(out)) == 4
    edited = nbformat.read(notebook, 4)
    edited.cells[1].source += "# edited"
    nbformat.write(edited, notebook)
    assert cli.main(command) == 0 and len(log(out)) == 6, "of another notebook now"


@pytest.mark.slow
def test_points_run_in_parallel_and_a_killed_one_again(notebook, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    out = tmp_path / "out"
    (owned.claim(out) / "once").touch()
    table = sweep.run(
        sweep.points([notebook], [("seed", "0,1"), ("method", "dream")], out), out, jobs=2
    )
    assert (
        table.status.tolist() == ["done"] * 4
        and table["mean"].tolist() == [0.5, 0.25, 1.5, 0.25]
        and list(table.columns[:1]) == ["seed"]
    )
    assert log(out) == ["0 dream [1] 1", "0 dream [1] 1", "1 dream [1] 1"]


def test_a_swept_parameter_keeps_its_name_in_the_table(tmp_path):
    grid = sweep.points([Path("04_pruning.ipynb")], [("method", "idc,dream")], tmp_path)
    grid[0].folder.mkdir()
    (grid[0].folder / "table.csv").write_text("method,ipc_to\nyoco,1\n")
    table = sweep._write(grid, [sweep.Outcome("done", 2.0), sweep.Outcome()], tmp_path)
    assert (
        table.method.tolist() == ["idc", "dream"]
        and table.table_method[0] == "yoco"
        and table.status[1] == "pending"
    )


def test_commas_part_values_and_semicolons_lists():
    given = [
        ("seed", "0, 1"),
        ("ipc_to", "1,2,5"),
        ("methods", "yoco,random;yoco;"),
        ("dataset", "folder:/a,b;"),
        ("also", ""),
    ]
    assert sweep.choices(["04_pruning"], given) == {
        "seed": ["0", "1"],
        "ipc_to": ["1,2,5"],
        "methods": ["yoco,random", "yoco"],
        "dataset": ["folder:/a,b"],
        "also": [""],
    }
    grid = sweep.points(
        [Path("x/01_condensation.ipynb"), Path("x/04_pruning.ipynb")],
        [("ipc_to", "1,2;3"), ("width", "none,8")],
        Path("/out"),
    )
    assert [str(point) for point in grid] == [
        "ipc_to=1,2, width=none",
        "ipc_to=1,2, width=8",
        "ipc_to=3, width=none",
        "ipc_to=3, width=8",
    ]
    first, second = grid[0].notebooks.values()
    assert first == {"width": None, "run_dir": str(grid[0].folder)} and second == {
        **first,
        "ipc_to": [1, 2],
    }
    assert (
        grid[1].folder.name.startswith("ipc_to=1-2,width=8-")
        and len({point.folder for point in grid}) == 4
    )


@pytest.mark.parametrize(
    "arguments, error",
    [
        (["04", "-p", "sed", "1,2"], "parameter='sed' is unknown (did you mean 'seed'?)"),
        (["04", "-p", "seed", "1,many"], "seed='many'"),
        (["04", "-p", "seed", "1,1"], "points of the grid must all differ"),
        (
            ["04", "-p", "seed", "1", "-p", "seed", "2"],
            ("parameters must all differ, got 'seed' more than once"),
        ),
        (
            ["04", "-p", "run_dir", "x"],
            ("parameter run_dir: each point of a sweep has a folder of its own"),
        ),
        (["04", "-p", "ipc_to", "1,2;2,2"], "they must all differ, got 2 more than once"),
        (["04_prunig.ipynb"], "notebook='04_prunig' is unknown (did you mean '04_pruning'?)"),
        (
            ["04", "--folder", "nowhere"],
            "no 04_pruning.ipynb in nowhere; give its folder with --folder",
        ),
        (["04", "--jobs", "0"], "jobs must be at least 1, got 0"),
        (
            ["04", "--backend", "dask"],
            ("--backend dask was removed; on a cluster, call yoco.workflow.sweep.run"),
        ),
    ],
)
def test_bad_sweeps_are_one_line_and_status_2_before_any_work(arguments, error, tmp_path, capsys):
    assert cli.main(["sweep", *arguments, "--out", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert (
        error in captured.err
        and len(captured.err.splitlines()) == 1
        and not (tmp_path / "out").exists()
    )


def test_a_kernel_sees_its_worker_s_gpu(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert device.environment(torch.device("cpu")) == device.environment(torch.device("cuda")) == {}
    assert device.environment(torch.device("cuda", 1)) == {"CUDA_VISIBLE_DEVICES": "1"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert device.environment(torch.device("cuda", 1)) == {"CUDA_VISIBLE_DEVICES": "6"}
