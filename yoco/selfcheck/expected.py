"""What a CPU got for every check: expected.safetensors, written by `python -m tools.selfcheck`."""

from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path

import torch
from torch import Tensor

from yoco.selfcheck.checks import Measured
from yoco.utils import tensor_files

KIND = "selfcheck"
_FILE = files("yoco").joinpath("selfcheck/expected.safetensors")


def load() -> dict[str, Measured]:
    """Return the expected tensors of every check, by its name."""
    with as_file(_FILE) as path:
        tensors, _ = tensor_files.load_tensors(path, KIND)
    found: dict[str, Measured] = {}
    for name, tensor in tensors.items():
        check, _, part = name.partition("/")
        found.setdefault(check, {})[part] = tensor
    return found


def save(measured: Mapping[str, Measured]) -> Path:
    """Write the expected tensors of every check. For the maintainers of yoco."""
    flat: dict[str, Tensor] = {
        f"{check}/{part}": tensor
        for check, parts in measured.items()
        for part, tensor in parts.items()
    }
    info = {"torch": torch.__version__, "device": "cpu", "precision": "float32"}
    return tensor_files.save_tensors(Path(str(_FILE)), KIND, flat, info)
