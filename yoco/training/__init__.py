"""Training one network by a `protocol`: steps and epochs (`network`), in a loop that can be
interrupted and resumed (`resumable`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
