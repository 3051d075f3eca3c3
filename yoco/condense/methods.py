"""The condensation methods, by name."""

from typing import Any

from yoco.condense import dream, dsa, kip, mtt, ncfm
from yoco.condense.base import Method
from yoco.condense.dream import RepresentativeMatching
from yoco.condense.dsa import SiameseMatching
from yoco.condense.idc import GradientMatching
from yoco.condense.kip import KernelInducingPoints
from yoco.condense.mtt import TrajectoryMatching
from yoco.condense.ncfm import CharacteristicMatching
from yoco.condense.presets import LARGE, settings_for
from yoco.utils import checks

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("idc", settings_for, GradientMatching, True),
        Method("dream", dream.settings_for, RepresentativeMatching, True),
        Method("dsa", dsa.settings_for, SiameseMatching, False),
        Method("mtt", mtt.settings_for, TrajectoryMatching, False, experts="experts"),
        Method("kip", kip.settings_for, KernelInducingPoints, False),
        Method("ncfm", ncfm.settings_for, CharacteristicMatching, True, experts="networks", nests=True),
    )
}


def factor_of(method: str, size: int) -> int:
    """The paper's factor of a method for images of side `size`. Raises ValueError at an unknown method."""
    if not METHODS[checks.one_of("method", method, METHODS)].multi:
        return 1
    return 3 if size >= LARGE else 2


def unending(method: str) -> dict[str, Any]:
    """Settings that have a method go on until its time budget is over."""
    names = METHODS[method].settings_for("smoke", 32, 1, {}).record()
    steps = {"iterations" if "iterations" in names else "outer_loops": 10**6}
    return {**steps, "kernel": "auto"} if "kernel" in names else steps  # one step of a convolutional kernel can take hours
