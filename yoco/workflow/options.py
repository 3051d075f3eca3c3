"""The parameters as command line options: `--ipc-to 1,2`, listed by `--help`.

They are read from a file that `tools/generate.py` writes from the declarations in `parameters`, so
that `--help` does not wait for torch.
"""

import argparse
import functools
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
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


class Parser(argparse.ArgumentParser):
    """A parser whose errors are ValueErrors."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)

    def add_parameters(self, notebooks: Sequence[str], common: bool = False) -> None:
        """Give the parser the parameters of some notebooks (none named: of all) as options.

        Each is an option of its own and can be given by `-p NAME VALUE`; `parameters` lists the
        given names and values in their order. common: only those that every notebook has.
        """
        every, names = declared(), shared()
        chosen = {
            notebook: {row.name: row for row in every[notebook] if not common or row.name in names}
            for notebook in notebooks or every
        }
        group = self.add_argument_group("parameters")
        listed: dict[str, Any] = {"dest": "parameters", "action": "append", "default": []}
        told = "set a parameter by its name"
        group.add_argument("-p", nargs=2, metavar=("NAME", "VALUE"), help=told, **listed)
        for name in dict.fromkeys(name for rows in chosen.values() for name in rows):
            held = {notebook: rows[name] for notebook, rows in chosen.items() if name in rows}
            group.add_argument(
                option(name),
                type=functools.partial(_named, name),
                metavar=VALUES[next(iter(held.values())).type],
                help=_told(held, len(chosen)).replace("%", "%%"),
                **listed,
            )


def _named(name: str, value: str) -> tuple[str, str]:
    return name, value


def values_of(pairs: Iterable[tuple[str, str]]) -> dict[str, str | None]:
    """Return the values of given parameters, with None for "none"."""
    return {name: None if value.lower() == "none" else value for name, value in pairs}


def option(name: str) -> str:
    """Return a parameter's name as an option."""
    return f"--{name.replace('_', '-')}"


def plain(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with - for _ in the names of options."""
    return [
        re.sub(r"^--[^=]*", lambda found: found[0].replace("_", "-"), argument)
        for argument in arguments
    ]


def shared() -> set[str]:
    """Return the names of the parameters that every notebook has."""
    return set.intersection(*({row.name for row in rows} for rows in declared().values()))


def _told(held: Mapping[str, Described], count: int) -> str:
    """Return what `--help` says about a parameter: its meaning and its defaults.

    held: the notebooks that have it, out of `count`. The meaning is taken from the first of them.
    """
    first, defaults = next(iter(held.values())), dict[str, list[str]]()
    for notebook, row in held.items():
        defaults.setdefault(row.default, []).append(notebook.split("_")[0])
    by_notebook = " | ".join(f"{value} ({', '.join(of)})" for value, of in defaults.items())
    same = len(held) == count and len(defaults) == 1
    return f"{first.meaning} [{first.type}; default: {first.default if same else by_notebook}]"
