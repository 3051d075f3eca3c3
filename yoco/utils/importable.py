"""Python objects by their importable path, "package.module:name": the user's own, in every process
alike.
"""

import functools
import importlib
import os
import re
import sys
from typing import Any

SHAPE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def find(argument: str, path: str) -> Any:
    """The object at an importable path; a module in the working folder is found as well.

    Args:
        argument: what the path was given as, for errors.
        path: "package.module:name", where name may have dots.

    Raises:
        ValueError: if the path has another form, its module cannot be imported, or has no such
            name.
    """
    if not SHAPE.fullmatch(path):
        raise ValueError(f"{argument}={path!r} must have the form 'package.module:name'")
    module, _, name = path.partition(":")
    if module == "__main__":
        raise ValueError(
            f"{argument}={path!r}: other processes cannot import __main__; move it into a module"
        )
    if not {"", os.getcwd()} & set(sys.path):  # the script `yoco` does not look there
        sys.path.append(os.getcwd())
    try:
        return functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except AttributeError as error:
        raise ValueError(f"{argument}={path!r}: {error}") from error
    except Exception as error:  # whatever the module does when it is imported
        raise ValueError(
            f"{argument}={path!r}: {module} cannot be imported ({type(error).__name__}: {error})"
        ) from error


def path_of(thing: Any) -> tuple[str, bool]:
    """The path of a function or class, and whether other processes can import it: a lambda, or what
    a notebook defines, they cannot.
    """
    path = f"{thing.__module__}:{getattr(thing, '__qualname__', type(thing).__qualname__)}"
    try:
        return path, find("path", path) is thing
    except ValueError:
        return path, False
