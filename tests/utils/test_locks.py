"""One run at a time on one file."""

import os
import sys
import threading
import time
import warnings

import pytest

from yoco.utils import locks


def test_a_lock_is_exclusive_and_leaves_no_file(tmp_path):
    path = tmp_path / "a/deep/x"
    with locks.hold(path):
        assert sorted(entry.name for entry in path.parent.iterdir()) == [".x.holder", ".x.lock"]
        said = (path.parent / ".x.holder").read_text()
        assert f"process {os.getpid()} on " in said and " since " in said
        for _ in range(2):  # being refused takes nothing from who holds it
            with pytest.raises(BlockingIOError, match=f"x is .*{os.getpid()}"), locks.hold(path):
                pytest.fail("both have it")
        with locks.hold(path.with_name("y")):
            pass
    assert not list(path.parent.iterdir())
    with locks.hold(path), locks.hold(None):
        pass


def test_an_error_inside_lets_it_go(tmp_path):
    with pytest.raises(KeyError), locks.hold(tmp_path / "x"):
        raise KeyError
    with locks.hold(tmp_path / "x"):
        pass
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_swept_by_the_next(tmp_path):
    left = [".x.abcdefgh.part", ".x.holder", "..x.holder.abcdefgh.part", ".x.lock"]
    for name in left:
        (tmp_path / name).write_text("process 1 on elsewhere")
    (tmp_path / ".y.abcdefgh.part").touch()
    with locks.hold(tmp_path / "x"):
        held = sorted(path.name for path in tmp_path.iterdir())
        assert held == [".x.holder", ".x.lock", ".y.abcdefgh.part"]
        assert "elsewhere" not in (tmp_path / ".x.holder").read_text()
    assert [path.name for path in tmp_path.iterdir()] == [".y.abcdefgh.part"]


def test_waiting_is_said_and_ends_when_the_other_is_done(tmp_path):
    path, order = tmp_path / "x", []
    begun, waiting = threading.Event(), threading.Event()

    def other():
        with locks.hold(path):
            begun.set()
            waiting.wait(60)
            time.sleep(0.1)  # long enough for who does not wait
            order.append("other")

    thread = threading.Thread(target=other)
    thread.start()
    begun.wait(60)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        real = warnings.warn
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(locks.warnings, "warn", lambda *a, **k: (real(*a, **k), waiting.set()))
            with locks.hold(path, wait=True):
                order.append("own")
    thread.join()
    assert order == ["other", "own"]
    [told] = said
    assert f"process {os.getpid()}" in str(told.message) and "waiting" in str(told.message)
    with warnings.catch_warnings():  # nobody has it: nothing is said
        warnings.simplefilter("error")
        with locks.hold(path, wait=True):
            pass


def test_a_holder_that_says_nothing_is_another_process(tmp_path):
    path = tmp_path / "x"
    with locks.hold(path):
        for change in ((tmp_path / ".x.holder").unlink, (tmp_path / ".x.holder").touch):
            change()
            with pytest.raises(BlockingIOError, match="another process"), locks.hold(path):
                pass


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot write .*file/x: "), locks.hold(tmp_path / "file/x"):
        pass


def test_a_holder_with_an_argument_that_is_no_text(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["yoco", "M\udcfcn"])
    again = locks.hold(tmp_path / "x")
    with locks.hold(tmp_path / "x"), pytest.raises(BlockingIOError, match=r"M\\udcfcn"), again:
        pass
