"""What a finished run tells on the command line: its table, and where the files are."""

from pathlib import Path

from yoco.experiments import tables
from yoco.utils.lazy import pd
from yoco.workflow.run_folder import TABLE

PICTURE = "accuracy_by_budget.png"  # of a run, by 04_pruning


def tell(run: Path) -> None:
    """Print a run's table of methods × IPC_T, and where the figures are."""
    if (run / TABLE).exists():
        print(f"\ntest accuracy in %, mean ± standard deviation ({run / TABLE}):\n")
        print(tables.pivot(pd.read_csv(run / TABLE)).T.to_string())
        if (run / PICTURE).exists():
            print(f"\nits picture: {run / PICTURE}")
    figures = sorted(path.name for path in run.glob("*.png"))
    named = f" (figures: {', '.join(figures)})" if figures else ""
    print(f"\nall files of the run are in {run}{named}")
