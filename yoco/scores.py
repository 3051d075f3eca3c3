"""The scores: pure functions from arrays to one number per formed image.

N images, K classes, E epochs.

The end of the file registers each as a `Score`, which says how it is read from a training run, its
unit and its direction.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from yoco.dynamics.dynamics import Dynamics, forgotten, lbpe_settings, margin, top_epochs
from yoco.sets.condensed_set import CondensedSet
from yoco.utils import checks
from yoco.utils import kmeans as clusters

DIRECTIONS = ("high", "low")  # the end of a score that is hard
NEEDS = ("none", "early", "full")  # of a training run (appendix, Table 1)
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
    logits: Float[Tensor, "e n k"],
    labels: Int[Tensor, "n"] | Float[Tensor, "n k"],
    *,
    top_k: int = 10,
    within: int = 100,
    output: str = "probabilities",
    average: str = "mean",
) -> Float[Tensor, "n"]:
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
    errors: Float[Tensor, "r n"], labels: Int[Tensor, "n"], *, cut: float = 0.05
) -> Float[Tensor, "n"]:
    """Mean rank within the class over several runs; images at a common extreme come last.

    The latter are those that every run has among the easiest `cut` of their class, or that every
    run has among the hardest. This repairs LBPE for noisy data.

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
    logits: Float[Tensor, "e n k"],
    labels: Int[Tensor, "n"] | Float[Tensor, "n k"],
    *,
    epochs: int = 10,
) -> Float[Tensor, "n"]:
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


def aum(logits: Float[Tensor, "e n k"], labels: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
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


def forgetting(correct: Bool[Tensor, "e n"]) -> Float[Tensor, "n"]:
    """Number of epochs at which an image goes from right to wrong (appendix B.1.3).

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


def entropy(logits: Float[Tensor, "n k"]) -> Float[Tensor, "n"]:
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
    features: Float[Tensor, "all d"], n: int, *, seed: int = 0, farthest: bool = False
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
    from sklearn.cluster import KMeans

    points = _checked_floats("features", features, "N", "D").detach().double()
    if not clusters.measurable(points):
        raise ValueError("features must have finite squared distances")
    n, seed = checks.whole("n", n, 1, len(features)), checks.seed("seed", seed)
    checks.flag("farthest", farthest)
    points = _in_their_span(points)
    centres = torch.from_numpy(_kmeans(KMeans, points, n, seed))
    return clusters.nearest_to(centres, points, farthest=farthest)


def _in_their_span(points: Tensor) -> Tensor:
    """Return coordinates with the same distances in at most N dimensions, [N, min(N, D)].

    400 images of 2,048 features are clustered five times faster this way.
    """
    if points.shape[0] >= points.shape[1]:
        return points
    return torch.linalg.qr(points.T, mode="r").R.T.contiguous()


def _kmeans(kmeans: type, points: Tensor, n: int, seed: int):
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    # it warns of fewer different points than clusters: `ssp` fills the empty ones
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return kmeans(n, random_state=seed, n_init=4).fit(points.numpy()).cluster_centers_


@dataclass(frozen=True)
class Score:
    """One number per formed image, read from a training run.

    Registering a score (`register`) puts it into pruning, the score table, figures, notebooks and
    the command line.

    Attributes:
        name: its column in `prune.score_table`.
        title: short title for readers.
        unit: axis label: the name and the unit.
        direction: the end that is hard, "high" or "low".
        needs: what it needs of the training run: "none", "early" (the first epochs) or "full".
        function: (condensed, dynamics, **options) -> float [N], in the score's own direction. Its
            keyword-only parameters are the options of the score and of the pruning methods that use
            it.
    """

    name: str
    title: str
    unit: str
    direction: str
    needs: str
    function: Callable[..., Tensor]

    def __post_init__(self) -> None:
        checks.instance("name", self.name, str)
        checks.one_of("direction", self.direction, DIRECTIONS)
        checks.one_of("needs", self.needs, NEEDS)

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options that it reads."""
        return options_of(self.function)

    def read(
        self, condensed: CondensedSet, dynamics: Dynamics | None, **options: Any
    ) -> Float[Tensor, "n"]:
        """Return the score of every formed image, float [N], in its own direction.

        Raises TypeError or ValueError if an option is unknown or bad, or the dynamics are of
        another set or lack what the score needs.
        """
        what = f"score={self.name!r}"
        check_dynamics(condensed, dynamics, self.needs, what)
        return self.function(condensed, dynamics, **check_options(what, options, self.options))

    def hardness(
        self, condensed: CondensedSet, dynamics: Dynamics | None, **options: Any
    ) -> Float[Tensor, "n"]:
        """As `read`, but higher is harder, as `prune.select` requires."""
        values = self.read(condensed, dynamics, **options)
        return values if self.direction == "high" else -values


def options_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of a function's keyword-only parameters."""
    return tuple(
        p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY
    )


def check_options(
    what: str, options: Mapping[str, Any], known: tuple[str, ...]
) -> Mapping[str, Any]:
    """Return `options` if all names are known, else raise a TypeError that lists the known ones."""
    for name in options:
        if name not in known:
            raise TypeError(
                f"option {name!r} is not read by {what}; it reads: {', '.join(known) or 'none'}"
            )
    return options


def check_dynamics(
    condensed: CondensedSet, dynamics: Dynamics | None, needs: str, what: str
) -> None:
    """Raise ValueError or TypeError if dynamics are of another set or lack what `what` needs.

    needs: "none", "early" or "full".
    """
    if dynamics is None:
        if needs != "none":
            raise ValueError(f"{what} needs dynamics, got None")
    elif not checks.instance("dynamics", dynamics, Dynamics).of(condensed):
        raise ValueError(
            f"dynamics must be of this set ({condensed.fingerprint}), but were recorded on another "
            f"one ({dict(dynamics.info)})"
        )
    elif needs == "full" and not dynamics.complete:
        raise ValueError(
            f"{what} needs the whole training run; these dynamics stopped early "
            f"({dict(dynamics.info)})"
        )


def _lbpe_of(
    condensed: CondensedSet,
    dynamics: Dynamics,
    *,
    top_k: int | None = None,
    within: int | None = None,
    output: str = "probabilities",
    average: str = "mean",
) -> Float[Tensor, "n"]:
    """`lbpe`, with the paper's top_k and within if they are None."""
    paper_k, paper_window = lbpe_settings(condensed)
    top_k = checks.whole("top_k", paper_k if top_k is None else top_k, 1)
    within = checks.whole("within", paper_window if within is None else within, 1)
    logits = dynamics.top_logits(top_k, within)
    return lbpe(
        logits,
        condensed.formed_targets,
        top_k=len(logits),
        within=len(logits),
        output=output,
        average=average,
    )


SCORES: dict[str, Score] = {}  # the registered scores by name


def register(score: Score) -> Score:
    """Add a score to `SCORES` and return it. Raises ValueError if the name is taken."""
    if checks.instance("score", score, Score).name in SCORES:
        raise ValueError(
            f"score={score.name!r} is registered already; registered: {', '.join(SCORES)}"
        )
    SCORES[score.name] = score
    return score


LBPE = register(Score("lbpe", "LBPE", "LBPE", "high", "early", _lbpe_of))
EL2N = register(
    Score(
        "el2n",
        "EL2N",
        "EL2N",
        "high",
        "early",
        lambda condensed, dynamics: el2n(dynamics.early_logits(), condensed.formed_targets),
    )
)
register(
    Score("aum", "AUM", "AUM, in logits", "low", "full", lambda condensed, dynamics: dynamics.aum)
)
register(
    Score(
        "forgetting",
        "Forg.",
        "forgetting, times",
        "high",
        "full",
        lambda condensed, dynamics: dynamics.forgetting,
    )
)
register(
    Score(
        "entropy",
        "Entropy",
        "entropy, in nats",
        "high",
        "full",
        lambda condensed, dynamics: entropy(dynamics.final_logits),
    )
)
