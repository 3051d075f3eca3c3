"""Experiments: grids of prunings that are trained and tested (`study`), their file and tables, and
the paper's questions.

`grid` lays out a study; `condensations` and `by_bytes` are two special studies. `ablations` takes
parts of YOCO away, `noise` and `corruption` ask who keeps damaged images, `lemma1` checks the
paper's lemma, `paper` holds the published numbers.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
