"""The loss of NCFM: the distance between characteristic functions of features (design §5).

It compares real images with prefixes of the synthetic ones.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SCALE = 300.0  # the published factor
TINY = 1e-12  # under the root, as published, to keep its slope at 0 finite


def characteristic(
    features: Float[Tensor, "classes images features"],
    frequencies: Float[Tensor, "frequencies features"],
    averages: Float[Tensor, "prefixes images"],
    shares: Float[Tensor, "prefixes images"] | None = None,
) -> Float[Tensor, "2 classes prefixes frequencies"]:
    """Return characteristic functions of weighted sets of each class's features.

    φ(t) = Σ w exp(i t·f/‖f‖).

    Args:
        features: float [K, n, D]; the products t·f are taken in their dtype (bfloat16 turns the
            images' gradient by 0.3 degrees).
        frequencies: float32 [T, D].
        averages: float32 [P, n], the weights w of P sets, each row with sum 1.
        shares: float32 [P, n] in 0..1, of each set's gradient that reaches each feature (see
            `prefix_shares`). None: all of it.

    Returns:
        float32 [2, K, P, T], real and imaginary parts.
    """
    unit = F.normalize(features.float(), dim=-1).to(features.dtype)
    angles = (unit @ frequencies.T.to(features.dtype)).float()
    waves = torch.stack((angles.cos(), angles.sin()))
    if shares is None:
        return averages @ waves
    return (averages * shares) @ waves + (averages * (1 - shares)) @ waves.detach()


def distance(
    real: Float[Tensor, "2 classes #prefixes frequencies"],
    synthetic: Float[Tensor, "2 classes prefixes frequencies"],
) -> Float[Tensor, "classes prefixes"]:
    """Return 300 · mean over t of |φ_r − φ_s| / √2, [K, P], each at least 0.

    The arguments are characteristic functions [2, K, 1 or P, T]. The published loss,
    √(½(|φ_r|−|φ_s|)² + ½·2(|φ_r||φ_s| − Re φ_r Re φ_s − Im φ_r Im φ_s)), is the same: |φ_r − φ_s|²
    is the sum of the two terms under the root without the ½.
    """
    return SCALE * ((real - synthetic).square().sum(0) / 2 + TINY).sqrt().mean(-1)


def prefix_averages(prefixes: Sequence[int], count: int) -> Float[Tensor, "prefixes images"]:
    """Return weights float32 [len(prefixes), count]: row p averages the first prefixes[p]."""
    ends = torch.tensor(list(prefixes)).view(-1, 1)
    return (torch.arange(count) < ends).float() / ends


def prefix_shares(
    prefixes: Sequence[int], count: int, inner: float
) -> Float[Tensor, "prefixes images"]:
    """Return the share of each prefix's gradient that reaches each image.

    float32 [len(prefixes), count]: `inner` for the images of the previous prefix, which have
    a loss of their own, and 1 for the others.
    """
    before = torch.tensor([0, *prefixes[:-1]]).view(-1, 1)
    return torch.where(torch.arange(count) < before, inner, 1.0)
