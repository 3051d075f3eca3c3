"""Runs a notebook through papermill: checked parameters in, a complete file out."""

import contextlib
import hashlib
import json
import logging
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from yoco.utils import locks, owned, tensor_files
from yoco.workflow import notebooks
from yoco.workflow.progress import Progress
from yoco.workflow.stills import without_widgets

# of kernels: they would warn at every start that TCP on this machine is not encrypted, and could
# outlive a killed process
KERNEL = ["--log-level=ERROR", "--IPKernelApp.extra_extensions=yoco.workflow.kernel"]


def execute(
    notebook: Path,
    output: Path,
    parameters: dict[str, Any],
    cwd: Path | None = None,
    progress: Progress | None = None,
) -> None:
    """Run a notebook. The executed copy replaces `output` whole, also if a cell fails.

    A killed run leaves the last copy as it was. Widgets become still pictures, since no kernel
    stands behind a stored one.

    Args:
        notebook: the file to run.
        output: where the executed copy goes.
        parameters: values for the cell tagged parameters, already checked.
        cwd: the kernel's working folder. None: this process's.
        progress: is told which cell runs.

    Raises:
        papermill.PapermillExecutionError: if a cell fails.
        BlockingIOError: if another process runs it into the same `output`.
        ValueError: if `output` is the notebook itself.
        FileExistsError: if `output` is a file that yoco did not write.
    """
    output = tensor_files.target(output)
    if output.exists() and output.samefile(notebook):
        raise ValueError(
            f"{output} would be replaced by its executed copy: choose another run_dir, or --folder"
        )
    owned.replacing(output)
    source, papermill = digest(notebooks.read(notebook)), _papermill()
    # it warns of every parameter that the cell does not show; ours are checked
    logging.getLogger("papermill").setLevel(logging.ERROR)
    with locks.hold(output):
        # a killed run leaves this one
        part = output.with_name(f".{output.stem}.running.ipynb")
        part.unlink(missing_ok=True)
        try:
            papermill.execute_notebook(
                _verbatim(notebook),
                _verbatim(part),
                parameters,
                kernel_name="python3",
                language="python",
                cwd=cwd,
                progress_bar=False,
                extra_arguments=KERNEL,
                store_widget_state=False,
                # it would write the whole notebook twice for each cell; it does so at the end
                request_save_on_cell_execute=False,
                autosave_cell_every=0,
                # all files are written by then, and Python takes seconds to take torch apart
                shutdown_kernel="immediate",
                on_cell_start=progress and progress.cell,
            )
        finally:
            with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):  # not written whole
                executed = _finished(part.read_text(encoding="utf-8"), source)
                part.write_text(executed, "utf-8")
                _keep_edited(output)
                part.replace(output)


def _finished(notebook: str, source: str) -> str:
    """Return an executed notebook's file without widgets.

    It has the digests of its cells and, as `source`, of those of the notebook that was executed.
    """
    content = json.loads(without_widgets(notebook))
    content["metadata"]["yoco"] = {"cells": digest(content), "source": source}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def digest(notebook: dict[str, Any]) -> str:
    """Return the digest of the sources of a notebook's cells."""
    sources = ["".join(cell["source"]) for cell in notebook["cells"]]
    return hashlib.blake2b(json.dumps(sources).encode(), digest_size=8).hexdigest()


def _keep_edited(output: Path) -> None:
    """Rename a copy to NAME.before-N.ipynb unless it is as `execute` made it."""
    if not output.exists():
        return
    try:
        content = json.loads(output.read_text(encoding="utf-8"))
        edited = content["metadata"]["yoco"]["cells"] != digest(content)
    except (ValueError, KeyError, TypeError):  # papermill itself made it, or an earlier version
        edited = True
    if edited:
        kept = owned.set_aside(output)
        print(f"{output.name} was edited or made by another program: it is {kept.name} now")


def run(notebook: Path, output: Path, parameters: dict[str, Any]) -> None:
    """Run a notebook for the command line: progress on standard output, and short errors.

    Args:
        notebook, output, parameters: see `execute`.

    Raises:
        ChildProcessError: if a cell fails or the kernel dies, with the cell's section and the last
            line of its error.
        KeyboardInterrupt: if the user stopped it.
    """
    papermill = _papermill()
    import nbclient.exceptions
    from jupyter_client.kernelspec import NoSuchKernel

    with Progress(notebook, sys.stdout) as progress:
        try:
            execute(notebook, output, parameters, progress=progress)
        except papermill.PapermillExecutionError as error:
            if error.ename == "KeyboardInterrupt":
                raise KeyboardInterrupt from None
            raise ChildProcessError(
                f"{notebook.stem} failed in the section {progress.title!r}: {last_line(error)} "
                f"({output} has the whole error)"
            ) from None
        except NoSuchKernel:
            raise ChildProcessError(
                "Jupyter knows no kernel python3: python -m ipykernel install --sys-prefix"
            ) from None
        except nbclient.exceptions.DeadKernelError:
            raise ChildProcessError(
                f"the kernel of {notebook.stem} died in the section {progress.title!r}; it may "
                "have run out of memory"
            ) from None
    here = Path.cwd()
    shown = output.relative_to(here) if output.is_relative_to(here) else output
    print(f"{notebook.stem}: {progress.seconds:.0f} s -> {shown}", flush=True)


def _verbatim(path: Path) -> str:
    """Return the path as papermill expects it: it would fill in single braces."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _papermill() -> ModuleType:
    """Return the papermill package, imported without a grammar that it never uses.

    jsonschema's optional check of IRIs would build that grammar on import, which takes two seconds.
    """
    grammar = "rfc3987_syntax"
    # None is an ImportError, which jsonschema catches
    found = sys.modules.setdefault(grammar, None)  # type: ignore[arg-type]
    import papermill

    if found is None:
        del sys.modules[grammar]
    return papermill


def last_line(error: Exception) -> str:
    """Return the name of an error, which may come from a cell, and the last line of its text."""
    name = getattr(error, "ename", type(error).__name__)
    text = str(getattr(error, "evalue", error))
    return f"{name}: {(text.strip().splitlines() or [''])[-1]}"
