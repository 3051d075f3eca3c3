"""yoco: condense a dataset once, then resize the result to any budget by two rules (You Only Condense Once)."""

import importlib
from typing import TYPE_CHECKING, Any

from yoco import ablations, condense, data, dynamics, evaluate, formation, models, paper, prune, scores, study, tables, zoo
from yoco.condensed import CondensedSet, RankedSet

if TYPE_CHECKING:
    from yoco import explore, params, plots, runs

__version__ = "0.1.0"
__all__ = [
    "CondensedSet", "RankedSet", "ablations", "condense", "data", "dynamics", "evaluate", "explore", "formation", "models", "params",
    "paper", "plots", "prune", "runs", "scores", "study", "tables", "zoo",
]
_LATER = ("explore", "params", "plots", "runs")  # need matplotlib, ipywidgets or pydantic: imported when asked for


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return importlib.import_module(f"yoco.{name}")
    raise AttributeError(f"module 'yoco' has no attribute {name!r}")
