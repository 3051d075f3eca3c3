"""yoco: condense a dataset once, then resize the result to any budget (You Only Condense Once).

Submodules are imported on first use, so that `import yoco` and the command line's help do not wait
for torch.
"""

from typing import Any

import lazy_loader

from yoco.utils import above, moved

__version__ = "0.1.0"  # pyproject.toml reads it here
_exported, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562); old names of version 0.1 give a warning."""
    if f"yoco.{name}" in moved.MODULES:
        return moved.attribute(f"yoco.{name}")
    if name in __all__:
        return _exported(name)
    raise AttributeError(f"module 'yoco' has no attribute {name!r}")


def _rank(*arguments: Any, **options: Any) -> Any:
    """Call `prune.rank` for `CondensedSet.rank`, which is in a layer below pruning."""
    return _exported("prune").rank(*arguments, **options)


def _lbpe_declared(method: str, factor: int) -> tuple[int, int] | None:
    """Return what a condensation method declares for `dynamics.lbpe_settings`, a layer below."""
    known = _exported("condense").METHODS.get(method)
    return known and known.lbpe_at(factor)


above.FUNCTIONS |= {"rank": _rank, "lbpe_declared": _lbpe_declared}
moved.install()
