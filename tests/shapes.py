"""A run of the package whose annotated shapes are checked at every call (tests/test_shapes.py)."""

import tempfile
from pathlib import Path
from typing import Any

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # a whole number is a float

ROOT = Path(__file__).parents[1]
CHECKED = tuple(
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for file in sorted(ROOT.glob("yoco/**/*.py"))
    if "\nfrom jaxtyping import " in file.read_text()
)


def check_shapes() -> None:
    """From here on, check each call in the modules with annotated shapes against them."""
    install_import_hook(CHECKED, "tests.shapes.checked")


def look(made: Any, seen: Any, data: Any, folder: Path) -> None:
    """Draw, damage, export and rank a set, and read it again."""
    from yoco import CondensedSet, RankedSet, plots
    from yoco.experiments import corruption, study

    plots.kept_of_class(made, study.selections(made, seen, [1]), 0)
    plots.extremes(made, seen.aum)
    plots.sample(made, seen, 0)
    plots.multi_formation(made.form()[0][:4], 2)
    for kind in ("symmetric", "noise"):
        corruption.damage_data(data, kind, 50)
        corruption.damage_set(made, kind, 50)
    made.as_dataset()[0]
    made.export(folder / "set.pt", "pt")
    CondensedSet.from_published(folder / "set.pt")
    RankedSet.open(made.rank(seen).save(folder / "ranked.safetensors")).take(ipc=1)


def run() -> None:
    """Condense by each method, record dynamics, prune by each method, train and test."""
    from tests.conftest import make_data
    from tests.test_own import TINY
    from yoco import condense, dynamics, evaluate, scores
    from yoco.experiments import study

    data, quiet = make_data(size=16), {"progress": False, "device": "cpu"}
    for method in condense.METHODS:
        made = condense.condense(
            data, method, 2, preset="smoke", **TINY.get(method, {"iterations": 2}), **quiet
        )
    made = condense.condense(data, "idc", 2, 2, preset="smoke", **TINY["idc"], **quiet)
    seen = dynamics.record(made, epochs=3, seed=0, model="convnet-d2-w8", **quiet)
    options = {"ipc_to": [1], "seeds": [0], "epochs": 1, "model": "convnet-d2-w8", "jobs": 1}
    print(study.run(made, data, [seen], **options, **quiet))
    print(scores.lbpe(seen.logits, seen.labels, top_k=1, within=2))
    folder = Path(tempfile.mkdtemp())
    seen.save(folder / "dynamics.safetensors")
    look(made, seen, data, folder)
    tested = {"epochs": 1, "seed": 0, "device": "cpu", "model": "convnet-d2-w8"}
    evaluate.evaluate(*made.form(), data, protocol="ncfm", **tested)
