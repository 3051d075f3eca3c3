"""Libraries that import slowly, as modules imported on first use: `from yoco.utils.lazy import pd`.

A file that names them in annotations needs `from __future__ import annotations`.
"""

import importlib
from typing import TYPE_CHECKING, Any


class Module:
    """Stands for the module `name` until one of its attributes is used."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


if TYPE_CHECKING:
    import loky
    import matplotlib.pyplot as plt
    import pandas as pd
    import seaborn as sns
else:
    # a machine that trains in one process needs no loky
    loky = Module("loky")
    plt, pd, sns = Module("matplotlib.pyplot"), Module("pandas"), Module("seaborn")
