"""Sets of condensed images: `CondensedSet`, what condensation makes; `RankedSet`, of which any
prefix is a good subset; and the files that other authors publish (`published`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
