"""The loss of NCFM: the distance between characteristic functions of features, of real images and
of prefixes (design §5).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SCALE = 300.0  # the published factor
TINY = 1e-12  # under the root, as published: its slope at 0 is finite


def characteristic(features: Tensor, frequencies: Tensor, averages: Tensor) -> Tensor:
    """Characteristic functions of weighted sets of each class's features: φ(t) = Σ w exp(i
    t·f/‖f‖).

    features: float [K, n, D], in whose type the products t·f are taken (bfloat16 turns the images'
    gradient by 0.3 degrees); frequencies: float32 [T, D]; averages: float32 [P, n], the weights w
    of P sets, each row of sum 1. Returns float32 [2, K, P, T], real and imaginary parts.
    """
    unit = F.normalize(features.float(), dim=-1).to(features.dtype)
    angles = (unit @ frequencies.T.to(features.dtype)).float()
    return averages @ torch.stack((angles.cos(), angles.sin()))


def distance(real: Tensor, synthetic: Tensor) -> Tensor:
    """300 · mean over t of |φ_r − φ_s| / √2, of characteristic functions [2, K, 1 or P, T].

    Returns [K, P], each at least 0.

    The published loss, √(½(|φ_r|−|φ_s|)² + ½·2(|φ_r||φ_s| − Re φ_r Re φ_s − Im φ_r Im φ_s)), is the
    same:
    |φ_r − φ_s|² is the sum of the two terms under the root without the ½.
    """
    return SCALE * ((real - synthetic).square().sum(0) / 2 + TINY).sqrt().mean(-1)


def prefix_averages(prefixes: Sequence[int], count: int) -> Tensor:
    """Weights float32 [len(prefixes), count] whose row p averages the first prefixes[p] of
    `count`.
    """
    ends = torch.tensor(list(prefixes)).view(-1, 1)
    return (torch.arange(count) < ends).float() / ends


def prefix_weights(prefixes: Sequence[int], power: float) -> Tensor:
    """What each prefix's distance counts in the loss, float32 [len(prefixes)] of sum 1: a prefix of
    k cells, k ** -power.
    """
    weights = torch.tensor(list(prefixes), dtype=torch.float32) ** -power
    return weights / weights.sum()
