"""yoco: condense a dataset once, then resize the result to any budget by two rules (You Only Condense Once).

Submodules are imported when they are first used, so that `import yoco` and the command line's help do not wait for torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yoco import (
        ablations,
        condense,
        data,
        dynamics,
        evaluate,
        explore,
        formation,
        models,
        noise,
        paper,
        params,
        plots,
        prune,
        runs,
        scores,
        study,
        tables,
        zoo,
    )
    from yoco.condensed import CondensedSet
    from yoco.ranked import RankedSet

__version__ = "0.1.0"  # pyproject.toml reads it here
__all__ = [
    "CondensedSet", "RankedSet", "ablations", "condense", "data", "dynamics", "evaluate", "explore", "formation", "models", "noise",
    "paper", "params", "plots", "prune", "runs", "scores", "study", "tables", "zoo",
]  # fmt: skip
_CLASSES = {"CondensedSet": "yoco.condensed", "RankedSet": "yoco.ranked"}  # the other public names are submodules


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for (PEP 562). Python keeps a submodule in the package; a class is kept here."""
    if name not in __all__:
        raise AttributeError(f"module 'yoco' has no attribute {name!r}")
    if name in _CLASSES:
        globals()[name] = getattr(importlib.import_module(_CLASSES[name]), name)
        return globals()[name]
    return importlib.import_module(f"yoco.{name}")


def __dir__() -> list[str]:
    """All public names, imported or not, for completion."""
    return sorted({*globals(), *__all__})
