"""The condensation methods by name; each is declared at the end of its own file."""

from yoco.condense import dream, dsa, idc, kip, mtt, ncfm
from yoco.condense.base import Condenser
from yoco.utils import checks

METHODS: dict[str, Condenser] = {
    method.name: method
    for method in (
        idc.CONDENSER,
        dream.CONDENSER,
        dsa.CONDENSER,
        mtt.CONDENSER,
        kip.CONDENSER,
        ncfm.CONDENSER,
    )
}


def register(condenser: Condenser) -> Condenser:
    """Add a method to `METHODS` and return it. Raises ValueError if the name is taken."""
    if condenser.name in METHODS:
        raise ValueError(
            f"method={condenser.name!r} is registered already; registered: {', '.join(METHODS)}"
        )
    METHODS[condenser.name] = condenser
    return condenser


def factor_of(method: str, size: int) -> int:
    """Return the paper's factor of a method for images of side `size`.

    Raises ValueError if the method is unknown.
    """
    return METHODS[checks.one_of("method", method, METHODS)].factor(size)
