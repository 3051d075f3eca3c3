"""k-means, and the points nearest to its centres: the prototypes of SSP, the representative images
of DREAM.
"""

import math

import torch
from torch import Generator, Tensor

from yoco.utils import checks

ITERATIONS = 10  # of Lloyd's algorithm: more move few points, and DREAM clusters all the time


def kmeans(
    points: Tensor, clusters: int, source: Generator, iterations: int = ITERATIONS
) -> Tensor:
    """Centres [clusters, D] of `points` (float [N, D], on any device) by Lloyd's algorithm from a
    k-means++ start.

    A cluster that loses its points keeps its centre. Raises TypeError or ValueError if clusters is
    not in 1..N, or points are not such a tensor, or so large that squared distances overflow.
    """
    if not measurable(points := checks.wide(checks.floats("points", points, "N", "D"))):
        raise ValueError("points must be finite, with finite squared distances, in their precision")
    checks.whole("clusters", clusters, 1, len(points))
    centres = _spread_start(points, clusters, source)
    for _ in range(iterations):
        nearest = _squared_distances(points, centres).argmin(1)
        counts = torch.bincount(nearest, minlength=clusters).to(points.dtype).unsqueeze(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        moved = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres


def pass_over(clusters: int, source: Generator) -> None:
    """Draw from `source` as much as `kmeans` of any points does with so many clusters, for who
    leaves the work to another.
    """
    _spread_start(torch.zeros(1, 1), clusters, source)


def measurable(points: Tensor) -> bool:
    """Whether points [N, D], and the squared distances between them, are finite in their
    precision.
    """
    return bool(torch.isfinite((2 * points).square().sum(1)).all())


def _spread_start(points: Tensor, clusters: int, source: Generator) -> Tensor:
    """Greedy k-means++: of a few points, drawn with a chance that grows as their squared distance
    from the centres so far, the one that brings all points nearest to a centre.
    """
    tried = 2 + int(math.log(clusters))  # as scikit-learn's
    norms = (points**2).sum(1)
    drawn = torch.randint(len(points), (tried,), generator=source)
    distance, centres = torch.full((len(points), 1), float("inf"), device=points.device), []
    for _ in range(clusters):
        candidates = points[drawn.to(points.device)]
        # [N, tried]
        nearer = distance.minimum(norms[:, None] + _squared_distances(points, candidates)).clamp(
            min=0
        )
        best = nearer.sum(0).argmin()
        centres.append(candidates[best])
        distance = nearer[:, best, None]
        chances = distance.flatten().cpu().double()
        drawn = torch.multinomial(
            chances if chances.any() else torch.ones_like(chances),
            tried,
            replacement=True,
            generator=source,
        )
    return torch.stack(centres)


def _squared_distances(points: Tensor, centres: Tensor) -> Tensor:
    """Up to a constant of each point, [N, n]: one matrix product."""
    return (centres**2).sum(1) - 2 * points @ centres.T


def nearest_to(centres: Tensor, points: Tensor, *, farthest: bool = False) -> Tensor:
    """For each centre [n, D] the nearest point of [N, D] that no centre before it took, int64 [n],
    n at most N; ties: the lower index.

    farthest: of the points nearest to a centre, the one farthest from it.
    """
    distance = torch.cdist(points, centres, compute_mode="donot_use_mm_for_euclid_dist").cpu()
    # both points of a cluster of two are as near, but for rounding
    rounding = 1e-9 * distance.max()
    if farthest:
        own = torch.nn.functional.one_hot(distance.argmin(1), len(centres)).bool()
        distance = torch.where(own, -distance, distance)
    chosen: list[int] = []
    for column in distance.T:
        column[chosen] = float("inf")
        chosen.append(int(torch.nonzero(column <= column.min() + rounding)[0]))
    return torch.tensor(chosen)


def representatives(points: Tensor, count: int, source: Generator) -> Tensor:
    """Indices int64 [count] of the points [N, D] nearest to the centres of as many clusters: all
    different, evenly spread.

    Raises ValueError if count is not in 1..N.
    """
    return nearest_to(kmeans(points, count, source), checks.wide(points))
