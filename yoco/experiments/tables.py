"""Tables of a study's results: means, paired differences, comparison with the paper."""

from __future__ import annotations

from collections.abc import Sequence

from yoco.condense.methods import METHODS as CONDENSATIONS
from yoco.experiments import paper
from yoco.prune import ccs_cutoffs
from yoco.prune.methods import METHODS
from yoco.prune.select import Selection
from yoco.scores import SCORES
from yoco.sets.condensed_set import CondensedSet
from yoco.utils import checks
from yoco.utils.lazy import pd

MOST_COLUMNS = 6  # of a table for readers, beside its index
NEVER_WRAPS = "\u00a0±\u00a0"  # with spaces that do not break


def title_of(method: str) -> str:
    """Return the title of a method or score for display; condensation methods are in capitals."""
    named = METHODS.get(method) or SCORES.get(method)
    return named.title if named else method.upper() if method in CONDENSATIONS else method


def class_balance(condensed: CondensedSet, kept: Sequence[Selection]) -> pd.DataFrame:
    """Return how many formed images each selection keeps of each class.

    Columns: method, ipc_to, balanced, class, kept.
    """
    rows = [
        (s.method, s.ipc_to, s.balanced, name, count)
        for s in kept
        for name, count in zip(condensed.classes, s.per_class_counts.tolist())
    ]
    return pd.DataFrame(rows, columns=["method", "ipc_to", "balanced", "class", "kept"])


def summary(results: pd.DataFrame) -> pd.DataFrame:
    """Return mean, sample standard deviation and number of runs of each method and budget.

    Columns: method, ipc_to, mean, std, n, precision (joined by "+" if the runs differ in it).
    """
    grouped = results.groupby(["method", "ipc_to"], sort=False)
    accuracy = grouped["accuracy"].agg(mean="mean", std="std", n="count")
    return accuracy.assign(
        precision=grouped["precision"].agg(lambda used: "+".join(sorted(set(used))))
    ).reset_index()


def pivot(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of IPC_T × methods with cells "mean ± std" in %.

    `table` has columns method, ipc_to, mean, std.
    """
    cells = table.assign(cell=[cell(m, s) for m, s in zip(table["mean"], table["std"])])
    wide = cells.pivot(index="ipc_to", columns="method", values="cell")
    return wide[list(dict.fromkeys(table.method))].rename_axis(index="IPC_T", columns="method")


def spread(
    results: pd.DataFrame, index: str | list[str], columns: str, y: str = "accuracy"
) -> pd.DataFrame:
    """Return column `y` over a grid of other columns, in order of appearance.

    Each cell is "mean ± std" (sample standard deviation).
    """
    keys = [*([index] if isinstance(index, str) else index), columns]
    grouped = results.groupby(keys, sort=False)[y].agg(["mean", "std"])
    cells = pd.Series([cell(*row) for row in grouped.itertuples(index=False)], grouped.index)
    return cells.unstack(columns, sort=False).fillna("")


def cell(mean: float, std: float = float("nan"), kind: str = ".2f") -> str:
    """Return "mean ± std" in %, the mean alone if std is NaN, or a dash if the mean is.

    kind: how the mean is formatted.
    """
    if pd.isna(mean):
        return "–"
    return f"{mean:{kind}}" if pd.isna(std) else f"{mean:{kind}} ± {std:.2f}"


def with_sets_as_columns(results: pd.DataFrame, main: str) -> pd.DataFrame:
    """Return results of `study.run` on several condensed sets with the methods named as in Table 2.

    Random selections from a set that was not condensed by `main` are named by that set's
    condensation ("dream") and come after the random ones from `main`'s.
    """
    other = results.condensation != main
    named = results.assign(method=results["method"].where(~other, results["condensation"]))
    order = [
        *named.method[~other & (named.method == "random")].unique(),
        *named.method[other].unique(),
        *named.method[~other].unique(),
    ]
    return named.sort_values(
        "method",
        key=lambda method: method.map({name: order.index(name) for name in order}),
        kind="stable",
    )


def table2(comparison: pd.DataFrame, spread: pd.DataFrame) -> pd.DataFrame:
    """Return our accuracy beside the paper's, one row per method.

    A cell of the paper is "28.23 (+0.27)", with ours minus the paper's in brackets. comparison:
    from `beside_paper`. spread: from `summary`.
    """
    cells: dict[str, dict[str, str]] = {}
    for row in comparison.merge(
        spread[["method", "ipc_to", "std"]], on=["method", "ipc_to"]
    ).itertuples():
        paper = "–" if pd.isna(row.paper) else f"{row.paper:.2f}\u00a0({row.difference:+.2f})"
        named = {f"IPC {row.ipc_to}": cell(row.ours, row.std), f"IPC {row.ipc_to}, paper": paper}
        cells.setdefault(title_of(row.method), {}).update(named)
    return pd.DataFrame(cells).T.rename_axis(index="method")


def beside_paper(results: pd.DataFrame, condensed: CondensedSet) -> pd.DataFrame | None:
    """Return ours beside Table 2; None if the paper has no such rows.

    Columns: method, ipc_to, precision, ours, paper, difference (the last three in %). Raises
    ValueError if the set does not name its dataset.
    """
    if "dataset" not in condensed.info:
        raise ValueError(
            "condensed.info must have 'dataset', which selects the rows of Table 2 to compare with"
        )
    published = paper.beside(
        ccs_cutoffs.dataset_of(condensed.info["dataset"], len(condensed.classes)), condensed.ipc
    )
    if published is None:
        return None
    ours = summary(results)[["method", "ipc_to", "precision", "mean"]].rename(
        columns={"mean": "ours"}
    )
    both = ours.merge(
        published.rename(columns={"mean": "paper"})[["method", "ipc_to", "paper"]],
        on=["method", "ipc_to"],
        how="left",
    )
    return both.assign(difference=both.ours - both.paper)


def order_as_paper(comparison: pd.DataFrame) -> pd.DataFrame:
    """Return how well the order of the methods agrees with the paper's.

    Columns: ipc_to, spearman (1: the same order), n (methods). comparison: from `beside_paper`.
    """
    both = comparison.dropna(subset=["ours", "paper"]).groupby("ipc_to", sort=False)
    rows = [
        (budget, part["ours"].corr(part["paper"], method="spearman"), len(part))
        for budget, part in both
    ]
    return pd.DataFrame(rows, columns=["ipc_to", "spearman", "n"])


def paired(results: pd.DataFrame, against: str = "yoco") -> pd.DataFrame:
    """Return YOCO minus each other method, paired over dynamics and seeds.

    Columns: ipc_to, method, mean, std (in %), wins, n, p, holm. p is from a one-sided paired t-test
    that the mean difference is above 0 (NaN for a single pair). Several seeds of one dynamics share
    a selection, so p is then too small. holm is p after Holm's correction for all tests of the
    table.
    """
    checks.one_of("against", against, set(results.method))
    wide = results.pivot_table(
        index=["ipc_to", "dynamics", "seed"], columns="method", values="accuracy", sort=False
    )
    gaps = wide[[against]].values - wide.drop(columns=against)
    long = (
        gaps.melt(ignore_index=False, var_name="method", value_name="gap")
        .reset_index()
        .dropna(subset="gap")
    )
    grouped = long.groupby(["ipc_to", "method"], sort=False)["gap"]
    table = grouped.agg(
        mean="mean", std="std", wins=lambda gap: int((gap > 0).sum()), n="count", p=_p_value
    ).reset_index()
    return table.assign(holm=holm(table.p))


def holm(p: pd.Series) -> pd.Series:
    """Return p-values after Holm's step-down correction for all of them; NaN counts as no test.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    ordered = p.dropna().sort_values()
    left = range(len(ordered), 0, -1)  # tests not yet rejected, this one included
    return (ordered * list(left)).cummax().clip(upper=1.0).reindex(p.index)


def rule_effects(results: pd.DataFrame) -> pd.DataFrame:
    """Return what each rule gains in points of accuracy: columns ipc_to, method, easy, balanced.

    easy: over hard, averaged over balanced and not. balanced: over unbalanced, averaged over easy
    and hard. results: from `study.train` on `ablations.rules`.
    """
    means = (
        results.groupby(["ipc_to", "method", "keep", "balanced"], sort=False)["accuracy"]
        .mean()
        .unstack(["keep", "balanced"])
    )
    keep, balanced = (
        means.T.groupby(level="keep").mean().T,
        means.T.groupby(level="balanced").mean().T,
    )
    return pd.DataFrame(
        {"easy": keep["easy"] - keep["hard"], "balanced": balanced[True] - balanced[False]}
    ).reset_index()


def _p_value(gaps: pd.Series) -> float:
    from scipy.stats import ttest_1samp

    if len(gaps) < 2 or gaps.std() == 0:
        return float("nan")
    return float(ttest_1samp(gaps, 0, alternative="greater").pvalue)


def verdict(gaps: pd.DataFrame, against: str = "YOCO") -> str:
    """Return one sentence per budget of `paired`: the smallest lead over another method.

    It also says in how many pairs the method `against` is ahead, and the p-value of the paired
    t-test, before and after Holm's correction for all tests of the table.
    """
    gaps = gaps.assign(holm=holm(gaps.p))
    smallest = gaps.loc[gaps.groupby("ipc_to", sort=False)["mean"].idxmin()]
    return "\n".join(
        f"IPC {row.ipc_to}: {against}'s smallest lead is {cell(row.mean, row.std, '+.2f')} "
        f"points, over {title_of(row.method)} "
        f"(ahead in {row.wins} of {row.n} pairs, p = {row.p:.3g}, corrected {row.holm:.3g})"
        for row in smallest.itertuples(index=False)
    )


def markdown(table: pd.DataFrame) -> str:
    """Return a table in Markdown, index first; numbers with two decimals, budgets as "IPC 1"."""
    shown = table.reset_index()
    names = [f"IPC {name}" if isinstance(name, int) else str(name) for name in shown.columns]
    rows = [names, ["---"] * shown.shape[1]]
    rows += [
        [f"{value:.2f}" if isinstance(value, float) else str(value) for value in row]
        for row in shown.itertuples(index=False)
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


class Readable(str):
    """A table in Markdown, which notebooks, GitHub and documentation sites render alike."""

    __repr__ = _repr_markdown_ = str.__str__


def readable(table: pd.DataFrame, best: str | None = None) -> Readable:
    """Return a table for readers: cells do not wrap, and the best value is bold.

    A table of more than `MOST_COLUMNS` columns is transposed if it has fewer rows than columns.

    Args:
        table: cells "mean ± std", numbers or words; its index becomes the first columns.
        best: "row" or "column", whose highest value is bold; None for no bold.
    """
    if best is not None:
        checks.one_of("best", best, ("row", "column"))
    if table.shape[1] > MOST_COLUMNS and table.shape[0] < table.shape[1]:
        table, best = table.T, {"row": "column", "column": "row"}.get(best or "")
    cells = table.map(lambda value: cell(value) if isinstance(value, float) else str(value))
    if best is not None:
        axis = {"row": 1, "column": 0}[best]
        # the number at the beginning of a cell, NaN if there is none
        values = cells.map(lambda text: pd.to_numeric(text.split(" ")[0], errors="coerce"))
        bold = values.eq(values.max(axis=axis), axis=1 - axis)
        cells = cells.mask(bold, "**" + cells + "**")
    shown = cells.rename_axis(columns=None).reset_index()
    shown.columns = [str(name) for name in shown.columns]
    return Readable(markdown(shown.set_index(shown.columns[0])).replace(" ± ", NEVER_WRAPS))


def counted(count: int, thing: str) -> str:
    """Return for example "1 seed" or "3 seeds"."""
    return f"{count} {thing}{'' if count == 1 else 's'}"
