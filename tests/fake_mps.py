"""A simulated Apple GPU: tensors on "mps:0" without values, of the types and operations it has."""

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torchgen
import yaml
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree

from tests.fake_gpu import FakeGPU

MPS = torch.device("mps:0")
ABSENT = (torch.float64, torch.complex128)
NATIVE = Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"


@functools.cache
def _declared() -> dict[str, dict[str, Any]]:
    """Return torch's own list of operations, by name, with the devices that have each."""
    entries = yaml.load(NATIVE.read_text(), Loader=yaml.CSafeLoader)
    return {entry["func"].split("(")[0]: entry for entry in entries}


def supported(name: str) -> bool:
    """Return whether torch declares a kernel of an operation for MPS, or one for every device."""
    entry = _declared().get(name.removeprefix("aten::"))
    if entry is None:  # not one of torch's own kernels
        return True
    if "structured_delegate" in entry:
        return supported(entry["structured_delegate"])
    keys = {key.strip() for listed in entry.get("dispatch", {}) for key in listed.split(",")}
    return not keys or "MPS" in keys or any(key.startswith("Composite") for key in keys)


class FakeMPS(FakeGPU):
    """As `FakeGPU`; float64 on the device raises an error, and operations it lacks are listed."""

    place = MPS

    def __init__(self) -> None:
        super().__init__()
        self.lacking: set[str] = set()

    def _on_gpu(self, function: Any, args: Any, kwargs: Any, tensors: list[Tensor]) -> Any:
        made = self._sampled(function, args)
        if made is None:
            made = super()._on_gpu(function, args, kwargs, tensors)
        results = [t for t in pytree.tree_leaves(made) if isinstance(t, Tensor)]
        for tensor in results:
            if tensor.device.type == "mps" and tensor.dtype in ABSENT:
                raise TypeError(f"{function}: MPS has no {tensor.dtype}")
        if not supported(function.name()):
            self.lacking.add(function.name())
        return made

    def _sampled(self, function: Any, args: Any) -> Any:
        """Return grid sampling's results, whose own decomposition asks for a driver; else None."""
        if function is torch.ops.aten.grid_sampler_2d.default:
            images, grid = args[:2]
            return images.new_empty(*images.shape[:2], *grid.shape[1:3])
        if function is torch.ops.aten.grid_sampler_2d_backward.default:
            return tuple(torch.empty_like(tensor) for tensor in args[1:3])
        return None


@contextlib.contextmanager
def fake_mps() -> Iterator[FakeMPS]:
    """Inside, `torch.device("mps:0")` can be used for computation."""
    with FakeTensorMode(allow_non_fake_inputs=True), FakeMPS() as mps:
        yield mps
