"""What one condensation is asked to make, checked before any work."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from yoco import formation
from yoco.condense import nested as nesting
from yoco.condense.base import PACKING, Condensing, condensed_from
from yoco.condense.methods import METHODS, factor_of
from yoco.data.image_data import ImageData
from yoco.sets.condensed_set import CondensedSet
from yoco.sets.fits import check_fits
from yoco.utils import checks, digests, seeds


class Plan(NamedTuple):
    """What `condense` is asked to make, checked."""

    data: ImageData
    method: str
    ipc: int
    factor: int
    preset: str
    seed: int
    settings: Any
    start: CondensedSet | None = None
    nested: list[int] | None = None

    def identity(self, precision: str) -> dict[str, Any]:
        """Return what a checkpoint must share and `.info` says."""
        return {
            "method": self.method,
            "dataset": self.data.name,
            "images": len(self.data.train_images),
            "ipc": self.ipc,
            "factor": self.factor,
            "preset": self.preset,
            "settings": self.settings.record(),
            "seed": self.seed,
            "precision": precision,
            **({"start": self.start.fingerprint} if self.start else {"packing": PACKING}),
            **({"nested": self.nested} if self.nested else {}),
            digests.MADE_FROM: self.data.made_from,
        }

    def stepper(
        self, device: torch.device, precision: str, compiled: bool, **own: Any
    ) -> Condensing:
        """Return the method at its start; own: arguments that only some methods take."""
        source = seeds.generator(self.seed)
        machine = (device, precision, compiled)
        return METHODS[self.method].stepper(
            self.data, self.ipc, self.factor, self.settings, source, *machine, **own
        )

    def set_of(
        self, images: Float[Tensor, "images channels size size"], info: Mapping[str, Any]
    ) -> CondensedSet:
        """Return the condensed set of `images`."""
        return condensed_from(images, self.data, self.ipc, self.factor, self.method, info)


def planned(
    data: ImageData,
    method: str,
    ipc: int,
    factor: int | None,
    preset: str,
    seed: int,
    settings: Mapping[str, Any],
    start: CondensedSet | None = None,
    nested: bool | Sequence[int] | None = None,
) -> Plan:
    """Return the plan that these arguments of `condense` ask for, after checking all of them."""
    own = factor_of(method, checks.instance("data", data, ImageData).size)
    if start is not None:
        own = checks.instance("start", start, CondensedSet).factor
    ipc, seed = checks.whole("ipc", ipc, 1), checks.seed("seed", seed)
    factor = own if factor is None else factor
    formation.cell_size(data.size, factor)
    chosen = METHODS[method].settings_for(preset, data.size, ipc, settings)
    data.require_per_class(f"ipc={ipc} with factor={factor}", ipc * factor**2)
    plan = Plan(data, method, ipc, int(factor), preset, seed, chosen, start)
    if start is not None:
        _check_start(start, plan)
    return plan if nested is None else plan._replace(nested=_budgets(method, nested, ipc))


def _check_start(start: CondensedSet, plan: Plan) -> None:
    """Raise ValueError unless the classes, shape, IPC and factor of `start` are the plan's."""
    if not start.bounded or start.soft:
        raise ValueError(
            "start must hold images in 0..1 with one class each, but this set is unbounded or has "
            "soft labels"
        )
    check_fits(start, plan.data, "start")
    differ = [
        f"{name} must be {getattr(plan, name)!r}, got {getattr(start, name)!r}"
        for name in ("ipc", "factor")
        if getattr(start, name) != getattr(plan, name)
    ]
    if differ:
        raise ValueError(f"start does not fit: {'; '.join(differ)}")


def _budgets(method: str, nested: bool | Sequence[int], ipc: int) -> list[int]:
    """Return the budgets of a nested set, if the method can make one."""
    if not METHODS[method].nests:
        allowed = ", ".join(m.name for m in METHODS.values() if m.nests)
        raise ValueError(f"nested={nested!r} is for {allowed}, got method={method!r}")
    return nesting.budgets(nested, ipc)
