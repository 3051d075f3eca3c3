"""Selecting: the best of a score, in balanced classes or of all images together, and CCS's
strata.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from yoco.sets.condensed_set import CondensedSet
from yoco.utils import checks, seeds

KEEP = ("easy", "hard")
STRATA, MOST_STRATA = 50, 1_000_000


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
        """The formed images that stay, float [n, C, S, S], and their labels, int64 [n] or soft [n,
        K], as of `CondensedSet.form`.
        """
        images, labels = condensed.form()
        return images[self.indices], labels[self.indices]


def in_groups(
    labels: Tensor, per_class: int, balanced: bool, pick: Callable[[Tensor, int], Tensor]
) -> Tensor:
    """Apply `pick(members, n) -> positions within members` to each class, or to all images at once
    with the whole budget.

    Raises ValueError if a class, or the whole set, has fewer than n.
    """
    classes = labels.unique()
    if checks.flag("balanced", balanced):
        groups, n = [torch.nonzero(labels == label).flatten() for label in classes], per_class
    else:
        groups, n = [torch.arange(len(labels))], per_class * len(classes)
    short = min(map(len, groups))
    if short < n:
        raise ValueError(
            f"per_class={per_class} asks for {n} images of {'a class' if balanced else 'the set'} "
            f"that has {short}"
        )
    return torch.cat([members[pick(members, n)] for members in groups])


def select(score: Tensor, labels: Tensor, per_class: int, *, keep: str, balanced: bool) -> Tensor:
    """Keep `per_class` images of every class (balanced), or that times the number of classes of all
    together.

    score: float [N], high is hard; labels: int64 [N]; keep: "easy" (low scores) or "hard". Returns
    int64 indices, best first (class after class if balanced); ties: the lower index first. A class
    counts if a label names it: one without images takes no part. Raises ValueError or TypeError at
    a NaN score, shapes that do not fit, no images, or more than there are.
    """
    checks.one_of("keep", keep, KEEP)
    checks.whole("per_class", per_class, 1)
    checks.labels("labels", labels, len(_checked_score(score)))
    return in_groups(
        labels,
        per_class,
        balanced,
        lambda members, n: score[members].argsort(descending=keep == "hard", stable=True)[:n],
    )


def stratified(
    score: Tensor, n: int, *, hard_cutoff: float, strata: int = STRATA, seed: int = 0
) -> Tensor:
    """Coverage-centric selection (CCS): drop the hardest `hard_cutoff` share, cut the range of the
    remaining scores into `strata` equal strata, and share n evenly over the non-empty ones, the
    smallest stratum first, what it cannot use going to the rest; within a stratum at random.

    score: float [N], high is hard; hard_cutoff in 0..1: less is dropped if fewer than n images
    would remain. Equal scores are one stratum. Returns int64 indices [n], all different, stratum
    after stratum. Raises ValueError or TypeError at bad arguments.
    """
    n = checks.whole("n", n, 1, len(_checked_score(score)))
    hard_cutoff = checks.real("hard_cutoff", hard_cutoff, 0, 1)
    strata = checks.whole("strata", strata, 1, MOST_STRATA)
    source = seeds.generator(seed, stream=2)
    dropped = min(int(len(score) * hard_cutoff), len(score) - n)
    kept = score.argsort(stable=True)[: len(score) - dropped]
    low, high = score[kept[0]].double(), score[kept[-1]].double()
    width = (high - low) / strata
    number = (
        ((score[kept].double() - low) / width).long().clamp(max=strata - 1)
        if width > 0
        else torch.zeros_like(kept)
    )
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
