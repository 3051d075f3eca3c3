"""Sets on NCFM's own terms beside the paper's: the last epoch, and the best of the checks.

    python -m benchmarks.ncfm_terms folder:PATH zoo:cifar10-ncfm-ipc10 zoo:cifar10-nested-ipc10

Writes figures/ncfm/terms.csv, one row per training run as it ends. A second start resumes the run
that was interrupted, whose row then has no seconds, and trains what else is missing. A nested set
is measured at every budget of `--ipc`, by its prefix; any other set as a whole, if its IPC is among
them. `--epochs 2` tries it out.
"""

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from yoco import data, evaluate, prune, workflow
from yoco.data import ImageData
from yoco.experiments import tables
from yoco.sets.condensed_set import CondensedSet
from yoco.training.protocol import AdamW
from yoco.utils import tensor_files

# CIFAR-10's by IPC (github gszfwsb/NCFM: config/ipc*/cifar10.yaml); beside IPC 10's, see
# `Protocol.of`. The first release checked every other epoch from IPC 50 on.
NCFM: dict[int, dict[str, Any]] = {
    1: {"epochs": 2000, "every": 20, "batch_size": 128, "optimiser": AdamW(lr=0.0006)},
    10: {"epochs": 4000, "every": 20},
    50: {"epochs": 2000, "every": 100, "batch_size": 128, "optimiser": AdamW(weight_decay=5e-4)},
}
PAPER = {"epochs": 1000, "every": 20}
STATED = {1: 49.5, 10: 71.8, 50: 77.4}  # in NCFM's paper: the best of the checks, 10 networks
KEY = ["set", "fingerprint", "ipc", "seed", "protocol", "epochs"]
TITLES = {"paper": "YOCO's", "ncfm": "NCFM's"}


def settings(protocol: str, ipc: int, epochs: int | None) -> dict[str, Any]:
    """Return arguments of `evaluate.checked`; epochs: None for the published number."""
    chosen = {"protocol": protocol, **(NCFM[ipc] if protocol == "ncfm" else PAPER)}
    return chosen if epochs is None else {**chosen, "epochs": epochs}


def plan(
    sets: Mapping[str, CondensedSet],
    budgets: Sequence[int],
    seeds: int,
    protocols: Sequence[str],
    epochs: int | None,
) -> Iterator[dict[str, Any]]:
    """Yield what identifies each training run, all sets with one seed before the next seed."""
    for seed, (name, condensed), ipc, protocol in product(
        range(seeds), sets.items(), budgets, protocols
    ):
        if ipc == condensed.ipc or (ipc < condensed.ipc and condensed.info.get("nested")):
            trained = settings(protocol, ipc, epochs)["epochs"]
            yield dict(zip(KEY, (name, condensed.fingerprint, ipc, seed, protocol, trained)))


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"fingerprint": str})


def measure(
    sets: Mapping[str, CondensedSet],
    real: ImageData,
    path: Path,
    wanted: Sequence[Mapping[str, Any]],
    device: str = "auto",
) -> pd.DataFrame:
    """Return the table at `path` after the missing ones of the `wanted` training runs."""
    done = read(path).to_dict("records") if path.exists() else []
    known = {tuple(row[name] for name in KEY) for row in done}
    for row in wanted:
        if tuple(row.values()) in known:
            continue
        condensed, began = sets[row["set"]], time.process_time()
        name = "-".join(str(row[key]) for key in KEY[1:])
        checkpoint = path.with_name(f"{path.stem}-{name}.unfinished.safetensors")
        resumed = checkpoint.exists()
        tested = replace(real, mean=condensed.mean, std=condensed.std)  # as the set was made
        subset = prune.prune(condensed, None, "prefix", row["ipc"]).subset(condensed)
        how = settings(row["protocol"], row["ipc"], row["epochs"])
        how |= {"seed": row["seed"], "device": device, "checkpoint": checkpoint}
        found = evaluate.checked(*subset, tested, **how)
        seconds = None if resumed else round(time.process_time() - began)
        accuracies = {"last": round(found.last, 2), "best": round(found.best, 2)}
        done.append({**row, **accuracies, "seconds": seconds})
        print(done[-1], flush=True)
        table = pd.DataFrame(done).astype({"seconds": "Int64"})
        tensor_files.write_text(path, table.to_csv(index=False))
        checkpoint.unlink(missing_ok=True)
    return pd.DataFrame(done)


def table(measured: pd.DataFrame) -> str:
    """Return the accuracies as Markdown: the last epoch, the best check, and what that adds."""
    rows = []
    for (ipc, name, protocol, epochs), part in measured.groupby(
        ["ipc", "set", "protocol", "epochs"]
    ):
        last, best, gain = (
            tables.cell(values.mean(), values.std())
            for values in (part["last"], part["best"], part["best"] - part["last"])
        )
        stated = str(STATED.get(ipc, "")) if protocol == "ncfm" else ""
        rows.append([ipc, name, TITLES[protocol], f"{epochs:,}", last, best, f"+{gain}", stated])
    columns = ["IPC", "set", "terms", "epochs", "last epoch", "best check", "best − last"]
    found = pd.DataFrame(rows, columns=[*columns, "best in NCFM's paper"])
    return tables.markdown(
        found.assign(set=[f"`{name}`" for name in found["set"]]).set_index("IPC")
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset")
    parser.add_argument("sets", nargs="+", help="files, or zoo:NAME")
    parser.add_argument("--ipc", default="1,10", help="budgets, of 1, 10 and 50")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--protocols", nargs="+", choices=TITLES, default=list(TITLES))
    parser.add_argument("--epochs", type=int, help="instead of the published number")
    parser.add_argument("--out", type=Path, default=Path("figures/ncfm/terms.csv"))
    options = parser.parse_args(arguments)
    budgets = [int(ipc) for ipc in options.ipc.split(",")]
    if unknown := set(budgets) - set(NCFM):
        parser.error(f"--ipc must be of {', '.join(map(str, NCFM))}, got {sorted(unknown)}")
    sets = {name: workflow.load_set(name) for name in options.sets}
    wanted = list(plan(sets, budgets, options.seeds, options.protocols, options.epochs))
    found = measure(sets, data.load(options.dataset), options.out, wanted)
    print(table(found))


if __name__ == "__main__":
    main()
