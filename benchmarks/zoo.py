"""Make the digits sets of the zoo: one of each condensation method, with its accuracy. For the maintainers of yoco.

    python -m benchmarks.zoo [METHOD …]   # yoco/zoo_files/digits-<method>-ipc10.condensed.safetensors
"""

import sys

from yoco import condense, data, evaluate, zoo

EPOCHS, SEEDS, WIDTH = 100, 5, 32
# the smoke presets, or longer where its steps are too few to gain anything
LONGER = {"dsa": {"outer_loops": 40}, "kip": {"iterations": 500}}


def main() -> None:
    real = data.load("digits")
    for method in sys.argv[1:] or condense.METHODS:
        settings = {"preset": "smoke", **LONGER.get(method, {})}
        condensed = condense.condense(real, method, device="cpu", **settings)
        subsets = {"start": condense.start_set(real, method, device="cpu", **settings).form(), "condensed": condensed.form()}
        accuracies = evaluate.evaluate_many(subsets, real, epochs=EPOCHS, seeds=range(SEEDS), width=WIDTH, device="cpu")
        zoo.publish(f"digits-{method}-ipc10", condensed, accuracies, f"ConvNet-D3 of width {WIDTH}, {EPOCHS} epochs, last epoch")
    columns = ["name", "method", "factor", "steps", "hours", "start_accuracy", "accuracy", "accuracy_std"]
    print(zoo.table()[columns].to_string(index=False))


if __name__ == "__main__":
    main()
