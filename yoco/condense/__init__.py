"""Condensation: from a training set to a few synthetic images per class.

`base` is the contract of a method and `methods` lists the methods. Each is one file (`idc`,
`dream`, `dsa`, `mtt`, `kip`, `ncfm`); files that only it needs begin with its name. `presets` holds
the sizes of a run.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
