"""Public functions accept and return the shapes that they are annotated with."""

import importlib.util
import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args, get_origin

import numpy as np
import pytest
from torch import Tensor

from tests.shapes import CHECKED

WRONG = """
import jaxtyping, torch
from yoco import formation, scores
for function, given in (
    (formation.form, (torch.zeros(3, 8, 8), 2)),
    (scores.entropy, (torch.zeros(4),)),
):
    try:
        function(*given)
    except jaxtyping.TypeCheckError:
        continue
    raise SystemExit("a wrong shape went unnoticed")
"""


@pytest.mark.slow
def test_a_run_of_everything_keeps_to_the_annotated_shapes():
    code = f"from tests import shapes; shapes.check_shapes(); shapes.run()\n{WRONG}"
    # -B: what is compiled with the checks stays out of the caches of bytecode
    command = [sys.executable, "-B", "-c", code]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def functions(module):
    """Yield the public functions and methods that a module defines."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value):
            yield value
        elif inspect.isclass(value):
            yield from (
                method
                for key, method in vars(value).items()
                if inspect.isfunction(method) and not key.startswith("_")
            )


def parts(kind):
    """Yield a type and the types in it, except those that a callable takes and returns."""
    yield kind
    if get_origin(kind) is not Callable:
        for part in get_args(kind):
            yield from parts(part)


def modules():
    """Yield the names of the `CHECKED` modules, those in packages included."""
    for name in CHECKED:
        inside = importlib.util.find_spec(name).submodule_search_locations or ()
        yield from (name, *(f"{name}.{found.name}" for found in pkgutil.iter_modules(inside)))


@pytest.mark.parametrize("name", modules())
def test_no_public_function_takes_a_tensor_of_unsaid_shape(name):
    bare = [
        (function.__qualname__, parameter)
        for function in functions(importlib.import_module(name))
        for parameter, kind in inspect.get_annotations(function, eval_str=True).items()
        if {Tensor, np.ndarray} & set(parts(kind))
    ]
    assert not bare
