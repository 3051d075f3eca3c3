"""The state of long work: what a checkpoint holds of it."""

from jaxtyping import Shaped
from torch import Tensor

State = dict[str, Shaped[Tensor, "..."]]  # by name
