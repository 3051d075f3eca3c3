"""Figures: each function takes data, draws on `ax` (or a new figure), and returns the Axes, or the
Figure if it holds several.

`charts` draws numbers, `images` draws images, `figures` puts several together, `style` says how
they look.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
