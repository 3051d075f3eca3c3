"""The parameters as command line options: `--ipc-to 1,2`, listed by `--help`.

They are read from a file that `tools/generate.py` writes from the declarations in `parameters`, so
that `--help` does not wait for torch.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple, NoReturn

DECLARED = "parameters.json"  # beside this file
VALUES = {
    "whole number": "N",
    "whole numbers": "N,N",
    "number": "X",
    "name": "NAME",
    "names": "NAME,NAME",
    "text": "TEXT",
}


class Described(NamedTuple):
    """A parameter for readers: name, type, default, meaning (with the names that it allows)."""

    name: str
    type: str
    default: str
    meaning: str


def declared() -> dict[str, list[Described]]:
    """Return the declared parameters of every notebook.

    They come from the file, or from `parameters` itself if that is imported.
    """
    if live := sys.modules.get("yoco.workflow.parameters"):
        return live.described()
    text = files("yoco").joinpath(DECLARED).read_text(encoding="utf-8")
    return {
        notebook: [Described(*row) for row in rows] for notebook, rows in json.loads(text).items()
    }


class _Set(argparse.Action):
    """Adds a pair (name, value) to `parameters`, in the order of the command line."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option: str | None = None,
    ) -> None:
        pair = tuple(values) if self.const is None else (self.const, values)
        namespace.parameters = [*namespace.parameters, pair]


class Parser(argparse.ArgumentParser):
    """A parser whose errors are ValueErrors.

    Options cannot be abbreviated, and may be written with _ for -.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)

    def add_parameters(
        self, notebooks: Sequence[str] | None = None, only: Sequence[str] | None = None
    ) -> None:
        """Give the parser the parameters of some notebooks (None: of all) as options.

        Each is an option of its own and can be given by `-p NAME VALUE`. only: names of parameters
        (None: all).
        """
        chosen = {
            name: rows
            for name, rows in declared().items()
            if notebooks is None or name in notebooks
        }
        group = self.add_argument_group("parameters")
        group.add_argument(
            "-p",
            nargs=2,
            action=_Set,
            default=[],
            metavar=("NAME", "VALUE"),
            dest="parameters",
            help="set a parameter by its name",
        )
        for name in dict.fromkeys(
            row.name for rows in chosen.values() for row in rows if only is None or row.name in only
        ):
            held = {
                notebook: row
                for notebook, rows in chosen.items()
                for row in rows
                if row.name == name
            }
            kind = VALUES[next(iter(held.values())).type]
            told = _told(held, len(chosen)).replace("%", "%%")
            group.add_argument(
                option(name),
                action=_Set,
                const=name,
                default=[],
                dest="parameters",
                metavar=kind,
                help=told,
            )


def option(name: str) -> str:
    """Return a parameter's name as an option."""
    return f"--{name.replace('_', '-')}"


def plain(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with - for _ in the names of options."""
    return [
        re.sub(r"^--[^=]*", lambda found: found[0].replace("_", "-"), argument)
        for argument in arguments
    ]


def shared() -> list[str]:
    """Return the names of the parameters that every notebook has."""
    first, *others = declared().values()
    return [
        row.name
        for row in first
        if all(row.name in {other.name for other in rows} for rows in others)
    ]


def _told(held: Mapping[str, Described], count: int) -> str:
    """Return what `--help` says about a parameter: its meaning and its defaults.

    held: the notebooks that have it, out of `count`. The meaning is taken from the first of them.
    """
    defaults: dict[str, list[str]] = {}
    for notebook, row in held.items():
        defaults.setdefault(row.default, []).append(notebook.split("_")[0])
    several = len(defaults) > 1
    places = (
        "" if several or len(held) == count else f"; in {', '.join(next(iter(defaults.values())))}"
    )
    by_notebook = " | ".join(
        f"{value} in {', '.join(numbers)}" if several else value
        for value, numbers in defaults.items()
    )
    first = next(iter(held.values()))
    return f"{first.meaning} [{first.type}; default: {by_notebook}{places}]"
