"""Shows which cell of a notebook is running, and for how long."""

import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TextIO

from yoco.workflow import notebooks

FIRST = 10.0  # seconds after which a cell is worth a line of a log; then twice that, and so on


class Progress:
    """One line for a notebook: the section of the running cell, and the seconds so far.

    On a terminal the line is rewritten every second. Elsewhere (a log file, CI) a line is printed
    if a cell takes 10 seconds, and again after 20, 40, 80, …
    """

    def __init__(self, notebook: Path, stream: TextIO) -> None:
        self._name, self._stream = notebook.stem, stream
        self._cells = len(notebooks.read(notebook)["cells"])
        self._terminal = stream.isatty()
        self._began = self._cell_began = time.monotonic()
        self._number, self._next = 0, FIRST
        self.title = "start"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        if self._terminal:
            self._write("")

    @property
    def seconds(self) -> float:
        """How long the notebook has been running."""
        return time.monotonic() - self._began

    def cell(self, cell: Mapping[str, Any], cell_index: int) -> None:
        """Note that a cell starts. nbclient calls this, also for cells of text."""
        self._number = cell_index + 1
        if cell["cell_type"] == "markdown":
            headings = [line for line in cell["source"].splitlines() if line.startswith("#")]
            self.title = headings[-1].lstrip("# ") if headings else self.title
        self._cell_began, self._next = time.monotonic(), FIRST

    def _tell(self) -> None:
        while not self._ended.wait(1.0):
            taken = time.monotonic() - self._cell_began
            at = f"{self._name} {min(self._number, self._cells)}/{self._cells} {self.title}"
            if self._terminal:
                self._write(f"{at}, {self.seconds:.0f} s")
            elif taken >= self._next:
                print(f"{at}: {taken:.0f} s so far", file=self._stream, flush=True)
                self._next *= 2

    def _write(self, text: str) -> None:
        """Rewrite the terminal's line."""
        width = shutil.get_terminal_size().columns - 1
        self._stream.write(f"\r{text[:width]:<{width}}" + ("" if text else "\r"))
        self._stream.flush()
