"""Dynamics: what one training run showed for each formed image, epoch by epoch.

Every score is computed from them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
