"""Experiments: studies of prunings that are trained and tested, and the paper's questions.

`study` runs a grid, `results_file` and `tables` hold what it finds. `ablations` removes parts of
YOCO, `noise` and `corruption` ask which rules keep damaged images, `lemma1` checks the paper's
lemma, `paper` holds the published numbers.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
