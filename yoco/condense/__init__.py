"""Condensation: a training set into a few synthetic images per class.

`base` is the contract that a method fulfils and `methods` lists them; each method is one file
(`idc`, `dream`, `dsa`, `mtt`, `kip`, `ncfm`), with what only it needs in files that begin with its
name. `presets` holds the sizes of a run.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
