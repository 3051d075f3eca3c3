"""Public functions accept and return the shapes that they are annotated with."""

import importlib
import inspect
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import get_args, get_origin

import pytest
from torch import Tensor

from tests.shapes import CHECKED

# of any shapes: a state's tensors by name, parameters, and what a function takes
FREE = (dict, Mapping, Iterable, Callable)
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


@pytest.mark.parametrize("name", CHECKED)
def test_no_public_function_takes_a_tensor_of_unsaid_shape(name):
    bare = [
        (function.__qualname__, parameter)
        for function in functions(importlib.import_module(name))
        for parameter, kind in inspect.get_annotations(function, eval_str=True).items()
        if Tensor in (kind, *get_args(kind)) and get_origin(kind) not in FREE
    ]
    assert not bare
