"""Training one network: steps, epochs and schedules (`network`).

The loop that can be interrupted and resumed is in `resumable`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
