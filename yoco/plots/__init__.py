"""Figures: each function takes data, draws on `ax` (or a new figure) and returns the Axes.

Functions that draw several Axes return the Figure. `charts` and `score_charts` draw numbers,
`images` draws images, `figures` combines several, and `style` defines the look.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
