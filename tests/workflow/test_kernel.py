"""The kernel of a run that was killed ends, also if it had only begun to start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import HUNG
from yoco.workflow import kernel
from yoco.workflow.execution import KERNEL


def test_a_kernel_of_a_run_killed_early_ends(tmp_path):
    """Neither process 1 nor the killed run is its parent: what a subreaper leaves."""
    killed = subprocess.Popen(["true"])
    killed.wait()
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", tmp_path / "connection.json"]
    done = subprocess.run(
        [*command, *KERNEL],
        env={**os.environ, "JPY_PARENT_PID": str(killed.pid)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        timeout=HUNG,
        text=True,
    )
    assert done.returncode == 1 and "Error" not in done.stderr, done.stderr


def test_nothing_is_watched_without_a_starter(monkeypatch):
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    monkeypatch.setattr(kernel.threading, "Thread", lambda *_, **__: pytest.fail("watched"))
    kernel.load_ipython_extension(None)
