"""Datasets: from names, folders and arrays to uint8 images and batches of floats.

`image_data` is what a dataset becomes; `datasets` finds one by its name (`builtin`, `folders`) and
`arrays` takes one from memory. `decode` and `pixel_cache` turn image files into one mapped file,
`normalise` turns bytes into normalised floats, `batches` indexes them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
