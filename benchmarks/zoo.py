"""Make the digits sets of the zoo: one per condensation method, and a nested one.

Each has its accuracy and dynamics. For the maintainers of yoco.

    # yoco/zoo_files/digits-<name>-ipc10.*; a name: a method, or "nested"
    python -m benchmarks.zoo [NAME …]
"""

import sys

from yoco import condense, data, dynamics, evaluate, zoo
from yoco.condense.presets import SCALES

EPOCHS, SEEDS = 100, 5
RUNS = 2  # dynamics that ship with each set, for the seeds 0, 1, …
SCALE = SCALES["smoke"]
# the smoke presets, or longer if their steps are too few to gain anything
# a name in the zoo: the method that makes the set
SETS = {**{method: method for method in condense.METHODS}, "nested": "ncfm"}
LONGER = {"dsa": {"outer_loops": 40}, "kip": {"iterations": 500}}


def main() -> None:
    real = data.load("digits")
    for name in sys.argv[1:] or SETS:
        method, settings = SETS[name], {"preset": "smoke", **LONGER.get(name, {})}
        condensed = condense.condense(
            real, method, device="cpu", nested=True if name == "nested" else None, **settings
        )
        subsets = {
            "start": condense.start_set(real, method, device="cpu", **settings).form(),
            "condensed": condensed.form(),
        }
        accuracies = evaluate.evaluate_many(
            subsets, real, epochs=EPOCHS, seeds=range(SEEDS), width=SCALE.width, device="cpu"
        )
        recording = {
            "epochs": SCALE.recorded,
            "width": SCALE.width,
            "batch_size": SCALE.batch_size,
            "device": "cpu",
        }
        runs = [dynamics.record(condensed, seed=seed, **recording) for seed in range(RUNS)]
        zoo.publish(
            f"digits-{name}-ipc10",
            condensed,
            accuracies,
            (f"ConvNet-D3 of width {SCALE.width}, {EPOCHS} epochs, last epoch"),
            runs,
        )
    columns = [
        "name",
        "method",
        "factor",
        "steps",
        "hours",
        "start_accuracy",
        "accuracy",
        "accuracy_std",
    ]
    print(zoo.table()[columns].to_string(index=False))


if __name__ == "__main__":
    main()
