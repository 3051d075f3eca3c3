"""One call of `benchmarks.gpu`: its folders, its time and what it works on; and a stage of it."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import mosaic, packed_folder, packed_pool
from benchmarks.gpu_plan import Plan
from yoco import condense, data, workflow
from yoco.condense.ncfm_settings import NcfmSettings
from yoco.data import ImageData
from yoco.sets.condensed_set import CondensedSet


@dataclass(frozen=True)
class Job:
    """One call.

    Attributes:
        out: folder that travels from call to call, with few files.
        scratch: folder that is gone after the call.
        real: the real images, loaded once for all stages.
        device: where everything is done.
        plan: how large it is.
        end: when the call has to be over, by the monotonic clock.
    """

    out: Path
    scratch: Path
    real: ImageData
    device: str
    plan: Plan
    end: float

    def left(self) -> float:
        """Return the seconds that are left."""
        return max(0.0, self.end - time.monotonic())

    @property
    def work(self) -> Path:
        """The folder of all files that the next call needs: sets, checkpoints, results."""
        return self.scratch / "work"

    def set(self, name: str) -> CondensedSet:
        """Return a set of the plan, which is given or has been made."""
        given = self.plan.recipes[name].given
        return workflow.load_set(given) if given else CondensedSet.load(self.made(name))

    def made(self, name: str) -> Path:
        """Return the path of a set that is made."""
        return self.work / f"{name}.safetensors"

    def ncfm_settings(self, ipc: int, settings: Mapping[str, Any]) -> NcfmSettings:
        """Return the settings of a run of NCFM with these arguments of `condense`."""
        own = {name: value for name, value in settings.items() if name != "nested"}
        preset = own.pop("preset")
        return condense.METHODS["ncfm"].settings_for(preset, self.real.size, ipc, own)

    def networks(self, settings: NcfmSettings) -> Path:
        """Return the folder of the networks of these settings, which runs share."""
        return self.scratch / f"networks-{settings.pool_networks}x{settings.pool_epochs}"

    def _pools(self) -> Iterator[NcfmSettings]:
        """Yield the settings of each pool of the plan."""
        wanted = [(r.ipc, r.settings) for r in self.plan.recipes.values() if r.method == "ncfm"]
        found = [self.ncfm_settings(*each) for each in wanted if each[1]]
        yield from {self.networks(settings): settings for settings in found}.values()

    def unpack(self) -> int:
        """Write what earlier calls have left into the folders of this one.

        Returns the number of files.
        """
        packed_folder.unpack(self.work, self.out)
        for settings in self._pools():
            folder = self.networks(settings)
            packed_pool.unpack(self._packed(folder), folder, self.real, settings.pool)
        return len(list(self.work.iterdir()))

    def pack(self) -> int:
        """Write what the next call needs into `out`; networks that are done, in float16.

        Returns the number of pieces.
        """
        for settings in self._pools():
            folder = self.networks(settings)
            if folder.exists():
                packed_pool.pack(folder, self._packed(folder))
        return packed_folder.pack(self.work, self.out)

    def _packed(self, folder: Path) -> Path:
        return self.work / f"{folder.name}.safetensors"


def load(source: str, likes: Iterable[str]) -> ImageData:
    """Return the real images, normalised as the first set that is given was, if there is one.

    source: a folder of `mosaic`, or the name of a dataset. likes: names of the sets.
    """
    packed = (Path(source) / mosaic.LABELS).exists()
    real = mosaic.load(source) if packed else data.load(source, progress=False)
    alike = next((workflow.load_set(name) for name in likes), real)
    return replace(real, mean=alike.mean, std=alike.std)


@dataclass(frozen=True)
class Stage:
    """One piece of work.

    Attributes:
        name: as the report has it.
        work: returns the stage's result, or None if its time ran out; it then goes on in the next
            call from what it has written.
        needs: stages without which it cannot begin.
        least: seconds below which it is not begun.
    """

    name: str
    work: Callable[[Job], Any]
    needs: tuple[str, ...] = ()
    least: float = 5.0
