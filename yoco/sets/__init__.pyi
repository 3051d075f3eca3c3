from .condensed_set import CondensedSet as CondensedSet
from .ranked_set import RankedSet as RankedSet
