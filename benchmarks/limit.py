"""The bound on speed: the time of the convolutions alone that a case of the benchmark does.

    python -m benchmarks.limit CASE DEVICE      # prints what convolutions a case does, as JSON

They are counted in a run of the case whose convolutions are not computed, and then timed one kind
at a time, in channels-last memory and the precision that the case uses.
"""

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import cases
from benchmarks.sides import ROOT
from yoco.selfcheck.speed import timed
from yoco.utils.device import is_gpu

aten = torch.ops.aten
CONVOLUTIONS = {f.name(): f for f in (aten.convolution.default, aten.convolution_backward.default)}
REPEATS = 7
PLAIN = {"YOCO_COMPILE": "0", "YOCO_GRAPHS": "0", "OMP_NUM_THREADS": "1"}  # every call is seen
Call = tuple[str, str]  # the function, and its arguments as JSON, with shapes in place of tensors


class Convolutions(TorchDispatchMode):
    """Counts convolutions, and gives random numbers in place of their results."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[Call] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function not in CONVOLUTIONS.values():
            return function(*args, **(kwargs or {}))
        shapes = [{"shape": list(a.shape)} if isinstance(a, Tensor) else a for a in args]
        self.calls[function.name(), json.dumps(shapes)] += 1
        like = pytree.tree_map_only(Tensor, lambda t: t.to("meta"), args)
        drawn = lambda t: torch.rand(t.shape, dtype=t.dtype, device=args[0].device)
        return pytree.tree_map_only(Tensor, drawn, function(*like))


def counted(work: cases.Work) -> Counter[Call]:
    """Return how often `work` does each kind of convolution."""
    with Convolutions() as convolutions:
        work()
    return convolutions.calls


def of_case(case: str, device: torch.device, **options: Any) -> Counter[Call]:
    """Return the convolutions that a case does on a device, counted in a process of its own."""
    arguments = (case, device.type, json.dumps(options))
    command = [sys.executable, "-m", "benchmarks.limit", *arguments]
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, **PLAIN, "PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return Counter({tuple(call): count for call, count in json.loads(done.stdout.splitlines()[-1])})


def seconds(calls: Mapping[Call, int], precision: str, device: torch.device) -> float:
    """Return the seconds that the convolutions take one after another, on all threads."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    return sum(count * _of(call, dtype, device) for call, count in calls.items())


def _of(call: Call, dtype: torch.dtype, device: torch.device) -> float:
    """Return the fewest seconds that one convolution took."""
    arguments = [_filled(argument, dtype, device) for argument in json.loads(call[1])]
    work = lambda: CONVOLUTIONS[call[0]](*arguments)
    together = 20 if is_gpu(device) else 1  # a GPU works while the next call is launched
    several = lambda: [work() for _ in range(together)]
    clock = cases.clock(device)
    return min(timed(several, device, clock) for _ in range(REPEATS)) / together


def _filled(argument: Any, dtype: torch.dtype, device: torch.device) -> Any:
    if not isinstance(argument, dict):
        return argument
    images = torch.rand(argument["shape"], device=device).to(dtype)
    return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=cases.CASES)
    parser.add_argument("device", nargs="?", default="cpu")
    parser.add_argument("options", nargs="?", type=json.loads, default={}, help="of the case")
    arguments = parser.parse_args()
    calls = counted(cases.build(arguments.case, "ours", arguments.device, **arguments.options))
    print(json.dumps(list(calls.items())))


if __name__ == "__main__":
    main()
