"""Sets of condensed images.

`CondensedSet` is what condensation makes, and any prefix of a `RankedSet` is a good subset.
`published` reads the files of other authors.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
