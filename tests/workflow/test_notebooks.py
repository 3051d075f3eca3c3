"""The shipped notebooks, and running one for the command line."""

import io
import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import NoSuchKernel

import yoco
from tests.conftest import until
from yoco import cli
from yoco.utils import interrupts, owned
from yoco.workflow import execution, notebooks, parameters, progress, stills

ROOT = Path(__file__).parents[2]
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def written(path: Path, *cells: str) -> Path:
    """A notebook of some cells: text if they begin with #, else code."""
    make = nbformat.v4
    made = [
        (make.new_markdown_cell if text.startswith("#") else make.new_code_cell)(text)
        for text in cells
    ]
    nbformat.write(make.new_notebook(cells=made, metadata={"kernelspec": KERNEL}), path)
    return path


def test_notebooks_are_copied_and_no_file_is_overwritten(tmp_path, capsys):
    own = tmp_path / "mine/02_scores.ipynb"
    own.parent.mkdir()
    own.write_text("my own")
    assert cli.main(["notebooks", str(own.parent)]) == 0
    printed = capsys.readouterr().out
    assert f"{own} exists, kept as it is" in printed and "jupyter lab" in printed
    assert own.read_text() == "my own"
    assert sorted(path.stem for path in own.parent.iterdir()) == notebooks.names()
    one = "01_condensation.ipynb"
    assert (own.parent / one).read_bytes() == (ROOT / "notebooks" / one).read_bytes()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert cli.main(["notebooks", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.startswith("yoco: ")


def test_the_folder_s_notebook_precedes_the_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert notebooks.find("04_pruning") == ROOT / "notebooks/04_pruning.ipynb"
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/04_pruning.ipynb").touch()
    assert notebooks.find("04_pruning") == Path("notebooks/04_pruning.ipynb")
    assert notebooks.find("05_ablations") == ROOT / "notebooks/05_ablations.ipynb"
    with pytest.raises(FileNotFoundError, match="no 05_ablations.ipynb in notebooks; .*--folder"):
        notebooks.find("05_ablations", Path("notebooks"))
    monkeypatch.chdir("notebooks")
    assert notebooks.find("04_pruning") == Path("04_pruning.ipynb")


def test_run_takes_a_file_too(tmp_path, monkeypatch):
    own, ran = written(tmp_path / "00_quickstart.ipynb", "1 + 1"), []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(execution, "run", lambda notebook, *_: ran.append(notebook))
    assert cli.main(["run", str(own)]) == cli.main(["run", "0"]) == 0
    assert ran == [own, ROOT / "notebooks/00_quickstart.ipynb"]


def test_the_folder_is_that_of_the_notebook_s_own_dataset(tmp_path, monkeypatch):
    source = (ROOT / "notebooks/02_scores.ipynb").read_text()
    own, outputs = tmp_path / "02_scores.ipynb", []
    own.write_text(source.replace("zoo:cifar10-idc-ipc10", "zoo:digits-idc-ipc10"))
    assert parameters.of_cell(own) == {
        "dataset": "zoo:digits-idc-ipc10",
        "seed": 0,
        "top_k": None,
        "within": None,
    }
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("YOCO_RUNS", raising=False)
    monkeypatch.setattr(execution, "run", lambda notebook, output, _: outputs.append(output))
    for given in ([], ["--run-dir", "mine"]):
        assert cli.main(["run", str(own), *given]) == 0
    assert [path.parent.name for path in outputs] == ["zoo-digits-idc-ipc10", "mine"]


def test_a_file_that_is_no_notebook_is_named(tmp_path):
    (tmp_path / "x.ipynb").write_text("{")
    with pytest.raises(ValueError, match="x.ipynb is not a notebook"):
        progress.Progress(tmp_path / "x.ipynb", io.StringIO())


def test_an_edited_copy_is_renamed_before_it_is_replaced(tmp_path, capsys):
    copy = written(tmp_path / "x.ipynb", "# Title", "1 + 1")
    copy.write_text(execution._finished(copy.read_text(), ""))
    for number in range(3):
        execution._keep_edited(copy)
        assert copy.exists() and not capsys.readouterr().out, "as it was made"
        content = json.loads(copy.read_text())
        content["cells"][1]["source"] = f"{number} + 1"
        content["cells"][1]["outputs"] = []
        copy.write_text(edited := json.dumps(content))
        execution._keep_edited(copy)
        kept = tmp_path / f"x.before-{number + 1}.ipynb"
        assert not copy.exists() and kept.read_text() == edited
        assert capsys.readouterr().out == (
            f"x.ipynb was edited or made by another program: it is {kept.name} now\n"
        )
        copy.write_text(execution._finished(edited, ""))
    copy.write_text(edited)
    execution._keep_edited(copy)
    assert not copy.exists() and len([*tmp_path.iterdir()]) == 4, "papermill itself made it"


def test_an_installed_package_has_them_inside(tmp_path, monkeypatch):
    inside = tmp_path / "yoco/notebooks"
    inside.mkdir(parents=True)
    monkeypatch.setattr(yoco, "__file__", str(inside.parent / "__init__.py"))
    assert notebooks.shipped() == inside


def test_a_failed_notebook_is_one_line_and_its_copy_has_the_rest(tmp_path, capfd):
    bad = written(
        tmp_path / "bad.ipynb", "# Bad", "x = 1", "## The sum", "raise ValueError('one\\ntwo')", "x"
    )
    output = tmp_path / "out/bad.ipynb"
    with pytest.raises(ChildProcessError) as error:
        execution.run(bad, output, {})
    said = f"bad failed in the section 'The sum': ValueError: two ({output} has the whole error)"
    assert str(error.value) == said
    assert "Traceback" in output.read_text()
    printed = capfd.readouterr()
    assert printed.err == printed.out == "", "neither papermill's banner nor the kernel's log"


def test_a_notebook_that_is_stopped_is_no_error_of_its_own(tmp_path):
    stopped = written(tmp_path / "stopped.ipynb", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        execution.run(stopped, tmp_path / "out.ipynb", {})


def test_a_dead_kernel_is_one_line(tmp_path):
    dead = written(tmp_path / "dead.ipynb", "## The end", "import os; os._exit(1)")
    with pytest.raises(ChildProcessError, match="kernel of dead died in the section 'The end'"):
        execution.run(dead, tmp_path / "out.ipynb", {})


def test_parameters_that_the_cell_does_not_show_are_no_warning(tmp_path, capfd):
    plain = written(tmp_path / "plain.ipynb", "a = 1", "print(a)")
    content = nbformat.read(plain, 4)
    content.cells[0].metadata.tags = ["parameters"]
    nbformat.write(content, plain)
    execution.run(plain, tmp_path / "out.ipynb", {"hidden": 3})
    printed = capfd.readouterr()
    assert printed.err == "" and "plain: " in printed.out
    assert "hidden = 3" in (tmp_path / "out.ipynb").read_text()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def told(path: Path, stream: io.StringIO, monkeypatch) -> str:
    """What is reported about the second cell after some time."""
    monkeypatch.setattr(progress, "FIRST", 0.5)
    with progress.Progress(path, stream) as telling:
        for index, cell in enumerate(json.loads(path.read_text())["cells"]):
            telling.cell({**cell, "source": "".join(cell["source"])}, index)
        until(lambda: "2/2" in stream.getvalue())
    return stream.getvalue()


def test_progress_names_the_section_and_the_time(tmp_path, monkeypatch):
    path = written(tmp_path / "long.ipynb", "# Long\n\n## Wait here", "1")
    log = told(path, io.StringIO(), monkeypatch)
    assert log.startswith("long 2/2 Wait here: 1 s so far\n")
    line = told(path, Terminal(), monkeypatch)
    assert line.startswith("\rlong 2/2 Wait here, 1 s") and line.endswith("\r")
    assert "\n" not in line, "one line, rewritten"


def test_widgets_become_pictures_with_captions_and_bars_go():
    output = lambda data: {"output_type": "execute_result", "metadata": {}, "data": data}
    widget = output({stills.WIDGET: {}, stills.PICTURE: "abc", "text/plain": ["What it ", "shows"]})
    bar = output({stills.WIDGET: {}, "text/plain": "0%"})
    plain = output({"text/plain": "1"})
    cells = [
        {"cell_type": "code", "outputs": [widget, bar, plain]},
        {"cell_type": "markdown", "source": "text"},
    ]
    notebook = {"cells": cells, "metadata": {"widgets": {"state": {}}, "papermill": {}}}
    made = json.loads(stills.without_widgets(json.dumps(notebook)))
    assert made["metadata"] == {"papermill": {}} and made["cells"][1] == cells[1]
    still, caption, other = made["cells"][0]["outputs"]
    assert still["data"] == {stills.PICTURE: "abc", "text/plain": ["What it ", "shows"]}
    assert caption["data"]["text/markdown"] == "*What it shows*" and other == plain


@pytest.mark.parametrize(
    "seconds",
    [0.5, *(pytest.param(late, marks=pytest.mark.slow) for late in (0.05, 0.4, 0.8, 1.5))],
)
def test_ctrl_c_while_starting_is_one_line(seconds, tmp_path):
    code = f"""
import os, signal, sys, threading
from yoco.__main__ import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
sys.argv = ["yoco", "run", "01", "--run-dir", {str(tmp_path)!r}]
threading.Timer({seconds}, os.kill, (os.getpid(), signal.SIGINT)).start()
sys.exit(main())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    said = f"{interrupts.SAID}\n"
    assert (done.returncode, done.stderr) == (130, said)


def test_a_kernel_that_jupyter_does_not_know_is_said(tmp_path, monkeypatch):
    def unknown(*_, **__):
        raise NoSuchKernel("python3")

    monkeypatch.setattr(execution, "execute", unknown)
    with pytest.raises(ChildProcessError, match="no kernel python3: python -m ipykernel install"):
        execution.run(ROOT / "notebooks/02_scores.ipynb", tmp_path / "x.ipynb", {})


def test_notebooks_name_the_kernel_that_ipykernel_installs():
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        kernel = json.loads(path.read_text(encoding="utf-8"))["metadata"]["kernelspec"]
        assert kernel["name"] == "python3", path


def test_what_a_killed_run_left_is_not_taken_for_this_one(tmp_path, monkeypatch):
    source, output = written(tmp_path / "x.ipynb", "# Title", "1"), tmp_path / "out/x.ipynb"
    owned.claim(output.parent)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("papermill.execute_notebook", full)
    for left in (source.read_text(), '{"cells": [{"sour'):
        (output.parent / ".x.running.ipynb").write_text(left)
        with pytest.raises(OSError, match="No space left"):
            execution.execute(source, output, {})
        assert not output.exists()


def test_a_cell_of_parameters_may_hold_ipython_s_commands(tmp_path):
    cell = nbformat.v4.new_code_cell("%matplotlib inline\n!ls\nseed = 3")
    cell.metadata.tags = ["parameters"]
    path = tmp_path / "x.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    assert parameters.of_cell(path) == {"seed": 3}
    cell.source = "seed = = 3"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    with pytest.raises(ValueError, match="x.ipynb: its cell of parameters is not Python"):
        parameters.of_cell(path)
