"""Import paths of version 0.1 that moved.

They keep working for one more version and give the very modules that replaced them.
"""

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MODULES = {
    "yoco.ablations": "yoco.experiments.ablations",
    "yoco.charts": "yoco.plots.charts",
    "yoco.clusters": "yoco.utils.kmeans",
    "yoco.condensed": "yoco.sets.condensed_set",
    "yoco.damage": "yoco.experiments.corruption",
    "yoco.device": "yoco.utils.device",
    "yoco.files": "yoco.utils.tensor_files",
    "yoco.lemma": "yoco.experiments.lemma1",
    "yoco.noise": "yoco.experiments.noise",
    "yoco.paper": "yoco.experiments.paper",
    "yoco.params": "yoco.workflow.parameters",
    "yoco.pictures": "yoco.plots.images",
    "yoco.published": "yoco.sets.published",
    "yoco.ranked": "yoco.sets.ranked_set",
    "yoco.runs": "yoco.workflow",
    "yoco.seeds": "yoco.utils.seeds",
    "yoco.study": "yoco.experiments.study",
    "yoco.style": "yoco.plots.style",
    "yoco.sweep": "yoco.workflow.sweep",
    "yoco.tables": "yoco.experiments.tables",
    "yoco.train": "yoco.training.network",
}
KEPT = {"yoco.study"}  # short names that stay (design §4)
# names that the old module had and the new one has not, by where they are now
ELSEWHERE = {
    "yoco.charts": {
        "yoco.prune": ["score_names"],
        "yoco.plots": [
            "score_distributions",
            "rank_correlations",
            "trajectories",
            "margins",
            "right_and_wrong",
        ],
    },
    "yoco.paper": {
        "yoco.prune.ccs_cutoffs": ["ccs_cutoffs", "dataset_of", "most_like", "hard_cutoff"]
    },
}


class Finder(MetaPathFinder, Loader):
    """Finds what no other finder does: `import yoco.tables` gives `yoco.experiments.tables`."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec for an old path, loaded by `exec_module`."""
        return ModuleSpec(name, self) if name in MODULES else None

    def exec_module(self, module: ModuleType) -> None:
        """Put the new module into `sys.modules` under the old name; the import returns it."""
        _warn(module.__name__)
        sys.modules[module.__name__] = _successor(module.__name__)


def install() -> None:
    """Register the finder for old paths after all others."""
    if not any(type(finder).__qualname__ == Finder.__qualname__ for finder in sys.meta_path):
        sys.meta_path.append(Finder())


def attribute(old: str) -> ModuleType:
    """Return the module behind an old path, for a package's `__getattr__`."""
    _warn(old, stacklevel=4)
    return _successor(old)


def _successor(old: str) -> ModuleType:
    """Return the module behind an old path, with the names that went elsewhere."""
    module = importlib.import_module(MODULES[old])
    for place, names in ELSEWHERE.get(old, {}).items():
        there = importlib.import_module(place)
        vars(module).update({name: getattr(there, name) for name in names})
    return module


def _warn(old: str, stacklevel: int = 3) -> None:
    if old not in KEPT:
        warnings.warn(
            f"{old} is {MODULES[old]} now; the next version removes the old path",
            DeprecationWarning,
            stacklevel,
        )
