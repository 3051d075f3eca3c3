"""What a CPU got for every check: expected.safetensors, written by `python -m tools.selfcheck`."""

from importlib.resources import as_file, files

from yoco.selfcheck.checks import Measured
from yoco.utils import tensor_files

KIND = "selfcheck"
FILE = files("yoco").joinpath("selfcheck/expected.safetensors")


def load() -> dict[str, Measured]:
    """Return the expected tensors of every check, by its name."""
    with as_file(FILE) as path:
        tensors, _ = tensor_files.load_tensors(path, KIND)
    found: dict[str, Measured] = {}
    for name, tensor in tensors.items():
        check, _, part = name.partition("/")
        found.setdefault(check, {})[part] = tensor
    return found
