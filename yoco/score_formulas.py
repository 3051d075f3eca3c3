"""The formulas of the scores: pure functions from arrays to one number per formed image.

N images, K classes, E epochs.
"""

import warnings

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from yoco.dynamics.dynamics import forgotten, margin, top_epochs
from yoco.utils import checks, seeds
from yoco.utils import kmeans as clusters

OUTPUTS = ("probabilities", "logits")
AVERAGES = ("mean", "trimmed")
TRIM = 0.2  # share of the epochs that the trimmed mean leaves out at each end


def _errors(logits: Tensor, labels: Tensor, output: str) -> Tensor:
    """Return ‖p - y‖₂ of every epoch and image, [E, N].

    p: the softmax of the logits, or the logits themselves. y: one-hot or soft labels.
    """
    p = logits.softmax(-1) if output == "probabilities" else logits
    return (p - (labels if labels.ndim == 2 else F.one_hot(labels, logits.shape[-1]))).norm(dim=-1)


def _mean(values: Tensor) -> Tensor:
    """Return the mean over the epochs, [N] of [E, N], summed epoch by epoch.

    torch's own mean rounds differently by an image's position and so would rank equal images.
    """
    total = sum(
        values.double().unbind(),
        torch.zeros(values.shape[1:], dtype=torch.float64, device=values.device),
    )
    return (total / len(values)).to(values.dtype)


def _trimmed(values: Tensor) -> Tensor:
    """Return the mean over the epochs, [N] of [E, N], without the extremes of each image.

    The share `TRIM` of its highest and of its lowest values is left out.
    """
    out = int(len(values) * TRIM)
    return _mean(values.sort(dim=0).values[out : len(values) - out])


def _check(logits: Tensor, labels: Tensor, *, soft: bool = False) -> Tensor:
    """Return the logits [E, N, K], in float32 or wider. soft: labels may be soft targets."""
    wide = _checked_floats("logits", logits, "E", "N", "K")
    (checks.targets if soft else checks.labels)("labels", labels, logits.shape[1], logits.shape[2])
    return wide


def _checked_floats(name: str, values: Tensor, *dimensions: str) -> Tensor:
    """Return finite floats of this shape without empty dimensions, in float32 or wider."""
    return checks.wide(checks.finite(name, checks.floats(name, values, *dimensions)))


def lbpe(
    logits: Float[Tensor, "epochs images classes"],
    labels: Int[Tensor, "images"] | Float[Tensor, "images classes"],
    *,
    top_k: int = 10,
    within: int = 100,
    output: str = "probabilities",
    average: str = "mean",
) -> Float[Tensor, "images"]:
    """Logit-based prediction error (design §5).

    The mean of ‖p - y‖₂ over the `top_k` epochs of highest training accuracy among the first
    `within`; y is the one-hot or soft label.

    Args:
        logits: float [E, N, K], of all epochs from the first.
        labels: int64 [N], or soft targets [N, K], whose argmax counts for the accuracy.
        top_k, within: if there are fewer epochs than asked for, all are used.
        output: "probabilities" (p is the softmax) or "logits" (the ablation).
        average: "mean" over the epochs (the paper's) or "trimmed", a robust one without the highest
            and the lowest fifth of each image's errors (the mean if there are fewer than five
            epochs).

    Returns:
        float [N], from probabilities in 0..√2; higher is harder. With one class (K = 1), p is 1 and
            every score 0.

    Raises:
        TypeError, ValueError: if shapes are bad, there is no epoch or image, labels are out of
            range, or a value is NaN.
    """
    logits = _check(logits, labels, soft=True)
    checks.one_of("output", output, OUTPUTS)
    checks.one_of("average", average, AVERAGES)
    accuracy = (
        (logits.argmax(-1) == (labels.argmax(1) if labels.ndim == 2 else labels)).float().mean(1)
    )
    chosen = top_epochs(accuracy, top_k, within)
    return (_mean if average == "mean" else _trimmed)(_errors(logits[chosen], labels, output))


def two_sided(
    errors: Float[Tensor, "runs images"], labels: Int[Tensor, "images"], *, cut: float = 0.05
) -> Float[Tensor, "images"]:
    """Mean rank within the class over several runs; images at a common extreme come last.

    These are the images that every run has among the easiest `cut` of their class, or that every
    run has among the hardest. It is meant to repair LBPE on noisy data.

    Args:
        errors: float [R, N], a score from each of R runs; higher is harder.
        labels: int64 [N].
        cut: share of a class, in 0..0.5, rounded down to whole images.

    Returns:
        float [N]: the mean rank in 0..1, plus 1 for the images at an extreme; higher is harder.

    Raises:
        TypeError, ValueError: if shapes, labels or cut are bad, or a value is NaN.
    """
    _checked_floats("errors", errors, "R", "N")
    checks.labels("labels", labels, errors.shape[1])
    cut = checks.real("cut", cut, 0, 0.5)
    score = torch.empty(errors.shape[1], dtype=torch.float64)
    for label in labels.unique():
        members = torch.nonzero(labels == label).flatten()
        ranks = errors[:, members].argsort(dim=1, stable=True).argsort(dim=1)
        ends = int(len(members) * cut)
        agreed = (ranks < ends).all(0) | (ranks >= len(members) - ends).all(0)
        score[members] = ranks.double().mean(0) / len(members) + agreed.double()
    return score


def el2n(
    logits: Float[Tensor, "epochs images classes"],
    labels: Int[Tensor, "images"] | Float[Tensor, "images classes"],
    *,
    epochs: int = 10,
) -> Float[Tensor, "images"]:
    """Error L2 norm: mean of ‖softmax - y‖₂ over the first `epochs` epochs (appendix B.1.3).

    Args:
        logits: float [E, N, K].
        labels: int64 [N] or soft targets [N, K]; y is the one-hot or soft label.
        epochs: at least 1.

    Returns:
        float [N] in 0..√2 (0 for K = 1); higher is harder.

    Raises:
        TypeError, ValueError: as `lbpe`.
    """
    logits = _check(logits, labels, soft=True)
    checks.whole("epochs", epochs, 1)
    return _mean(_errors(logits[:epochs], labels, "probabilities"))


def aum(
    logits: Float[Tensor, "epochs images classes"], labels: Int[Tensor, "images"]
) -> Float[Tensor, "images"]:
    """Area under the margin: mean margin over all epochs (appendix B.1.3).

    The margin is the label's logit minus the largest other logit.

    Args:
        logits: float [E, N, K].
        labels: int64 [N].

    Returns:
        float [N] of any sign; LOWER is harder.

    Raises:
        TypeError, ValueError: as `lbpe`, and for K = 1, since there is no other logit.
    """
    return _mean(margin(_check(logits, labels), labels))


def forgetting(correct: Bool[Tensor, "epochs images"]) -> Float[Tensor, "images"]:
    """Number of times an image goes from right to wrong between epochs (appendix B.1.3).

    Args:
        correct: bool [E, N], with at least one epoch and image.

    Returns:
        float [N] in 0..E/2; higher is harder. An image that was never right has 0, and so has every
            image if E is 1.

    Raises:
        TypeError, ValueError: for any other array.
    """
    checks.tensor("correct", correct, "[E, N]")
    if correct.ndim != 2 or correct.dtype != torch.bool:
        raise TypeError(f"correct must be bool [E, N], got {correct.dtype} {list(correct.shape)}")
    if 0 in correct.shape:
        raise ValueError(
            f"correct must hold at least one epoch and one image, got {list(correct.shape)}"
        )
    return forgotten(correct)


def entropy(logits: Float[Tensor, "images classes"]) -> Float[Tensor, "images"]:
    """Entropy in nats of the trained network's softmax (appendix B.1.3).

    Args:
        logits: float [N, K].

    Returns:
        float [N] in 0..log K (0 for K = 1); higher is harder.

    Raises:
        TypeError, ValueError: if the type or shape is another, there is no image, or a value is
            NaN.
    """
    log_p = _checked_floats("logits", logits, "N", "K").log_softmax(-1)
    # 0 times minus infinity counts as 0
    return -(log_p.exp() * log_p.clamp(min=torch.finfo(log_p.dtype).min)).sum(-1)


def ssp(
    features: Float[Tensor, "all features"], n: int, *, seed: int = 0, farthest: bool = False
) -> Int[Tensor, "kept"]:
    """Self-supervised prototypes: keep the image nearest to each k-means centre (appendix B.1.3).

    Args:
        features: float [N, D], the trained network's embedding.
        n: number of clusters and of images to keep, 1..N.
        seed: seed of k-means.
        farthest: keep in each cluster the image farthest from its centre instead (the hard end).

    Returns:
        int64 indices [n], all different, in the order of the clusters; ties: the lower index. A
            cluster left empty by duplicates takes the nearest image that is still free.

    Raises:
        TypeError, ValueError: if features, n or the seed (0..2**32-1) are bad, or squared distances
            overflow.
    """
    with seeds.importing():
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

    points = _checked_floats("features", features, "N", "D").detach().double()
    if not clusters.measurable(points):
        raise ValueError("features must have finite squared distances")
    n, seed = checks.whole("n", n, 1, len(features)), checks.seed("seed", seed)
    checks.flag("farthest", farthest)
    points = _in_their_span(points)
    # it warns of fewer different points than clusters; the empty ones are filled below
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = KMeans(n, random_state=seed, n_init=4).fit(points.numpy())
    centres = torch.from_numpy(found.cluster_centers_)
    return clusters.nearest_to(centres, points, farthest=farthest)


def _in_their_span(points: Tensor) -> Tensor:
    """Return coordinates with the same distances in at most N dimensions, [N, min(N, D)].

    400 images of 2,048 features are clustered five times faster this way.
    """
    if points.shape[0] >= points.shape[1]:
        return points
    return torch.linalg.qr(points.T, mode="r").R.T.contiguous()
