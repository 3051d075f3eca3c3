"""The work of the notebooks and the command line: parameters, run folders, sweeps.

`run_folder` is the folder of a run. Each step that fills it is one file (`condensation`,
`recordings`, `comparison`, `pruning`, `ablations`, `noise`): it uses what an earlier run left and
makes the rest. `parameters` declares the parameters of each notebook.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
