"""The work of the notebooks and the command line: typed parameters, the folder that a run keeps its
files in, sweeps.

`run_folder` is the folder; each step that fills it is one file (`condensation`, `recordings`,
`comparison`, `pruning`, `ablations`, `noise`): what an earlier run left is used, the rest is made.
`parameters` declares what a notebook can be asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
