"""What one condensation is asked to make, checked before any work."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from yoco import formation
from yoco.condense import nested as nesting
from yoco.condense.base import PACKING, condensed_from
from yoco.condense.methods import METHODS, factor_of
from yoco.data.image_data import ImageData
from yoco.sets.condensed_set import CondensedSet
from yoco.sets.fits import check_fits
from yoco.utils import checks, digests


class Plan(NamedTuple):
    """What `condense` is asked to make, checked."""

    data: ImageData
    method: str
    ipc: int
    factor: int
    preset: str
    seed: int
    settings: Any
    start: CondensedSet | None
    nested: list[int] | None

    def identity(self, precision: str) -> dict[str, Any]:
        """Return what a checkpoint must share and `.info` says."""
        made = {
            "method": self.method,
            "dataset": self.data.name,
            "images": len(self.data.train_images),
            "ipc": self.ipc,
            "factor": self.factor,
        }
        how = {
            "preset": self.preset,
            "settings": self.settings.record(),
            "seed": self.seed,
            "precision": precision,
        }
        began = {"packing": PACKING} if self.start is None else {"start": self.start.fingerprint}
        nested = {} if self.nested is None else {"nested": self.nested}
        return {**made, **how, **began, **nested, digests.MADE_FROM: self.data.made_from}

    def set_of(self, images: Tensor, info: Mapping[str, Any]) -> CondensedSet:
        """Return the condensed set of `images`."""
        return condensed_from(images, self.data, self.ipc, self.factor, self.method, info)


def planned(
    data: ImageData,
    method: str,
    ipc: int,
    factor: int | None,
    preset: str,
    start: CondensedSet | None,
    nested: bool | Sequence[int] | None,
    seed: int,
    settings: dict[str, Any],
) -> Plan:
    """Return the plan that these arguments of `condense` ask for."""
    if start is not None and factor is None:
        factor = checks.instance("start", start, CondensedSet).factor
    ipc, factor, seed, chosen = checked(data, method, ipc, factor, preset, seed, settings)
    began = None if start is None else _checked_start(start, data, ipc, factor)
    return Plan(
        data,
        method,
        ipc,
        factor,
        preset,
        seed,
        chosen,
        began,
        None if nested is None else _budgets(method, nested, ipc),
    )


def checked(
    data: ImageData,
    method: str,
    ipc: int,
    factor: int | None,
    preset: str,
    seed: int,
    settings: dict[str, Any],
) -> tuple[int, int, int, Any]:
    """Return IPC, factor and seed as Python ints, and the settings, after checking all of them."""
    own = factor_of(method, checks.instance("data", data, ImageData).size)
    ipc, seed = checks.whole("ipc", ipc, 1), checks.seed("seed", seed)
    factor = own if factor is None else factor
    formation.cell_size(data.size, factor)
    chosen = METHODS[method].settings_for(preset, data.size, ipc, settings)
    data.require_per_class(f"ipc={ipc} with factor={factor}", ipc * factor**2)
    return ipc, int(factor), seed, chosen


def _checked_start(start: CondensedSet, data: ImageData, ipc: int, factor: int) -> CondensedSet:
    """Return `start` if its classes, shape, IPC and factor are those of the set to make.

    Otherwise a ValueError is raised.
    """
    checks.instance("start", start, CondensedSet)
    if not start.bounded or start.soft:
        raise ValueError(
            "start must hold images in 0..1 with one class each, but this set is unbounded or has "
            "soft labels"
        )
    check_fits(start, data, "start")
    wanted = {"ipc": ipc, "factor": factor}
    differ = [
        f"{name} must be {value!r}, got {getattr(start, name)!r}"
        for name, value in wanted.items()
        if getattr(start, name) != value
    ]
    if differ:
        raise ValueError(f"start does not fit: {'; '.join(differ)}")
    return start


def _budgets(method: str, nested: bool | Sequence[int], ipc: int) -> list[int]:
    """Return the budgets of a nested set, if the method can make one."""
    if not METHODS[method].nests:
        allowed = ", ".join(m.name for m in METHODS.values() if m.nests)
        raise ValueError(f"nested={nested!r} is for {allowed}, got method={method!r}")
    return nesting.budgets(nested, ipc)
