"""Python objects of the user, found by an importable path "package.module:name" in any process."""

import os
import pkgutil
import re
import sys
from typing import Any

SHAPE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def find(argument: str, path: str) -> Any:
    """Return the object at an importable path; modules in the working directory are found as well.

    Args:
        argument: the argument that holds the path, for errors.
        path: "package.module:name"; name may contain dots.

    Raises:
        ValueError: if the path has another form, or its module cannot be imported or lacks the
            name.
    """
    if not SHAPE.fullmatch(path):
        raise ValueError(f"{argument}={path!r} must have the form 'package.module:name'")
    module = path.partition(":")[0]
    if module == "__main__":
        raise ValueError(
            f"{argument}={path!r}: other processes cannot import __main__; move it into a module"
        )
    if not {"", os.getcwd()} & set(sys.path):  # missing there if started by the script `yoco`
        sys.path.append(os.getcwd())
    try:
        return pkgutil.resolve_name(path)
    except AttributeError as error:
        raise ValueError(f"{argument}={path!r}: {error}") from error
    except Exception as error:  # whatever the module raises on import
        raise ValueError(
            f"{argument}={path!r}: {module} cannot be imported ({type(error).__name__}: {error})"
        ) from error


def path_of(thing: Any) -> tuple[str, bool]:
    """Return the path of a function or class, and whether other processes can import it.

    They cannot import a lambda or anything defined in a notebook.
    """
    path = f"{thing.__module__}:{getattr(thing, '__qualname__', type(thing).__qualname__)}"
    try:
        return path, find("path", path) is thing
    except ValueError:
        return path, False
