"""Nested condensation: which prefixes of a set are matched as sets of their own (design §5)."""

from collections.abc import Sequence

from yoco.utils import checks

STEPS = (1, 2, 3, 5, 7)  # times each power of ten


def budgets(nested: bool | Sequence[int], ipc: int) -> list[int]:
    """Return the budgets IPC_T of a nested set's prefixes in ascending order, always including ipc.

    nested: a list of budgets, or True for 1, 2, 3, 5, 7, 10, 20, 30, 50, … Raises TypeError or
    ValueError for anything else, and for a budget above ipc.
    """
    if nested is True:
        chosen = [step * 10**power for power in range(len(str(ipc))) for step in STEPS]
        return [*(budget for budget in chosen if budget < ipc), ipc]
    if nested is False:
        raise ValueError("nested must be True, a list of budgets or None, got False")
    given = [checks.whole("nested", budget, 1, ipc) for budget in checks.sequence("nested", nested)]
    return sorted({*checks.different("nested", given), ipc})
