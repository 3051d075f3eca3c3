"""Training one network by a `protocol`: steps, epochs and runs (`network`), and the resumable loop.

`resumable` is the loop that all long work runs in.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
