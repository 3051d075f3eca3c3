"""Pruning: which formed images are kept.

`methods` declares the rules, `select` applies them, `ranking` orders the images once for every
budget.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
