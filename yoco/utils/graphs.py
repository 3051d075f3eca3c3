"""CUDA graphs: a function is recorded once per combination of input shapes, then replayed.

A replay avoids launching the kernels one by one.
"""

import contextlib
import functools
import gc
import inspect
import os
import weakref
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils import _pytree as pytree

from yoco.utils.device import is_gpu

# calls before the recording: during the first ones, libraries allocate and choose their kernels
WARM_UP = 3
# by device, those whose owner is gone: cuBLAS keeps 64 MiB for each stream that it ever worked on
_IDLE: dict[torch.device, list[Any]] = defaultdict(list)
Input = Tensor | float


def captured(function: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """Return `function` recorded as CUDA graphs if `device` is a GPU, else `function` itself.

    The first calls run normally, the next one is recorded, and later ones replay the recording.
    There is one graph per combination of input shapes and options. A call that draws from a
    generator of the CPU runs normally. `YOCO_GRAPHS=0` turns recording off.

    Args:
        function: takes tensors and numbers by position and hashable options by name, and returns
            tensors (or a tuple of them). It must not read values on the host, and may draw only
            from generators passed as options (one, or a tuple). Tensors that it changes or reads
            besides its inputs must stay at the same memory address. A number reaches it as a scalar
            tensor. A method's object is not kept alive, so that it may hold the result without a
            cycle of references: graphs hold much memory.
        device: the device of all of these tensors.

    Returns:
        A function of the same arguments, whose results belong to the caller.
    """
    if (
        not is_gpu(device)
        or not torch.cuda.is_available()
        or os.environ.get("YOCO_GRAPHS", "1") == "0"
    ):
        return function
    return _Captured(function, device)


class _Captured:
    """The recordings of one function."""

    def __init__(self, function: Callable[..., Any], device: torch.device) -> None:
        if inspect.ismethod(function):
            function = functools.partial(function.__func__, weakref.proxy(function.__self__))
        self.function, self.device = function, device
        # never shared: a graph that is freed frees what cuBLAS keeps for its stream
        self.stream = _IDLE[device].pop() if _IDLE[device] else torch.cuda.Stream(device)
        weakref.finalize(self, _IDLE[device].append, self.stream).atexit = False
        self.recordings: dict[Hashable, _Recording] = {}

    def __call__(self, *inputs: Input, **options: Hashable) -> Any:
        sources = (
            o for o in pytree.tree_leaves(list(options.values())) if isinstance(o, Generator)
        )
        if not all(is_gpu(source.device) for source in sources):
            return self.function(*inputs, **options)
        key = (*map(_signature, inputs), frozenset(options.items()))
        with torch.cuda.device(self.device):
            if key not in self.recordings:
                self.recordings[key] = _Recording(self, inputs, options)
            return self.recordings[key](inputs)


def _signature(value: Input) -> Hashable:
    return (value.shape, value.dtype) if isinstance(value, Tensor) else float


class _Recording:
    """A function with inputs of one signature: warmed up, then recorded as a graph.

    The graph reads its inputs from memory of its own.
    """

    def __init__(
        self, owner: _Captured, inputs: Sequence[Input], options: Mapping[str, Hashable]
    ) -> None:
        self.function, self.stream, self.options = owner.function, owner.stream, options
        self.inputs = [
            torch.empty_like(i) if isinstance(i, Tensor) else torch.empty((), device=owner.device)
            for i in inputs
        ]
        self.calls = 0
        self.graph: Any = None  # a CUDAGraph, once recorded

    def __call__(self, inputs: Sequence[Input]) -> Any:
        for own, given in zip(self.inputs, inputs):
            # neither call waits for the device
            own.copy_(given) if isinstance(given, Tensor) else own.fill_(given)
        self.calls += 1
        if self.calls <= WARM_UP:
            return self._warm_up()
        if self.graph is None:
            self._record()
        self.graph.replay()
        # the next replay overwrites these
        return pytree.tree_map_only(Tensor, Tensor.clone, self.outputs)

    def _warm_up(self) -> Any:
        """Run the function on the recording's stream; the two streams wait for each other."""
        current = torch.cuda.current_stream()
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            outputs = self.function(*self.inputs, **self.options)
        current.wait_stream(self.stream)
        return outputs

    def _record(self) -> None:
        graph = torch.cuda.CUDAGraph()
        for option in pytree.tree_leaves(list(self.options.values())):
            if isinstance(option, Generator):
                graph.register_generator_state(option)
        current = torch.cuda.current_stream()
        try:
            with _no_collection(), torch.cuda.graph(graph, stream=self.stream):
                self.outputs = self.function(*self.inputs, **self.options)
        except RuntimeError as error:
            torch.cuda.set_stream(current)  # a recording that fails can leave its own
            # CUDA's error hides what went wrong within the recording
            why = f" ({error.__context__})" if error.__context__ else ""
            error.add_note(
                f"this function could not be recorded as a CUDA graph{why}; in a new process, "
                "YOCO_GRAPHS=0 in the environment runs without graphs"
            )
            raise
        self.graph = graph


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Collect no garbage: an older graph that is freed invalidates the recording of another."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
