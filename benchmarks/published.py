"""Train on the published sets of a folder and compare with the accuracies that its README states.

    # figures/published/accuracies.csv
    python -m benchmarks.published ../shared/data/published folder:~/.cache/yoco-data/cifar10

A set is tested on the first of the datasets that it fits in shape and number of classes. A set that
is not whitened but leaves 0..1 is also trained on clipped to 0..1.
"""

import argparse
import re
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from yoco import CondensedSet, data, evaluate
from yoco.data import ImageData
from yoco.data.spaces import Space
from yoco.experiments import tables
from yoco.utils import tensor_files

EPOCHS = {1: 300, 10: 100}  # by images per class, as for the accuracies of the README
VALUES = ("as they are", "clipped to 0..1")  # of the images that networks are trained on


def stated(readme: str) -> dict[str, str]:
    """Return what the last column of a README's table says about accuracies, by folder."""
    rows = re.findall(r"^\| `([\w-]+)` \|.*\| ([^|]+) \|$", readme, re.MULTILINE)
    return {
        name: "; ".join(part for part in re.split(r"[;.] ", text) if "%" in part)
        for name, text in rows
    }


def read(path: Path) -> tuple[CondensedSet | None, str]:
    """Return the set in `path` and what it was taken for, or None and the error."""
    with redirect_stdout(StringIO()) as said:
        try:
            found = CondensedSet.from_published(path)
            return found, said.getvalue().strip().removeprefix(f"{path.name}: ")
        except ValueError as error:
            return None, str(error).removeprefix(f"{path} ")


def fitting(found: CondensedSet, datasets: Sequence[ImageData]) -> ImageData | None:
    """Return the first dataset whose images and classes a set fits."""
    shape, classes = found.images.shape[1:], len(found.classes)
    fits = (
        real
        for real in datasets
        if real.test_images.shape[1:] == shape and len(real.classes) == classes
    )
    return next(fits, None)


def subsets(found: CondensedSet) -> Iterator[tuple[str, Tensor, Tensor, Space]]:
    """Yield (values, images, labels, space): the set as it is, and clipped if that differs."""
    images, labels = found.form()
    yield VALUES[0], images, labels, found.space
    if not found.bounded and found.whitening is None:
        yield VALUES[1], found.pictures(images), labels, found.space._replace(bounded=True)


def measure(path: Path, datasets: Sequence[ImageData], seeds: int) -> Iterator[dict[str, Any]]:
    """Yield one row per training run on the set in `path`, or a single one without accuracy."""
    found, said = read(path)
    row = {"file": path.name, "read_as": said}
    real = found and fitting(found, datasets)
    if not (found and real):
        yield row
        return
    for values, images, labels, space in subsets(found):
        for seed in range(seeds):
            trained = {"tested_on": real.name, "epochs": EPOCHS[found.ipc], "seed": seed}
            accuracy = evaluate.evaluate(
                images, labels, real, epochs=EPOCHS[found.ipc], seed=seed, space=space
            )
            yield {**row, "values": values, **trained, "accuracy": round(accuracy, 2)}


def table(measured: pd.DataFrame) -> str:
    """Return the page's table: what each set was read as, its accuracies, and the stated ones."""
    # a set that was not trained on has one row without an accuracy
    named = measured.fillna({"values": VALUES[0], "epochs": 0, "stated": "–"})
    named = named.assign(epochs=named.epochs.map(lambda epochs: f"{epochs:.0f}" if epochs else "–"))
    index = ["file", "read_as", "epochs", "stated"]
    wide = (
        tables.spread(named, index, "values")
        .reindex(columns=VALUES, fill_value="–")
        .replace("", "–")
    )
    shown = wide.reset_index()[[*index[:3], *VALUES, "stated"]]
    titles = ["set", "read as", "epochs", *(f"{values}, %" for values in VALUES), "expected"]
    return tables.markdown(shown.set_axis(titles, axis=1).set_index("set"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("--only", nargs="*", help="names of sets; rows of others are kept")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("figures/published/accuracies.csv"))
    options = parser.parse_args()
    datasets = [data.load(name, progress=False) for name in options.datasets]
    said = stated((options.folder / "README.md").read_text(encoding="utf-8"))
    table = pd.read_csv(options.out) if options.only else pd.DataFrame()
    for name in options.only or sorted(said):
        rows = pd.DataFrame(measure(options.folder / name, datasets, options.seeds))
        print(rows.to_string(), flush=True)
        if options.only:
            table = table[table["file"] != name]
        table = pd.concat([table, rows.assign(stated=said[name])], ignore_index=True)
    whole = {"epochs": "Int64", "seed": "Int64"}  # with gaps: no training, no number
    table = table.astype(whole).sort_values("file", kind="stable")
    tensor_files.write_text(options.out, table.to_csv(index=False))


if __name__ == "__main__":
    main()
