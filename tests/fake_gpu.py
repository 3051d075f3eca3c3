"""A simulated GPU: tensors on "cuda:0" without values.

They raise an error if devices are mixed, and count operations that wait for the device.
"""

import contextlib
import types
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from yoco.utils import device as devices
from yoco.utils import seeds

GPU = torch.device("cuda:0")
aten = torch.ops.aten
READS = (
    aten.item.default,
    aten._local_scalar_dense.default,
    aten.is_nonzero.default,
    aten.equal.default,
)
META = torch.device("meta")
SIZED = (
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.bincount.default,
    aten._linalg_check_errors.default,
)


class FakeGPU(TorchDispatchMode):
    """While active, and above a `FakeTensorMode`: CPU tensors are real, GPU tensors are fake.

    waits: operations for which the host waited for the device, by name: values or copies that it
    read. sent: copies from the host to the device. Every value that is read is a one, so that the
    work continues.
    """

    place = GPU

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.sent: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is torch.ops.prim.device.default and isinstance(args[0], FakeTensor):
            return META  # autograd's C++ would ask the driver for a stream of any GPU
        if kwargs.get("device") == META:  # other C++ that asked
            kwargs = {**kwargs, "device": self.place}
        tensors = [
            value for value in pytree.tree_leaves((args, kwargs)) if isinstance(value, Tensor)
        ]
        if (
            not any(isinstance(t, FakeTensor) for t in tensors)
            and torch.device(kwargs.get("device") or "cpu").type == "cpu"
        ):
            with unset_fake_temporarily():
                return function(*args, **kwargs)
        return self._on_gpu(function, args, kwargs, tensors)

    def _on_gpu(self, function: Any, args: Any, kwargs: Any, tensors: list[Tensor]) -> Any:
        if function in READS:
            self.waits.append(str(function))
            return (
                True if args[0].dtype == torch.bool else 1.0 if args[0].is_floating_point() else 1
            )
        if function in SIZED:
            self.waits.append(str(function))
        if function is aten.bincount.default:
            # as many as minlength, if the values are as they should be
            return args[0].new_zeros(args[2])
        made = function(*args, **kwargs)
        if function is aten._to_copy.default and made.device.type == "cpu":
            self.waits.append("to the host")
            return self._ones(made)
        if function is aten.copy_.default and args[0].device != args[1].device:
            (self.sent if args[0].device == self.place else self.waits).append("copy_")
        elif function in (
            aten._to_copy.default,
            aten.index.Tensor,
            aten.index_put_.default,
        ) and not all(t.device == self.place for t in tensors):
            self.sent.append(str(function))
        return made

    def _ones(self, like: Tensor) -> Tensor:
        with unset_fake_temporarily():
            return torch.ones(like.shape, dtype=like.dtype)


class OnGPU(torch.Generator):
    """A generator that claims to be the GPU's."""

    device = GPU


@contextlib.contextmanager
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGPU]:
    """Inside, `torch.device("cuda:0")` can be used for computation."""
    monkeypatch.setattr(
        seeds, "for_device", lambda source, device: OnGPU() if device.type == "cuda" else source
    )
    monkeypatch.setattr(devices, "_free", lambda device: float("inf"))
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)  # autocast asks
    hopper = types.SimpleNamespace(major=9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: hopper)
    with FakeTensorMode(allow_non_fake_inputs=True), FakeGPU() as gpu:
        yield gpu
