"""The scores: pure functions, arrays in, one number per formed image out.

N images, K classes, E epochs.

At the end of the file they are registered, each as a `Score` that says how it is read from a
training run, its unit and its direction.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from yoco.dynamics.dynamics import Dynamics, forgotten, lbpe_settings, margin, top_epochs
from yoco.sets.condensed_set import CondensedSet
from yoco.utils import checks
from yoco.utils import kmeans as clusters

DIRECTIONS = ("high", "low")  # of a score: the end that is hard
NEEDS = ("none", "early", "full")  # of a training run (appendix, Table 1)
OUTPUTS = ("probabilities", "logits")
AVERAGES = ("mean", "trimmed")
TRIM = 0.2  # share of the epochs that the trimmed mean leaves out, at either end


def _errors(logits: Tensor, labels: Tensor, output: str) -> Tensor:
    """‖p - y‖₂ of every epoch and image, [E, N]; p: softmax of the logits, or the logits
    themselves; y: one-hot or soft labels.
    """
    p = logits.softmax(-1) if output == "probabilities" else logits
    return (p - (labels if labels.ndim == 2 else F.one_hot(labels, logits.shape[-1]))).norm(dim=-1)


def _mean(values: Tensor) -> Tensor:
    """Mean over the epochs, [N] of [E, N], summed epoch by epoch: torch's own mean rounds by an
    image's place, and so would rank equal images.
    """
    total = sum(
        values.double().unbind(),
        torch.zeros(values.shape[1:], dtype=torch.float64, device=values.device),
    )
    return (total / len(values)).to(values.dtype)


def _trimmed(values: Tensor) -> Tensor:
    """Mean over the epochs but for each image's highest and lowest values, `TRIM` of them each, [N]
    of [E, N].
    """
    out = int(len(values) * TRIM)
    return _mean(values.sort(dim=0).values[out : len(values) - out])


def _check(logits: Tensor, labels: Tensor, *, soft: bool = False) -> Tensor:
    """The logits [E, N, K], in float32 at least. soft: labels may be soft targets."""
    wide = _checked_floats("logits", logits, "E", "N", "K")
    (checks.targets if soft else checks.labels)("labels", labels, logits.shape[1], logits.shape[2])
    return wide


def _checked_floats(name: str, values: Tensor, *dimensions: str) -> Tensor:
    """Finite floats of this shape, none of it 0, in float32 at least."""
    return checks.wide(checks.finite(name, checks.floats(name, values, *dimensions)))


def lbpe(
    logits: Tensor,
    labels: Tensor,
    *,
    top_k: int = 10,
    within: int = 100,
    output: str = "probabilities",
    average: str = "mean",
) -> Tensor:
    """Logit-based prediction error: mean of ‖p - y‖₂, y the one-hot or soft label, over the `top_k`
    epochs of highest training accuracy among the first `within` (design §5).

    logits: float [E, N, K], epoch by epoch from the first; labels: int64 [N], or soft targets [N,
    K], by whose argmax accuracy is counted. output: "probabilities" (p is the softmax) or "logits"
    (the ablation). average: over the epochs, "mean" (the paper's) or "trimmed" (a robust one:
    without the highest and the lowest fifth of each image's errors; the mean where there are fewer
    than five epochs). Returns float [N]; from probabilities in 0..√2; high is hard. Where there are
    fewer epochs than asked for, all are used; of one class alone (K = 1) p is 1, and so every score
    0. Raises ValueError or TypeError at bad shapes, no epoch or image, labels out of range, or NaN.
    """
    logits = _check(logits, labels, soft=True)
    checks.one_of("output", output, OUTPUTS)
    checks.one_of("average", average, AVERAGES)
    accuracy = (
        (logits.argmax(-1) == (labels.argmax(1) if labels.ndim == 2 else labels)).float().mean(1)
    )
    chosen = top_epochs(accuracy, top_k, within)
    return (_mean if average == "mean" else _trimmed)(_errors(logits[chosen], labels, output))


def two_sided(errors: Tensor, labels: Tensor, *, cut: float = 0.05) -> Tensor:
    """Mean rank within the class over several training runs, with those images last on whose
    extremes all runs agree: every run has them among the easiest `cut` of their class, or every run
    among the hardest. A repair of LBPE for noisy data.

    errors: float [R, N], a score of each of R runs, high is hard; labels: int64 [N]; cut in 0..0.5,
    a share of a class (rounded down to whole images). Returns float [N]: the mean rank in 0..1,
    plus 1 for the images that are cut; high is hard. Raises ValueError or TypeError at bad shapes,
    labels, cut, or NaN.
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


def el2n(logits: Tensor, labels: Tensor, *, epochs: int = 10) -> Tensor:
    """Error L2 norm: mean of ‖softmax - y‖₂, y the one-hot or soft label, over the first `epochs`
    epochs (appendix B.1.3).

    logits: float [E, N, K]; labels: int64 [N] or soft targets [N, K]. Returns float [N] in 0..√2 (0
    for K = 1); high is hard. Raises as `lbpe`.
    """
    logits = _check(logits, labels, soft=True)
    checks.whole("epochs", epochs, 1)
    return _mean(_errors(logits[:epochs], labels, "probabilities"))


def aum(logits: Tensor, labels: Tensor) -> Tensor:
    """Area under the margin: mean over all epochs of the label's logit minus the largest other
    (appendix B.1.3).

    logits: float [E, N, K]; labels: int64 [N]. Returns float [N], any sign; LOW is hard. Raises as
    `lbpe`, and ValueError for K = 1, where there is no other logit.
    """
    return _mean(margin(_check(logits, labels), labels))


def forgetting(correct: Tensor) -> Tensor:
    """Number of epochs at which a sample goes from right to wrong (appendix B.1.3).

    correct: bool [E, N], at least one epoch and image. Returns float [N] in 0..E/2; high is hard. A
    sample that was never right has 0, and so has every sample of a single epoch. Raises TypeError
    or ValueError at anything else.
    """
    checks.tensor("correct", correct, "[E, N]")
    if correct.ndim != 2 or correct.dtype != torch.bool:
        raise TypeError(f"correct must be bool [E, N], got {correct.dtype} {list(correct.shape)}")
    if 0 in correct.shape:
        raise ValueError(
            f"correct must hold at least one epoch and one image, got {list(correct.shape)}"
        )
    return forgotten(correct)


def entropy(logits: Tensor) -> Tensor:
    """Entropy, in nats, of the trained network's softmax (appendix B.1.3).

    logits: float [N, K]. Returns float [N] in 0..log K, 0 for K = 1; high is hard. Raises TypeError
    or ValueError at another type or shape, no image, or NaN.
    """
    log_p = _checked_floats("logits", logits, "N", "K").log_softmax(-1)
    # 0 times minus infinity counts as 0
    return -(log_p.exp() * log_p.clamp(min=torch.finfo(log_p.dtype).min)).sum(-1)


def ssp(features: Tensor, n: int, *, seed: int = 0, farthest: bool = False) -> Tensor:
    """Self-supervised prototypes: k-means with n clusters; the image nearest to each centre stays
    (appendix B.1.3).

    features: float [N, D], the trained network's embedding; n in 1..N. farthest: in each cluster
    the image farthest from its centre stays instead (the hard end). Returns int64 indices [n], all
    different, in order of the clusters; ties: the lower index. A cluster left empty by duplicates
    takes the nearest image that is still free. Raises TypeError or ValueError at other features or
    n, a seed outside 0..2**32-1, or features so large that their squares overflow.
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
    """Coordinates with the same distances in at most N dimensions, [N, min(N, D)]: 400 images of
    2,048 features cluster five times faster.
    """
    if points.shape[0] >= points.shape[1]:
        return points
    return torch.linalg.qr(points.T, mode="r").R.T.contiguous()


def _kmeans(kmeans: type, points: Tensor, n: int, seed: int):
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    # fewer different points than clusters: `ssp` fills the empty ones
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return kmeans(n, random_state=seed, n_init=4).fit(points.numpy()).cluster_centers_


@dataclass(frozen=True)
class Score:
    """One number per formed image, read from a training run.

    Registering one (`register`) puts it into pruning, the score table, figures, notebooks and the
    command line.

    Attributes:
        name: of its column in `prune.score_table`.
        title: for readers, short.
        unit: what an axis says: the name and the unit.
        direction: the end that is hard, "high" or "low".
        needs: of the training run: "none", "early" (its first epochs) or "full".
        function: (condensed, dynamics, **options) -> float [N], in the score's own direction. Its
            keyword-only parameters are the options of the score, and of the pruning methods that go
            by it.
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

    def read(self, condensed: CondensedSet, dynamics: Dynamics | None, **options: Any) -> Tensor:
        """The score of every formed image, float [N], in its own direction.

        Raises ValueError or TypeError at an unknown or a bad option, dynamics of another set, and
        dynamics that lack what it needs.
        """
        what = f"score={self.name!r}"
        check_dynamics(condensed, dynamics, self.needs, what)
        return self.function(condensed, dynamics, **check_options(what, options, self.options))

    def hardness(
        self, condensed: CondensedSet, dynamics: Dynamics | None, **options: Any
    ) -> Tensor:
        """As `read`, but high is hard, as `prune.select` wants it."""
        values = self.read(condensed, dynamics, **options)
        return values if self.direction == "high" else -values


def options_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names of a function's keyword-only parameters."""
    return tuple(
        p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY
    )


def check_options(
    what: str, options: Mapping[str, Any], known: tuple[str, ...]
) -> Mapping[str, Any]:
    """`options` if all their names are known, else a TypeError that says which `what` has."""
    for name in options:
        if name not in known:
            raise TypeError(
                f"option {name!r} is not read by {what}; it reads: {', '.join(known) or 'none'}"
            )
    return options


def check_dynamics(
    condensed: CondensedSet, dynamics: Dynamics | None, needs: str, what: str
) -> None:
    """Raise ValueError or TypeError if dynamics are of another set, or lack what `what` needs of a
    training run.
    """
    if dynamics is None:
        if needs != "none":
            raise ValueError(f"{what} needs dynamics, got None")
    elif not checks.instance("dynamics", dynamics, Dynamics).of(condensed):
        raise ValueError(
            f"dynamics were recorded on another set ({dict(dynamics.info)}) than this one "
            f"({condensed.fingerprint})"
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
) -> Tensor:
    """`lbpe`; top_k, within: None for the paper's."""
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


SCORES: dict[str, Score] = {}  # those that are registered, by name


def register(score: Score) -> Score:
    """Add a score to `SCORES`. Returns it. Raises ValueError if there is one of that name."""
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
