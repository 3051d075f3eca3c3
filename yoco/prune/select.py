"""Selection by score, balanced by class or from all images together, and by CCS's strata."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from yoco.sets.condensed_set import CondensedSet
from yoco.utils import checks, seeds

KEEP = ("easy", "hard")
STRATA, MOST_STRATA = 50, 1_000_000


@dataclass(frozen=True, eq=False)
class Selection:
    """What is kept: indices int64 [n] of formed images and how many of each class, int64 [K].

    fingerprint: that of the set; None if it is not known.
    """

    indices: Int[Tensor, "images"]
    per_class_counts: Int[Tensor, "classes"]
    method: str
    ipc_to: int
    keep: str
    balanced: bool
    seed: int = field(default=0)
    fingerprint: str | None = None

    def subset(
        self, condensed: CondensedSet
    ) -> tuple[
        Float[Tensor, "images channels size size"],
        Int[Tensor, "images"] | Float[Tensor, "images classes"],
    ]:
        """Return the formed images that are kept, float [n, C, S, S], and their labels.

        The labels are int64 [n] or soft [n, K], as in `CondensedSet.form`. Raises ValueError if
        this is a selection from another set.
        """
        self.check_of(condensed)
        images, labels = condensed.form()
        return images[self.indices], labels[self.indices]

    def check_of(self, condensed: CondensedSet) -> None:
        """Raise ValueError if this is a selection from another set than `condensed`."""
        own = checks.instance("condensed", condensed, CondensedSet).fingerprint
        if self.fingerprint not in (None, own):
            raise ValueError(
                f"condensed must be the set that this is selected from ({self.fingerprint}), got "
                f"another one ({own})"
            )


def check_kept(
    kept: object, labels: Int[Tensor, "images"], per_class: int, balanced: bool, what: str
) -> Int[Tensor, "kept"]:
    """Return what a rule keeps if it keeps as many images as it should, each once.

    kept: what the rule returned. labels, per_class, balanced: as in `in_groups`. what: the rule,
    for the error. Raises TypeError or ValueError otherwise.
    """
    if not isinstance(kept, Tensor) or kept.dtype != torch.int64 or kept.ndim != 1:
        raise TypeError(
            f"{what} must return the indices that it keeps, int64 [n], got {checks.shown(kept)}"
        )
    n, inside = per_class * len(labels.unique()), (kept >= 0) & (kept < len(labels))
    if not inside.all() or len(kept) != n or len(kept.unique()) != n:
        raise ValueError(
            f"{what} must keep {n} different images of 0..{len(labels) - 1}, got "
            f"{len(kept)} indices, {len(kept.unique())} of them different, "
            f"{int((~inside).sum())} out of range"
        )
    counts = torch.bincount(labels[kept])
    if balanced and (counts[counts > 0] != per_class).any():
        raise ValueError(f"{what} must keep {per_class} of each class, got {counts.tolist()}")
    return kept


def in_groups(
    labels: Int[Tensor, "images"],
    per_class: int,
    balanced: bool,
    pick: Callable[[Tensor, int], Tensor],
) -> Int[Tensor, "kept"]:
    """Apply `pick(members, n) -> positions within members` to each class and join the results.

    If not balanced, it is applied once to all images, with the whole budget. Raises ValueError if a
    class, or the whole set, has fewer than n images.
    """
    classes = labels.unique()
    if checks.flag("balanced", balanced):
        groups, n = [torch.nonzero(labels == label).flatten() for label in classes], per_class
    else:
        groups, n = [torch.arange(len(labels))], per_class * len(classes)
    short = min(map(len, groups))
    if short < n:
        raise ValueError(
            f"per_class={per_class} asks for {n} images of {'a class' if balanced else 'the set'}, "
            f"which has only {short}"
        )
    return torch.cat([members[pick(members, n)] for members in groups])


def select(
    score: Num[Tensor, "images"],
    labels: Int[Tensor, "images"],
    per_class: int,
    *,
    keep: str,
    balanced: bool,
) -> Int[Tensor, "kept"]:
    """Keep `per_class` images of every class, or that times the number of classes in total.

    Args:
        score: float [N], higher is harder.
        labels: int64 [N]. Classes without images are ignored.
        per_class: images to keep per class.
        keep: "easy" (low scores) or "hard".
        balanced: select within each class.

    Returns:
        int64 indices, best first (one class after the other if balanced); ties: the lower index
            first.

    Raises:
        TypeError, ValueError: if a score is NaN, shapes do not fit, or there are too few images or
            none.
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
    score: Float[Tensor, "all"], n: int, *, hard_cutoff: float, strata: int = STRATA, seed: int = 0
) -> Int[Tensor, "kept"]:
    """Coverage-centric selection (CCS).

    Drop the hardest `hard_cutoff` share and cut the range of the remaining scores into `strata`
    equal strata. Share n evenly over the non-empty ones, starting with the smallest, whose unused
    share goes to the others. Draw at random within a stratum.

    Args:
        score: float [N], higher is harder. Equal scores form one stratum.
        n: number of images to keep, 1..N.
        hard_cutoff: in 0..1; less is dropped if fewer than n images would remain.
        strata: number of strata.
        seed: seed of the draws.

    Returns:
        int64 indices [n], all different, one stratum after the other.

    Raises:
        TypeError, ValueError: if an argument is bad.
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
