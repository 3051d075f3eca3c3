"""Dynamics: what one training run showed of each formed image in every epoch.

Every score is computed from them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
