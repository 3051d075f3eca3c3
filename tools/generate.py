"""Writes generated files: `yoco/parameters.json`, parameter cells, tables in documents.

The parameters of `--help` and of the notebooks' cells come from their declarations, the tables of
the README and of docs/ from files.

    make tables        # or: python -m tools.generate

A test compares the files with what this would write (tests/test_documents.py).
"""

import json
import textwrap
from pathlib import Path

from tools import documents
from tools.document_tables import ROOT
from yoco.workflow import parameters
from yoco.workflow.options import DECLARED, Described

HEAD = f"{parameters.MARK} that matter most here; `yoco run --help` lists the others"
WIDTH = 88  # columns of a code cell in JupyterLab, in a window of 1280 pixels
# other types are text
PYTHON = {"whole number": "int", "number": "float", "whole numbers": "list", "names": "list"}


def options_file() -> str:
    """Return all parameters, as `options.declared` reads them."""
    rows = {
        name: ",\n".join(f"  {json.dumps(row, ensure_ascii=False)}" for row in told)
        for name, told in parameters.described().items()
    }
    return (
        "{\n"
        + ",\n".join(f"{json.dumps(name)}: [\n{lines}\n]" for name, lines in rows.items())
        + "\n}\n"
    )


def cell(notebook: str) -> str:
    """Return a notebook's parameter cell: a line per shown parameter, typed for papermill."""
    told, model = parameters.described()[notebook], parameters.NOTEBOOKS[notebook]
    shown = [row for name in model.shown for row in told if row.name == name]
    lines = "\n".join(_line(row, model.model_fields[row.name].default) for row in shown)
    needed = "from typing import Optional\n\n" if "Optional[" in lines else ""
    return f"{HEAD}\n{needed}{lines}"


def _line(row: Described, value: object) -> str:
    kind = PYTHON.get(row.type, "str")
    decided = value is None and row.default != "none"  # the default depends on preset or registry
    meaning = f"{row.meaning} (none: {row.default})" if decided else row.meaning
    assigned = (
        f"{row.name}: {f'Optional[{kind}]' if value is None else kind} = "
        f"{json.dumps(value) if value is not None else None}"
    )
    if len(line := f"{assigned}  # {meaning}") <= WIDTH:
        return line
    hash_ = {"initial_indent": "# ", "subsequent_indent": "# "}
    return "\n".join([*textwrap.wrap(meaning, WIDTH, break_on_hyphens=False, **hash_), assigned])


def with_cell(text: str, notebook: str) -> str:
    """Return a notebook's file with the current parameter cell.

    Outputs are kept; the parameter cell has none.
    """
    content = json.loads(text)
    for each in content["cells"]:
        if "parameters" in each["metadata"].get("tags", []):
            each["source"] = cell(notebook).splitlines(keepends=True)
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def generated() -> dict[Path, str]:
    """Return what each file should contain."""
    made = {ROOT / "yoco" / DECLARED: options_file()}
    for name in parameters.NOTEBOOKS:
        path = ROOT / f"notebooks/{name}.ipynb"
        made[path] = with_cell(path.read_text(encoding="utf-8"), name)
    for path in documents.pages():
        made[path] = documents.filled(path.read_text(encoding="utf-8"))
    return made


def stale() -> dict[Path, str]:
    """Return the files that are not up to date, with what they should contain."""
    return {
        path: text
        for path, text in generated().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    }


if __name__ == "__main__":
    for path, text in stale().items():
        print(f"writing {path.name}")
        path.write_text(text, encoding="utf-8")
