"""The plan for ImageNet-1K: `benchmarks.scale` on 1, 8, 64 and 512 GPUs.

    # figures/bench/imagenet1k.csv and .png, from costs.csv and work.csv there; part of `make bench`
    python -m benchmarks.imagenet1k

It prints the tables and sentences of docs/imagenet1k.md; a test compares the page with the files.
"""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from benchmarks.scale import (
    GPUS,
    JOB,
    MACHINE,
    PLANS,
    TERMS,
    Job,
    Machine,
    Work,
    most_classes,
    simulate,
)
from yoco.utils import tensor_files

USED = (0.05, 0.15, 0.30)  # shares of a GPU's peak speed


def simulated(job: Job, work: Work, machine: Machine = MACHINE) -> pd.DataFrame:
    """Return all plans on all of `GPUS`, at the three shares of a GPU's peak speed.

    efficiency: the share of the GPUs' time spent on what has to be done once: each class matched,
    each network trained.
    """
    rows = []
    for used in USED:
        for plan in PLANS:
            runs = [simulate(job, work, replace(machine, used=used), plan, ranks) for ranks in GPUS]
            # of one GPU
            once = sum(runs[0][term] for term in ("matching", "network", "pretraining"))
            rows += [{**run, "efficiency": once / run["hours"] / run["gpus"]} for run in runs]
    return pd.DataFrame(rows)


def known_work(folder: Path = Path("figures/bench")) -> Work:
    """Return the contents of costs.csv and work.csv."""
    counted = pd.read_csv(folder / "work.csv").query("classes == 1000").iloc[0]
    measured = pd.read_csv(folder / "costs.csv")
    largest = measured.loc[measured.state_bytes.idxmax()]
    fields = {
        name: float(counted[name])
        for name in ("real_flop", "formed_flop", "trained_flop", "weight_bytes", "decode_s")
    }
    return Work(
        **fields,
        draws_s=float(measured.draws_s.min()),
        sum_s=float(largest.checkpoint_s / largest.state_bytes),
    )


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cost_table(costs: pd.DataFrame) -> str:
    """Return the page's table of costs.csv.

    It has CPU seconds per class and image, the state, and the memory.
    """
    columns = (
        "network",
        "side",
        "classes",
        "IPC",
        "real, formed",
        "matching one class, s",
        ("training on one image, s"),
        "state, MB",
        ("peak memory, MB"),
    )
    rows = [
        (
            row.model,
            str(row.side),
            str(row.classes),
            str(row.ipc),
            f"{row.real}, {row.formed}",
            f"{row.match_s / row.classes:.3g}",
            f"{row.network_s / row.images:.3g}",
            f"{row.state_bytes / 1e6:.3g}",
            f"{row.memory_mb:,}",
        )
        for row in costs.itertuples()
    ]
    return markdown(columns, rows)


def work_table(work: pd.DataFrame) -> str:
    """Return the page's table of work.csv: GFLOP per image beside CPU seconds."""
    columns = (
        "network",
        "side",
        "classes",
        *(
            f"{part}: GFLOP, s"
            for part in ("real image matched", ("formed image matched"), ("image trained on"))
        ),
    )
    rows, milliseconds = [], []
    for row in work.to_dict("records"):
        parts = [
            (row[f"{part}_flop"] / 1e9, row[f"{part}_s"]) for part in ("real", "formed", "trained")
        ]
        said = [
            f"{count:.3g}" + ("" if np.isnan(seconds) else f", {seconds:.3g}")
            for count, seconds in parts
        ]
        rows.append((row["model"], str(row["side"]), str(row["classes"]), *said))
        milliseconds += [
            1000 * seconds / count for count, seconds in parts if not np.isnan(seconds)
        ]
    spread = (
        f"All parts and sizes cost between {min(milliseconds):.1f} and {max(milliseconds):.1f} "
        "processor milliseconds per GFLOP."
    )
    return f"{markdown(columns, rows)}\n\n{spread}"


def table(found: pd.DataFrame) -> str:
    """Return the page's table of imagenet1k.csv.

    It has days at the middle speed (and the range), efficiency, and the largest terms.
    """
    columns = (
        "plan",
        "GPUs",
        "days",
        "at 0.30 … 0.05 of the peak",
        "efficiency",
        "largest terms",
        "GB per GPU",
    )
    lines = []
    for plan, gpus in found[["plan", "gpus"]].drop_duplicates().itertuples(index=False):
        rows = found[(found.plan == plan) & (found.gpus == gpus)].set_index("used")
        row, days = rows.loc[0.15], rows.hours / 24
        first, second = row[list(TERMS)].astype(float).nlargest(2).items()
        shares = ", ".join(
            f"{name} {100 * hours / row.hours:.0f} %" for name, hours in (first, second)
        )
        ranged = f"{_days(days[0.30])} … {_days(days[0.05])}"
        lines.append(
            (
                plan,
                str(gpus),
                _days(days[0.15]),
                ranged,
                f"{100 * row.efficiency:.1f} %",
                shares,
                f"{row.held_gb:,.1f}",
            )
        )
    return markdown(columns, lines)


def _days(days: float) -> str:
    return f"{days:,.0f}" if days >= 10 else f"{days:.2g}"


def assumptions(machine: Machine = MACHINE) -> str:
    """Return the fields of `Machine` and their values."""
    return markdown(
        ("assumed", "value"),
        [(f"`{name}`", f"{getattr(machine, name):g}") for name in Machine.__dataclass_fields__],
    )


def facts(
    found: pd.DataFrame, work: Work, costs: pd.DataFrame, job: Job = JOB, machine: Machine = MACHINE
) -> str:
    """Return what breaks, in the order in which it does, in the words of the page."""
    middle = found[found.used == machine.used]
    first, last = (
        middle[middle.plan == plan.name].set_index("gpus").to_dict("index")
        for plan in (PLANS[0], PLANS[-1])
    )
    share = lambda run, term: f"{100 * run[term] / run['hours']:.1f} %"
    eight, most, mended = first[8], first[512], last[512]
    memory = costs[(costs.side == job.side) & (costs.real == 4)].set_index("formed").memory_mb
    formed_mb = (memory.loc[18] - memory.loc[9]) / 9
    decoding = work.decode_s * job.classes * job.per_class / 3600
    gb = lambda size: f"{size / 1e9:.0f} GB"
    pixels = job.classes * job.per_class * job.image_bytes
    items = (
        f"**Memory.** The condensed images are {gb(job.set_bytes)} as float32. At the peak of an "
        f"image step every rank holds five times that, {eight['held_gb']:.0f} GB, but a GPU has "
        f"{gb(machine.memory_bytes)}. So the code as written does not start, on any number of "
        "GPUs.",
        f"**Checkpoints.** Rank 0 gathers and writes the images and their velocity, "
        f"{gb(2 * job.set_bytes)}. That takes {eight['checkpoint_s']:.0f} s and starts again "
        f"{machine.save_every:.0f} s later: {share(eight, 'checkpoints')} of the time.",
        f"**Pretraining.** Each of the {job.outer_loops} networks sees all real images "
        f"{job.pretrain_epochs} times, on every rank. That takes "
        f"{eight['pretraining']:.0f} hours on 8 GPUs and {most['pretraining']:.0f} on 512; "
        f"matching takes {eight['matching']:.0f} and {most['matching']:.1f}.",
        "**The network step, and waiting,** once these are changed. On 512 GPUs, matching is "
        f"{share(mended, 'matching')} of the time, waiting for the slowest rank "
        f"{share(mended, 'waiting')}, and the network step, which all ranks repeat, "
        f"{share(mended, 'network')}.",
        "**Not the links.** As written, a gradient of all images is summed in every step: "
        f"{share(most, 'exchange')} of the time on 512 GPUs. The weights alone are "
        f"{share(mended, 'exchange')}. An uneven division does not matter either: of "
        f"{job.classes} classes, each of 512 GPUs has at most {most_classes(job.classes, 512)}, "
        f"{job.classes / 512:.2f} on average.",
        f"**Not the data.** The pixels are {gb(pixels)}, decoded once in {decoding:.1f} hours of "
        "one core (images of 500 × 375 from JPEG), and stay in the host's memory. A formed image "
        f"adds {formed_mb:.0f} MB to matching (on a CPU), so the {job.formed} in a class take "
        f"{formed_mb * job.formed / 1024:.0f} GB.",
    )
    return "\n".join(f"{number}. {item}" for number, item in enumerate(items, 1))


def draw(found: pd.DataFrame) -> plt.Figure:
    figure, axes = plt.subplots(1, len(PLANS), figsize=(9, 3.4), sharey=True, layout="constrained")
    colours = plt.get_cmap("tab10").colors
    for ax, plan in zip(axes, PLANS):
        rows = found[(found.plan == plan.name) & (found.used == 0.15)]
        below = np.zeros(len(rows))
        for term, colour in zip(TERMS, colours):
            share = (rows[term] / rows.hours).to_numpy()
            ax.bar([str(gpus) for gpus in rows.gpus], share, bottom=below, color=colour, label=term)
            below += share
        ax.set_title(plan.name, fontsize=10)
        ax.set_xlabel("GPUs")
        for position, hours in enumerate(rows.hours):
            ax.text(position, 1.02, f"{_days(hours / 24)} d", ha="center", fontsize=8)
        ax.set_ylim(0, 1.1)
    axes[0].set_ylabel("share of the time")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("figures/bench"),
        help="where work.csv and costs.csv are as well",
    )
    options = parser.parse_args()
    found = simulated(JOB, known_work(options.out))
    tensor_files.write_text(
        options.out / "imagenet1k.csv", found.to_csv(index=False, float_format="%.5g")
    )
    found = pd.read_csv(options.out / "imagenet1k.csv")
    draw(found).savefig(options.out / "imagenet1k.png", dpi=150)
    work, costs = known_work(options.out), pd.read_csv(options.out / "costs.csv")
    counted = work_table(pd.read_csv(options.out / "work.csv"))
    print(
        table(found),
        facts(found, work, costs),
        cost_table(costs),
        counted,
        assumptions(),
        sep="\n\n",
    )


if __name__ == "__main__":
    main()
