"""k-means and the points nearest to its centres: SSP's prototypes, DREAM's representatives."""

import math

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from yoco.utils import checks

ITERATIONS = 10  # of Lloyd's algorithm: later ones move few points, and DREAM clusters often


def kmeans(
    points: Float[Tensor, "points features"], clusters: int, source: Generator
) -> Float[Tensor, "{clusters} features"]:
    """Return the centres of clusters found by Lloyd's algorithm from a k-means++ start.

    A cluster that loses all of its points keeps its centre.

    Args:
        points: on any device.
        clusters: number of clusters, 1..n.
        source: generator of the k-means++ draws.

    Raises:
        TypeError: if an argument is of another type.
        ValueError: if clusters is out of range or squared distances overflow.
    """
    if not measurable(points := checks.wide(checks.floats("points", points, "N", "D"))):
        raise ValueError("points must be finite, with finite squared distances, in their precision")
    checks.whole("clusters", clusters, 1, len(points))
    centres = _spread_start(points, clusters, source)
    for _ in range(ITERATIONS):
        nearest = _squared_distances(points, centres).argmin(1)
        counts = torch.bincount(nearest, minlength=clusters).to(points.dtype).unsqueeze(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        moved = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres


def pass_over(clusters: int, source: Generator) -> None:
    """Make the draws of `kmeans`, so that ranks that skip the clustering stay in step."""
    _spread_start(torch.zeros(1, 1), clusters, source)


def measurable(points: Float[Tensor, "points features"]) -> bool:
    """Return whether points and their squared distances are finite in their precision."""
    return bool(torch.isfinite((2 * points).square().sum(1)).all())


def _spread_start(points: Tensor, clusters: int, source: Generator) -> Tensor:
    """Greedy k-means++: choose the start centres one by one.

    Each one is the best of a few candidates, drawn with probabilities proportional to the squared
    distance from the centres so far; the best minimises the total squared distance of the points to
    their nearest centres.
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
    """Squared distances [N, n] without each point's own norm: one matrix product."""
    return (centres**2).sum(1) - 2 * points @ centres.T


def nearest_to(
    centres: Float[Tensor, "clusters features"],
    points: Float[Tensor, "points features"],
    *,
    farthest: bool = False,
) -> Int[Tensor, "clusters"]:
    """Return for each centre the nearest point that no earlier centre took; ties: the lower index.

    Args:
        centres: at most n.
        points: those to choose from.
        farthest: take instead, of the points that are nearer to this centre than to any other, the
            one farthest from it.
    """
    distance = torch.cdist(points, centres, compute_mode="donot_use_mm_for_euclid_dist").cpu()
    # in a cluster of two, both points are equally near up to rounding
    rounding = 1e-9 * distance.max()
    if farthest:
        own = torch.nn.functional.one_hot(distance.argmin(1), len(centres)).bool()
        distance = torch.where(own, -distance, distance)
    chosen: list[int] = []
    for column in distance.T:
        column[chosen] = float("inf")
        chosen.append(int(torch.nonzero(column <= column.min() + rounding)[0]))
    return torch.tensor(chosen)


def representatives(
    points: Float[Tensor, "points features"], count: int, source: Generator
) -> Int[Tensor, "{count}"]:
    """Return the indices of the points nearest to the centres of `count` clusters.

    The indices all differ, and the points are evenly spread. Raises ValueError if count is not in
    1..n.
    """
    return nearest_to(kmeans(points, count, source), checks.wide(points))
