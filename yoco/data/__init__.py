"""Datasets: names, folders and arrays into images as bytes, and batches of them into what networks
train on.

`datasets` finds and reads them, `decode` and `pixel_cache` turn image files into one mapped file,
`normalise` turns bytes into normalised floats, `batches` indexes them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
