"""The scores by name: how each is read from a training run, its unit and its direction.

Their formulas are in `score_formulas`, and can be called from here too.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from yoco.dynamics.dynamics import Dynamics, lbpe_settings
from yoco.score_formulas import aum as aum
from yoco.score_formulas import el2n, entropy, lbpe
from yoco.score_formulas import forgetting as forgetting
from yoco.score_formulas import ssp as ssp
from yoco.score_formulas import two_sided as two_sided
from yoco.sets.condensed_set import CondensedSet
from yoco.utils import checks

DIRECTIONS = ("high", "low")  # the end of a score that is hard
BESIDE = ("index", "label", "class")  # columns of the score table that are no scores
NEEDS = ("none", "early", "full")  # of a training run (appendix, Table 1)


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
        needs: what it needs from the training run: "none", "early" (the first epochs) or "full".
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
        if self.name in BESIDE:
            raise ValueError(f"name must differ from {', '.join(BESIDE)}, got {self.name!r}")
        if not callable(self.function):
            raise TypeError(f"function must be a function, got {checks.shown(self.function)}")

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options that it reads."""
        return options_of(self.function)

    def read(
        self, condensed: CondensedSet, dynamics: Dynamics | None, **options: Any
    ) -> Float[Tensor, "images"]:
        """Return the score of every formed image, float [N], in its own direction.

        Raises TypeError or ValueError if an option is unknown or bad, the dynamics are of another
        set or lack what the score needs, or its function returns anything else.
        """
        what, count = f"score={self.name!r}", len(condensed.formed_labels)
        check_dynamics(condensed, dynamics, self.needs, what)
        read = self.function(condensed, dynamics, **checks.options(what, options, self.options))
        if len(checks.finite(what, checks.floats(what, read, "N"))) != count:
            raise ValueError(f"{what} must be {count} numbers, one per image, got {len(read)}")
        return read

    def hardness(
        self, condensed: CondensedSet, dynamics: Dynamics | None, **options: Any
    ) -> Float[Tensor, "images"]:
        """As `read`, but higher is harder, as `prune.select` requires."""
        values = self.read(condensed, dynamics, **options)
        return values if self.direction == "high" else -values


def options_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of a function's keyword-only parameters."""
    return tuple(
        p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY
    )


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
) -> Tensor:
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


def _el2n_of(condensed: CondensedSet, dynamics: Dynamics) -> Tensor:
    return el2n(dynamics.early_logits(), condensed.formed_targets)


def _entropy_of(condensed: CondensedSet, dynamics: Dynamics) -> Tensor:
    assert dynamics.final_logits is not None  # "full" was checked
    return entropy(dynamics.final_logits)


SCORES: dict[str, Score] = {}  # the registered scores by name


def register(score: Score) -> Score:
    """Add a score to `SCORES` and return it. Raises ValueError if the name is taken.

    It becomes a pruning method too, unless `prune.METHODS` has one of that name.
    """
    if checks.instance("score", score, Score).name in SCORES:
        raise ValueError(
            f"score={score.name!r} is registered already; registered: {', '.join(SCORES)}"
        )
    SCORES[score.name] = score
    return score


LBPE = register(Score("lbpe", "LBPE", "LBPE", "high", "early", _lbpe_of))
EL2N = register(Score("el2n", "EL2N", "EL2N", "high", "early", _el2n_of))
register(Score("aum", "AUM", "AUM, in logits", "low", "full", lambda _, run: run.aum))
register(
    Score("forgetting", "Forg.", "forgetting, times", "high", "full", lambda _, run: run.forgetting)
)
register(Score("entropy", "Entropy", "entropy, in nats", "high", "full", _entropy_of))
