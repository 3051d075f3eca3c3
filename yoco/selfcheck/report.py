"""Runs every check and prints what a user pastes into a bug report."""

import math
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from yoco.selfcheck import checks, expected, machine, speed
from yoco.utils import device as devices


@dataclass(frozen=True)
class Result:
    """One compared tensor, or a check that failed.

    Attributes:
        name: the check and the tensor.
        deviation: distance from what is expected; NaN if there is no result.
        allowed: largest distance that is right.
        seconds: time of the whole check.
        error: the end of its traceback; empty if it finished.
    """

    name: str
    deviation: float
    allowed: float
    seconds: float
    error: str = ""

    @property
    def right(self) -> bool:
        """Whether the result is as expected; a NaN is not."""
        return self.deviation <= self.allowed

    def __str__(self) -> str:
        verdict = "ok" if self.right else "FAILED"
        figures = f"{self.deviation:10.2g}{self.allowed:9.2g}{self.seconds:9.1f}"
        return f"{self.name:30}{figures}  {verdict}"


def results(device: torch.device) -> Iterator[Result]:
    """Do every check on `device` and yield what each of its tensors is compared with."""
    known = expected.load()
    for name, check in checks.CHECKS.items():
        began = time.monotonic()
        try:
            with checks.only_rounding(check.exact):
                measured = check.measure(device)
        except Exception:
            told = traceback.format_exc(limit=-3).strip()  # its end
            yield Result(name, math.nan, 0.0, time.monotonic() - began, told)
            continue
        seconds = time.monotonic() - began
        for part, rule in check.rules.items():
            deviation = rule.deviation(measured[part], known[name][part])
            yield Result(f"{name}: {part}", deviation, rule.allowed, seconds)


def run(device: str | torch.device = "auto") -> bool:
    """Print the machine, the checks and two speeds; return whether every check is right.

    Raises ValueError or TypeError if the device cannot be used.
    """
    where = devices.choose(device)
    print(f"device: {where}, precision: {devices.choose_precision('auto', where)}")
    for name, value in machine.described(where).items():
        print(f"{name}: {value}")
    print(f"\n{'check':30}{'deviation':>10}{'allowed':>9}{'seconds':>9}", flush=True)
    found = []
    for result in results(where):
        print(result, flush=True)
        found.append(result)
    print("\nspeed, without compiling:")
    for name in speed.WORK:
        print(f"{name}: {speed.seconds(name, where):.3f} s", flush=True)
    wrong = [result for result in found if not result.right]
    for error in dict.fromkeys(result.error for result in wrong if result.error):
        names = [result.name for result in wrong if result.error == error]
        print(f"\n{'; '.join(names)}:\n{error}")
    print(f"\n{len(found) - len(wrong)} of {len(found)} results are right")
    return not wrong
