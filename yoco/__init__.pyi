from . import condense as condense
from . import data as data
from . import dynamics as dynamics
from . import evaluate as evaluate
from . import explore as explore
from . import formation as formation
from . import models as models
from . import plots as plots
from . import prune as prune
from . import scores as scores
from . import workflow as workflow
from . import zoo as zoo
from .experiments import study as study
from .sets import CondensedSet as CondensedSet
from .sets import RankedSet as RankedSet

__version__: str
