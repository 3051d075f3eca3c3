"""The pruning methods: how a score, or a rule of its own, becomes a selection.

They are YOCO's two rules, the methods that the paper compares them with, and the rules with a
better score ("yoco+").
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Int
from torch import Tensor

from yoco import scores
from yoco.dynamics.dynamics import Dynamics, lbpe_settings
from yoco.prune import ccs_cutoffs
from yoco.prune.select import KEEP, Selection, check_kept, in_groups, select, stratified
from yoco.sets.condensed_set import CondensedSet
from yoco.utils import checks, seeds

OURS = "yoco"  # the method that figures highlight
COMMON = ("keep", "balanced", "seed")  # options of every method


@dataclass(frozen=True)
class Wanted:
    """What `prune` asks of a method.

    Attributes:
        ipc_to: IPC_T.
        per_class: formed images per class; if not balanced, that times the number of classes in
            total.
        keep: the end that is kept.
        balanced: whether classes are balanced.
        seed: seed of all random choices.
    """

    ipc_to: int
    per_class: int
    keep: str
    balanced: bool
    seed: int


@dataclass(frozen=True)
class Method:
    """How a score, or a rule of its own, becomes a selection.

    Attributes:
        name: its name in `METHODS`.
        title: short title for readers.
        keep: the end that is kept by default, "easy" or "hard".
        balanced: whether the same number of each class is kept by default.
        needs: what it needs from the training run: "none", "early" or "full" (appendix, Table 1).
        rule: (condensed, dynamics, wanted: Wanted, **options) -> int64 indices of the formed images
            that are kept. Its keyword-only parameters are the method's options.
        nests: whether, in each class, the balanced selection for a budget is a prefix of that for
            any larger one.
        score: its score, if it uses exactly one; the options are then the score's.
        nested: whether it makes sense only on nested sets, and is compared on those.
    """

    name: str
    title: str
    keep: str
    balanced: bool
    needs: str
    rule: Callable[..., Tensor]
    nests: bool = False
    score: scores.Score | None = None
    nested: bool = False

    def __post_init__(self) -> None:
        checks.instance("name", self.name, str)
        checks.one_of("keep", self.keep, KEEP)
        checks.flag("balanced", self.balanced)
        checks.one_of("needs", self.needs, scores.NEEDS)

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options that it reads."""
        return self.score.options if self.score else scores.options_of(self.rule)


def by_score(
    score: scores.Score,
    name: str | None = None,
    title: str | None = None,
    *,
    keep: str = "hard",
    balanced: bool = False,
) -> Method:
    """Return the method that keeps one end of a score.

    It has the score's name and title unless others are given.
    """

    def rule(
        condensed: CondensedSet, dynamics: Dynamics | None, wanted: Wanted, **options: Any
    ) -> Tensor:
        hardness = score.hardness(condensed, dynamics, **options)
        return select(
            hardness,
            condensed.formed_labels,
            wanted.per_class,
            keep=wanted.keep,
            balanced=wanted.balanced,
        )

    return Method(
        name or score.name, title or score.title, keep, balanced, score.needs, rule, True, score
    )


def _by_chance(condensed: CondensedSet, dynamics: Dynamics | None, wanted: Wanted) -> Tensor:
    drawn = torch.rand(
        len(condensed.formed_labels), generator=seeds.generator(wanted.seed, stream=3)
    )
    return select(
        drawn, condensed.formed_labels, wanted.per_class, keep=wanted.keep, balanced=wanted.balanced
    )


def _by_place(condensed: CondensedSet, dynamics: Dynamics | None, wanted: Wanted) -> Tensor:
    """Keep the first images of each class: each prefix of a nested set is condensed to be good."""
    place = torch.cat([torch.arange(n) for n in torch.bincount(condensed.formed_labels).tolist()])
    return select(
        place, condensed.formed_labels, wanted.per_class, keep=wanted.keep, balanced=wanted.balanced
    )


def _by_prototypes(condensed: CondensedSet, dynamics: Dynamics, wanted: Wanted) -> Tensor:
    features = cast(Tensor, dynamics.features)  # `scores.check_dynamics` made sure of them

    def pick(members: Tensor, n: int) -> Tensor:
        return scores.ssp(features[members], n, seed=wanted.seed, farthest=wanted.keep == "hard")

    return in_groups(condensed.formed_labels, wanted.per_class, wanted.balanced, pick)


def _by_strata(
    condensed: CondensedSet, dynamics: Dynamics, wanted: Wanted, *, hard_cutoff: float | None = None
) -> Tensor:
    """hard_cutoff: None for the paper's, of its dataset that is most like this one."""
    hard_cutoff = paper_cutoff(condensed, wanted.ipc_to) if hard_cutoff is None else hard_cutoff
    # with "hard", the easiest share is dropped
    score = scores.EL2N.hardness(condensed, dynamics) * (1 if wanted.keep == "easy" else -1)

    def pick(members: Tensor, n: int) -> Tensor:
        return stratified(score[members], n, hard_cutoff=hard_cutoff, seed=wanted.seed)

    return in_groups(condensed.formed_labels, wanted.per_class, wanted.balanced, pick)


def paper_cutoff(condensed: CondensedSet, ipc_to: int) -> float:
    """Return the share of hardest images that CCS drops, by the paper's table.

    It is that of the set's dataset, or of the paper's dataset closest to it.
    """
    classes = len(condensed.classes)
    dataset = ccs_cutoffs.dataset_of(
        str(condensed.info.get("dataset", "")), classes
    ) or ccs_cutoffs.most_like(classes, condensed.size)
    return ccs_cutoffs.hard_cutoff(dataset, condensed.ipc, ipc_to)


class _Methods(Mapping[str, Method]):
    """The registered methods, then one for each score (`scores.register`) that none uses."""

    def __init__(self) -> None:
        self.registered: dict[str, Method] = {}

    def _all(self) -> dict[str, Method]:
        taken = {
            *self.registered,
            *(method.score.name for method in self.registered.values() if method.score),
        }
        return self.registered | {
            name: by_score(score) for name, score in scores.SCORES.items() if name not in taken
        }

    def __getitem__(self, name: str) -> Method:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


METHODS = _Methods()


def _early_aum(condensed: CondensedSet, run: Dynamics, *, within: int | None = None) -> Tensor:
    return run.early_aum(lbpe_settings(condensed)[1] if within is None else within)


# AUM over the epochs that LBPE chooses from: unlike the paper's, it does not need the whole run
MARGIN = scores.Score("margin", "AUM", "AUM, in logits", "low", "early", _early_aum)


def register(method: Method) -> Method:
    """Add a method to `METHODS` and return it. Raises ValueError if the name is taken."""
    if checks.instance("method", method, Method).name in METHODS:
        raise ValueError(
            f"method={method.name!r} is registered already; registered: {', '.join(METHODS)}"
        )
    METHODS.registered[method.name] = method
    return method


METHODS.registered |= {
    method.name: method
    for method in (
        Method("random", "Random", "easy", False, "none", _by_chance, nests=True),
        Method("ssp", "SSP", "easy", False, "full", _by_prototypes),
        by_score(scores.SCORES["entropy"]),
        by_score(scores.SCORES["aum"]),
        by_score(scores.SCORES["forgetting"]),
        by_score(scores.EL2N),
        Method("ccs", "CCS", "easy", False, "early", _by_strata),
        by_score(scores.LBPE, "yoco", "YOCO", keep="easy", balanced=True),
        by_score(MARGIN, "yoco+", "YOCO+", keep="easy", balanced=True),
        Method("prefix", "Prefix", "easy", True, "none", _by_place, nests=True, nested=True),
    )
}


def compared(
    condensed: CondensedSet | None = None, methods: Sequence[str] | None = None
) -> list[str]:
    """Return the names of the methods to compare on a set.

    methods: None for all that apply to any set. Methods for nested sets are added if the set is
    nested.
    """
    chosen = (
        [name for name, method in METHODS.items() if not method.nested]
        if methods is None
        else [*methods]
    )
    nested = condensed is not None and condensed.info.get("nested")
    return chosen + [
        name for name, method in METHODS.items() if nested and method.nested and name not in chosen
    ]


def prune(
    condensed: CondensedSet,
    dynamics: Dynamics | None,
    method: str = "yoco",
    ipc_to: int = 1,
    *,
    keep: str | None = None,
    balanced: bool | None = None,
    seed: int = 0,
    **options: Any,
) -> Selection:
    """Prune a condensed set to `ipc_to` images per class.

    That is ipc_to * factor² formed images of each class, or the same number in total if not
    balanced.

    Args:
        condensed: the set.
        dynamics: a training run on it; None suffices for "random" and "prefix".
        method: a name in `METHODS`.
        ipc_to: IPC_T, from 1 to the set's IPC.
        keep: "easy" or "hard"; None for the method's default. "random" takes either end of a random
            order; "ssp" with "hard" keeps the images farthest from the centres; "ccs" with "hard"
            drops the easiest share.
        balanced: whether to keep the same number of each class; None for the method's default.
        seed: seed of random, SSP and CCS.
        **options: those that the method reads (`METHODS[method].options`): top_k, within, output
            and average of "yoco" (see `scores.lbpe`), hard_cutoff of "ccs". Left out, or None for
            a number, stands for the paper's value.

    Returns:
        What is kept.

    Raises:
        ValueError: if the method is unknown, ipc_to is out of range, or the dynamics are of another
            set or lack what the method needs.
        TypeError: if the method does not read an option, or a value has the wrong type.
    """
    wanted = _wanted(condensed, method, ipc_to, keep, balanced, seed)
    return selection_of(
        condensed, _chosen(condensed, dynamics, method, wanted, options), method, wanted
    )


def _wanted(
    condensed: CondensedSet,
    method: str,
    ipc_to: int,
    keep: str | None,
    balanced: bool | None,
    seed: int,
) -> Wanted:
    """Return what is asked for, filling in the method's own end and balance. Raises as `prune`."""
    chosen = METHODS[checks.one_of("method", method, METHODS)]
    ipc_to = checks.whole(
        "ipc_to", ipc_to, 1, checks.instance("condensed", condensed, CondensedSet).ipc
    )
    keep = checks.one_of("keep", chosen.keep if keep is None else keep, KEEP)
    balanced = checks.flag("balanced", chosen.balanced if balanced is None else balanced)
    return Wanted(ipc_to, ipc_to * condensed.factor**2, keep, balanced, checks.seed("seed", seed))


def _chosen(
    condensed: CondensedSet,
    dynamics: Dynamics | None,
    method: str,
    wanted: Wanted,
    options: Mapping[str, Any],
) -> Tensor:
    """Return the formed images that a method's rule keeps. Raises as `prune`."""
    what, chosen = f"method={method!r}", METHODS[method]
    checks.options(what, options, chosen.options)
    scores.check_dynamics(condensed, dynamics, chosen.needs, what)
    kept = chosen.rule(condensed, dynamics, wanted, **options)
    return check_kept(kept, condensed.formed_labels, wanted.per_class, wanted.balanced, what)


def selection_of(
    condensed: CondensedSet, indices: Int[Tensor, "kept"], method: str, wanted: Wanted
) -> Selection:
    """Return the `Selection` of some formed images."""
    counts = torch.bincount(condensed.formed_labels[indices], minlength=len(condensed.classes))
    how = method, wanted.ipc_to, wanted.keep, wanted.balanced, wanted.seed
    return Selection(indices, counts, *how, condensed.fingerprint)


def options_for(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those options that a method reads, for a call that covers several methods.

    Raises TypeError for an option that no method reads.
    """
    checks.options(
        "every method",
        dict(options),
        tuple({*COMMON, *(name for each in METHODS.values() for name in each.options)}),
    )
    own = (*COMMON, *METHODS[checks.one_of("method", method, METHODS)].options)
    return {name: value for name, value in options.items() if name in own}
