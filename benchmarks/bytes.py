"""Does storing one byte per value cost accuracy?

Prefixes of the zoo's CIFAR-10 set, ranked by YOCO, as uint8 and as float32.

    # figures/cifar10/by_bytes.csv and by_bytes.png
    python -m benchmarks.bytes folder:~/.cache/yoco-data/cifar10-jpeg
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from yoco import data, plots, zoo
from yoco.experiments import study
from yoco.utils import tensor_files

SET = "cifar10-idc-ipc10"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("figures/cifar10"))
    options = parser.parse_args()
    condensed, dynamics = zoo.load(SET), zoo.load_dynamics(SET)
    with TemporaryDirectory() as folder:
        table = study.by_bytes(
            condensed,
            data.load(options.dataset),
            dynamics,
            folder,
            methods=["yoco"],
            seeds=range(options.seeds),
            epochs=options.epochs,
        )
    tensor_files.write_text(
        options.out / "by_bytes.csv",
        table.assign(set=SET, epochs=options.epochs).round({"accuracy": 2}).to_csv(index=False),
    )
    plots.use_style()
    plots.save(plots.accuracy_by_bytes(table), options.out / "by_bytes.png")
    print(table.groupby(["per_class", "stored", "bytes"])["accuracy"].agg(["mean", "std"]).round(2))


if __name__ == "__main__":
    main()
