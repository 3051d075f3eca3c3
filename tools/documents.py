"""The tables of the README and of docs/ that are made from files: where they are in a page.

A page holds a table between two markers, `<!-- made: NAME -->` and `<!-- end -->`. `make tables`
(tools/generate.py) writes the text between them, with a function of tools/document_tables.py.
"""

import re
from pathlib import Path

from tools.document_tables import ROOT, TABLES

# from a marker to the next `end`, with no other marker between them
MARKED = re.compile(r"(<!-- made: ([\w-]+) -->\n)(?:(?!<!-- ).*\n)*(<!-- end -->)")


def pages() -> list[Path]:
    """Return the files that may hold tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def filled(text: str) -> str:
    """Return a page with up-to-date tables. Raises KeyError if it names an unknown one."""
    return MARKED.sub(lambda found: f"{found[1]}\n{_table(found[2])}\n\n{found[3]}", text)


def _table(name: str) -> str:
    """Return a table without line breaks within "46.76 ± 3.95" and "40 %"."""
    return TABLES[name]().strip().replace(" ± ", "\u00a0±\u00a0").replace(" %", "\u00a0%")
