from . import ablations as ablations
from . import corruption as corruption
from . import lemma1 as lemma1
from . import noise as noise
from . import paper as paper
from . import study as study
from . import tables as tables
