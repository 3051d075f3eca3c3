"""Scores to which formed images stay: the two rules of YOCO (low LBPE, balanced classes) and the methods they are compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from yoco import checks, paper, scores, seeds
from yoco.condensed import CondensedSet
from yoco.dynamics import Dynamics, lbpe_settings
from yoco.lazy import pd

KEEP = ("easy", "hard")
STRATA, MOST_STRATA = 50, 1_000_000


@dataclass(frozen=True)
class Request:
    """What a method is asked for: `per_class` formed images a class (or that times the classes, in all), and its options."""

    condensed: CondensedSet
    dynamics: Dynamics | None
    per_class: int
    keep: str
    balanced: bool
    seed: int
    top_k: int
    within: int
    output: str
    average: str
    hard_cutoff: float


@dataclass(frozen=True)
class Method:
    """A pruning method. score: one number per formed image, high is hard (None: it needs none). keep: the end that stays.

    balanced: as many of each class. training: what it needs of the run, "none", "early" or "full" (appendix, Table 1).
    pick: its rule, Request -> indices.
    """

    name: str
    title: str
    score: Callable[[Request], Tensor] | None
    keep: str
    balanced: bool
    training: str
    pick: Callable[[Method, Request], Tensor]


@dataclass(frozen=True, eq=False)
class Selection:
    """What stays: indices int64 [n] of formed images, and how many of each class, int64 [K]."""

    indices: Tensor
    per_class_counts: Tensor
    method: str
    ipc_to: int
    keep: str
    balanced: bool
    seed: int = field(default=0)

    def subset(self, condensed: CondensedSet) -> tuple[Tensor, Tensor]:
        """The formed images that stay, float [n, C, S, S], and their labels, int64 [n] or soft [n, K], as of `CondensedSet.form`."""
        images, labels = condensed.form()
        return images[self.indices], labels[self.indices]


def _in_groups(labels: Tensor, per_class: int, balanced: bool, pick: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Apply `pick(members, n) -> positions within members` to each class, or to all images at once with the whole budget.

    Raises ValueError where a class, or the whole set, has fewer than n.
    """
    classes = labels.unique()
    if checks.flag("balanced", balanced):
        groups, n = [torch.nonzero(labels == label).flatten() for label in classes], per_class
    else:
        groups, n = [torch.arange(len(labels))], per_class * len(classes)
    short = min(map(len, groups))
    if short < n:
        raise ValueError(f"per_class={per_class} asks for {n} images of {'a class' if balanced else 'the set'} that has {short}")
    return torch.cat([members[pick(members, n)] for members in groups])


def select(score: Tensor, labels: Tensor, per_class: int, *, keep: str, balanced: bool) -> Tensor:
    """Keep `per_class` images of every class (balanced), or that times the number of classes of all together.

    score: float [N], high is hard; labels: int64 [N]; keep: "easy" (low scores) or "hard". Returns int64 indices, best
    first (class after class where balanced); ties: the lower index first. A class counts where a label names it: one
    without images takes no part. Raises ValueError or TypeError at a NaN score, shapes that do not fit, no images, or more
    than there are.
    """
    checks.one_of("keep", keep, KEEP)
    checks.whole("per_class", per_class, 1)
    checks.labels("labels", labels, len(_checked_score(score)))
    return _in_groups(labels, per_class, balanced, lambda members, n: score[members].argsort(descending=keep == "hard", stable=True)[:n])


def stratified(score: Tensor, n: int, *, hard_cutoff: float, strata: int = STRATA, seed: int = 0) -> Tensor:
    """Coverage-centric selection (CCS): drop the hardest `hard_cutoff` share, cut the range of the remaining scores into
    `strata` equal strata, and share n evenly over the non-empty ones, the smallest stratum first, what it cannot use
    going to the rest; within a stratum at random.

    score: float [N], high is hard; hard_cutoff in 0..1: less is dropped where fewer than n images would remain. Equal
    scores are one stratum. Returns int64 indices [n], all different, stratum after stratum. Raises ValueError or TypeError
    at bad arguments.
    """
    n = checks.whole("n", n, 1, len(_checked_score(score)))
    hard_cutoff = checks.real("hard_cutoff", hard_cutoff, 0, 1)
    strata = checks.whole("strata", strata, 1, MOST_STRATA)
    source = seeds.generator(seed, stream=2)
    dropped = min(int(len(score) * hard_cutoff), len(score) - n)
    kept = score.argsort(stable=True)[: len(score) - dropped]
    low, high = score[kept[0]].double(), score[kept[-1]].double()
    width = (high - low) / strata
    number = ((score[kept].double() - low) / width).long().clamp(max=strata - 1) if width > 0 else torch.zeros_like(kept)
    groups = sorted((kept[number == s] for s in number.unique()), key=len)
    chosen, left = [], n
    for position, group in enumerate(groups):
        share = min(len(group), left // (len(groups) - position))
        chosen.append(group[seeds.choice(len(group), share, source)])
        left -= share
    return torch.cat(chosen)


def _checked_score(score: Tensor) -> Tensor:
    if checks.tensor("score", score, "[N]").dtype == torch.bool or score.is_complex():
        raise TypeError(f"score must be numbers, got {score.dtype}")
    if score.ndim != 1 or not len(score):
        raise ValueError(f"score must have shape [N], at least one image, got {list(score.shape)}")
    return checks.finite("score", score)


def _by_score(method: Method, request: Request) -> Tensor:
    labels = request.condensed.formed_labels
    return select(method.score(request), labels, request.per_class, keep=request.keep, balanced=request.balanced)


def _by_prototypes(method: Method, request: Request) -> Tensor:
    def pick(members: Tensor, n: int) -> Tensor:
        return scores.ssp(request.dynamics.features[members], n, seed=request.seed, farthest=request.keep == "hard")

    return _in_groups(request.condensed.formed_labels, request.per_class, request.balanced, pick)


def _by_strata(method: Method, request: Request) -> Tensor:
    score = method.score(request) * (1 if request.keep == "easy" else -1)  # keep="hard" drops the easiest share

    def pick(members: Tensor, n: int) -> Tensor:
        return stratified(score[members], n, hard_cutoff=request.hard_cutoff, seed=request.seed)

    return _in_groups(request.condensed.formed_labels, request.per_class, request.balanced, pick)


def _random_score(request: Request) -> Tensor:
    return torch.rand(len(request.condensed.formed_labels), generator=seeds.generator(request.seed, stream=3))


def _el2n_score(request: Request) -> Tensor:
    return scores.el2n(request.dynamics.early_logits(), request.condensed.formed_targets)


def _lbpe_score(request: Request) -> Tensor:
    logits = request.dynamics.top_logits(request.top_k, request.within)
    targets, k = request.condensed.formed_targets, len(logits)
    return scores.lbpe(logits, targets, top_k=k, within=k, output=request.output, average=request.average)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("random", "Random", _random_score, "easy", False, "none", _by_score),
        Method("ssp", "SSP", None, "easy", False, "full", _by_prototypes),
        Method("entropy", "Entropy", lambda r: scores.entropy(r.dynamics.final_logits), "hard", False, "full", _by_score),
        Method("aum", "AUM", lambda r: -r.dynamics.aum, "hard", False, "full", _by_score),
        Method("forgetting", "Forg.", lambda r: r.dynamics.forgetting, "hard", False, "full", _by_score),
        Method("el2n", "EL2N", _el2n_score, "hard", False, "early", _by_score),
        Method("ccs", "CCS", _el2n_score, "easy", False, "early", _by_strata),
        Method("yoco", "YOCO", _lbpe_score, "easy", True, "early", _by_score),
    )
}

RANKING = tuple(name for name, method in METHODS.items() if method.pick is _by_score)  # their choices nest


def request(
    condensed: CondensedSet,
    dynamics: Dynamics | None,
    method: str = "yoco",
    ipc_to: int = 1,
    *,
    keep: str | None = None,
    balanced: bool | None = None,
    seed: int = 0,
    top_k: int | None = None,
    within: int | None = None,
    output: str = "probabilities",
    average: str = "mean",
    hard_cutoff: float | None = None,
) -> Request:
    """Check the arguments of `prune` and fill in what the method and the paper say. Raises as `prune`."""
    chosen = METHODS[checks.one_of("method", method, METHODS)]
    ipc_to = checks.whole("ipc_to", ipc_to, 1, checks.instance("condensed", condensed, CondensedSet).ipc)
    keep = checks.one_of("keep", chosen.keep if keep is None else keep, KEEP)
    balanced = checks.flag("balanced", chosen.balanced if balanced is None else balanced)
    if dynamics is None:
        if chosen.training != "none":
            raise ValueError(f"method={method!r} needs dynamics, got None")
    elif not checks.instance("dynamics", dynamics, Dynamics).of(condensed):
        raise ValueError(f"dynamics were recorded on another set ({dict(dynamics.info)}) than this one ({condensed.fingerprint})")
    elif chosen.training == "full" and not dynamics.complete:
        raise ValueError(f"method={method!r} needs the whole training run; these dynamics stopped early ({dict(dynamics.info)})")
    paper_k, paper_window = lbpe_settings(condensed)
    if hard_cutoff is None:
        classes = len(condensed.classes)
        dataset = paper.dataset_of(str(condensed.info.get("dataset", "")), classes) or paper.most_like(classes, condensed.size)
        hard_cutoff = paper.hard_cutoff(dataset, condensed.ipc, ipc_to)
    return Request(
        condensed, dynamics, ipc_to * condensed.factor**2, keep, balanced, checks.seed("seed", seed),
        checks.whole("top_k", paper_k if top_k is None else top_k, 1), checks.whole("within", paper_window if within is None else within, 1),
        checks.one_of("output", output, scores.OUTPUTS), checks.one_of("average", average, scores.AVERAGES),
        checks.real("hard_cutoff", hard_cutoff, 0, 1),
    )


def prune(condensed: CondensedSet, dynamics: Dynamics | None, method: str = "yoco", ipc_to: int = 1, **options) -> Selection:
    """Prune a condensed set to `ipc_to` images a class: ipc_to * factor² formed images each, or as many in all where not balanced.

    method: a name in `METHODS`; dynamics may be None for "random". options: keep ("easy" | "hard") and balanced override
    the method's own (for "random" keep takes either end of a random order; for "ssp" "hard" keeps the images farthest
    from the centres; for "ccs" it drops the easiest share); seed: of random, SSP and CCS; top_k, within, output, average: of LBPE
    (None: the paper's); hard_cutoff: of CCS (None: the paper's, of its dataset that is most like this one). Raises
    ValueError or TypeError at an unknown method or option, ipc_to below 1 or above the set's, dynamics of another set, or
    dynamics that lack what the method needs.
    """
    wanted = request(condensed, dynamics, method, ipc_to, **options)
    chosen = METHODS[method]
    indices = chosen.pick(chosen, wanted)
    counts = torch.bincount(condensed.formed_labels[indices], minlength=len(condensed.classes))
    return Selection(indices, counts, method, int(ipc_to), wanted.keep, wanted.balanced, wanted.seed)


def ranking(condensed: CondensedSet, dynamics: Dynamics, method: str = "yoco", **options: Any) -> Tensor:
    """Formed images of every class, best first: int64 [K, n], of which the first k columns are the balanced choice of any k.

    n is the size of the smallest class: with soft labels others may be larger. options: as of `prune`, but balanced. Raises as
    `prune`, and ValueError for a method that chooses anew for every budget.
    """
    chosen = METHODS[checks.one_of("method", method, METHODS)]
    if method not in RANKING:
        raise ValueError(f"method={method!r} chooses anew for every budget, so that its choices do not nest; allowed: {', '.join(RANKING)}")
    smallest = torch.bincount(condensed.formed_labels, minlength=len(condensed.classes)).min().item()
    wanted = replace(request(condensed, dynamics, method, condensed.ipc, balanced=True, **options), per_class=smallest)
    return chosen.pick(chosen, wanted).view(len(condensed.classes), -1)


def score_table(condensed: CondensedSet, dynamics: Dynamics, **options) -> pd.DataFrame:
    """Every score of every formed image: a DataFrame with columns index, label, class, and one per score (high is
    hard, but for aum, where low is). Scores that the dynamics cannot give are left out."""
    labels = condensed.formed_labels
    names = [condensed.classes[k] for k in labels.tolist()]
    table = pd.DataFrame({"index": range(len(labels)), "label": labels.numpy(), "class": names})
    columns = {"lbpe": "yoco", "el2n": "el2n", "aum": "aum", "forgetting": "forgetting", "entropy": "entropy"}
    for column, method in columns.items():
        sign = -1 if method == "aum" else 1
        if METHODS[method].training == "early" or dynamics.complete:
            table[column] = (sign * METHODS[method].score(request(condensed, dynamics, method, **options))).numpy()
    return table
