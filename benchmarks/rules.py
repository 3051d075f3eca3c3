"""Rules to prune by beside LBPE: networks are trained on what each keeps of a set.

    python -m benchmarks.rules folder:PATH zoo:cifar10-ncfm-ipc10 --ipc 1,2

Writes figures/rules/rules.csv, one row per training run as it ends; a second start trains what is
missing. All rules balance the classes, and those of a score keep the easy end. Rules of one
recorded run take another run for each of `--seeds`; rules of several runs keep the same images for
each. Recorded runs (the first 200 of 1000 epochs, or all) and features are kept in `--runs`.
With `--rest`, networks are tested on the rest of the set that they were trained on a part of:

    python -m benchmarks.rules folder:PATH SET … --rest --rules random --ipc 1 \
        --out figures/rules/rest.csv
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor

from yoco import data, dynamics, evaluate, models, score_formulas, scores, workflow
from yoco.data.normalise import normalise
from yoco.dynamics import Dynamics
from yoco.dynamics.dynamics import margin
from yoco.prune.select import in_groups
from yoco.sets.condensed_set import CondensedSet
from yoco.training import network
from yoco.training.protocol import Protocol
from yoco.utils import device as devices
from yoco.utils import tensor_files

EARLY, WHOLE, OF = 200, 1000, 3  # epochs recorded; runs of the rules that average
Pick = Callable[[Tensor, int], Tensor]  # members of a class, how many -> positions among them
KEY = ["set", "rule", "ipc", "seed", "epochs"]


def recorded(condensed: CondensedSet, seed: int, until: int, folder: Path) -> Dynamics:
    """Return the first epochs of a run of 1000, recording them if they are not in the folder."""
    path = folder / f"{condensed.fingerprint}-{until}-{seed}.safetensors"
    if not path.exists():
        how = {"epochs": WHOLE, "seed": seed, "until": until, "early": min(until, EARLY)}
        dynamics.record(condensed, progress=False, compiled=True, **how).save(path)
    return Dynamics.load(path)


@dataclass(frozen=True)
class Seen:
    """A set, and the folder of what was recorded on it."""

    name: str
    condensed: CondensedSet
    folder: Path

    def run(self, seed: int, until: int = EARLY) -> Dynamics:
        """Return the recorded run of a seed."""
        return recorded(self.condensed, seed, until, self.folder)

    def mean(self, score: Callable[["Seen", Dynamics], Tensor]) -> Tensor:
        """Return the mean of a score over the first runs."""
        return torch.stack([score(self, self.run(seed)) for seed in range(OF)]).mean(0)

    def features(self) -> Tensor:
        """Return normalised features of a network trained on the set for 300 epochs, [N, D]."""
        path = self.folder / f"{self.condensed.fingerprint}-features.pt"
        if not path.exists():
            images, labels = self.condensed.form()
            images = normalise(images, self.condensed.mean, self.condensed.std)
            how = Protocol.of(epochs=300, compiled=True).resolved(
                devices.choose("cpu"), len(images) * 300, self.condensed.size
            )
            trained = network.fit(images, labels, len(self.condensed.classes), how, 0)
            with torch.no_grad():
                torch.save(trained.features(images), path)
        found = torch.load(path)
        return found / found.norm(dim=1, keepdim=True)

    def untrained(self, networks: int = 8) -> Tensor:
        """Return features of untrained networks side by side, each centred and normalised."""
        images, _ = self.condensed.form()
        images = self.condensed.normalise(images)
        shape = (self.condensed.channels, len(self.condensed.classes), self.condensed.size)
        found = []
        for seed in range(networks):
            with torch.no_grad():
                features = models.build_seeded(seed, "convnet", *shape).features(images)
            found.append(F.normalize(features - features.mean(0)))
        return torch.cat(found, 1)

    def predictions(self) -> Tensor:
        """Return each run's mean prediction over the first 100 epochs, side by side, [N, 3 K]."""
        runs = [self.run(seed) for seed in range(OF)]
        return torch.cat([run.early_logits(100).softmax(-1).mean(0) for run in runs], 1)


def lbpe(seen: Seen, run: Dynamics) -> Tensor:
    return scores.LBPE.read(seen.condensed, run)


def error(epochs: int) -> Callable[[Seen, Dynamics], Tensor]:
    """LBPE's formula over all of the first epochs."""
    return lambda seen, run: score_formulas.el2n(
        run.early_logits(epochs), seen.condensed.formed_targets, epochs=epochs
    )


def aum(epochs: int) -> Callable[[Seen, Dynamics], Tensor]:
    """The negative mean margin of the first epochs."""
    return lambda seen, run: -margin(run.early_logits(epochs), run.labels).mean(0)


def forgetting(seen: Seen, run: Dynamics) -> Tensor:
    """Times forgotten; ties: by the share of epochs in which the image was wrong."""
    return run.forgetting + (~run.correct).float().mean(0)


def easiest(score: Tensor) -> Pick:
    return lambda members, n: score[members].argsort(stable=True)[:n]


def by_run(score: Callable[[Seen, Dynamics], Tensor]) -> Callable[[Seen, int], Pick]:
    return lambda seen, seed: easiest(score(seen, seen.run(seed)))


def by_runs(score: Callable[[Seen, Dynamics], Tensor]) -> Callable[[Seen, int], Pick]:
    return lambda seen, seed: easiest(seen.mean(score))


def clustered(points: Callable[[Seen], Tensor]) -> Callable[[Seen, int], Pick]:
    """Cluster each class by k-means, and keep the image of highest AUM of each cluster."""

    def rule(seen: Seen, seed: int) -> Pick:
        where, score = points(seen), seen.mean(aum(100))

        def pick(members: Tensor, n: int) -> Tensor:
            cluster = KMeans(n, n_init=10, random_state=0).fit_predict(where[members].numpy())
            order = score[members].argsort(stable=True).tolist()
            return torch.tensor([next(i for i in order if cluster[i] == k) for k in range(n)])

        return pick

    return rule


def herded(points: Callable[[Seen], Tensor], share: float = 1.0) -> Callable[[Seen, int], Pick]:
    """Keep the images whose mean comes nearest to the class's mean, one after the other.

    share: of each class, the easiest by AUM, from which they are chosen.
    """

    def rule(seen: Seen, seed: int) -> Pick:
        where, score = points(seen), seen.mean(aum(100))

        def pick(members: Tensor, n: int) -> Tensor:
            own, goal = where[members], where[members].mean(0)
            easy = score[members].argsort(stable=True)[: max(n, int(share * len(members)))]
            chosen: list[int] = []
            for count in range(1, n + 1):
                far = ((own[chosen].sum(0) + own) / count - goal).norm(dim=1)
                free = [i for i in easy.tolist() if i not in chosen]
                chosen.append(min(sorted(free), key=far.tolist().__getitem__))
            return torch.tensor(chosen)

        return pick

    return rule


def closest(points: Callable[[Seen], Tensor]) -> Callable[[Seen, int], Pick]:
    """Keep the images whose mean is nearest to the class's mean, found by swapping single ones.

    The search begins once at each image of the class.
    """

    def rule(seen: Seen, seed: int) -> Pick:
        where = points(seen)

        def pick(members: Tensor, n: int) -> Tensor:
            alike = where[members] @ where[members].T
            found = [_swapped(alike, first, n) for first in range(len(members))]
            return min(found, key=lambda chosen: _far(alike, chosen).item())

        return pick

    return rule


def _far(alike: Tensor, chosen: Tensor) -> Tensor:
    """Return squared distances of the means of sets [..., n] from that of all, up to a constant."""
    inside = alike[chosen.unsqueeze(-1), chosen.unsqueeze(-2)].mean((-1, -2))
    return inside - 2 * alike.mean(1)[chosen].mean(-1)


def _swapped(alike: Tensor, first: int, n: int) -> Tensor:
    """Add images to the first one by one, then swap one at a time while that helps."""
    chosen, every = torch.tensor([first]), {*range(len(alike))}
    while True:
        free = torch.tensor(sorted(every - {*chosen.tolist()}))
        if len(chosen) < n:
            tried = torch.cat([chosen.expand(len(free), -1), free.unsqueeze(1)], 1)
            chosen = tried[_far(alike, tried).argmin()]
            continue
        if n == len(alike):
            return chosen
        tried = chosen.repeat(n * len(free), 1)
        place = torch.arange(n).repeat_interleave(len(free))
        tried[torch.arange(len(tried)), place] = free.repeat(n)
        far = _far(alike, tried)
        if far.min() > _far(alike, chosen) - 1e-6:
            return chosen
        chosen = tried[far.argmin()]


def at_random(seen: Seen, seed: int) -> Pick:
    source = torch.Generator().manual_seed(seed)
    return lambda members, n: torch.randperm(len(members), generator=source)[:n]


def first(seen: Seen, seed: int) -> Pick:
    """The order of a nested set; in other sets it means nothing."""
    return lambda members, n: torch.arange(n)


FEATURES, PREDICTIONS = lambda seen: seen.features(), lambda seen: seen.predictions()
UNTRAINED = lambda seen: seen.untrained()
RULES: dict[str, Callable[[Seen, int], Pick]] = {
    "random": at_random,
    "LBPE": by_run(lbpe),
    "LBPE, 3 runs": by_runs(lbpe),
    "LBPE of all 100 epochs": by_run(error(100)),
    "LBPE of all 100 epochs, 3 runs": by_runs(error(100)),
    "EL2N, 3 runs": by_runs(error(10)),
    "AUM of 100 epochs": by_run(aum(100)),
    "AUM of 100 epochs, 3 runs": by_runs(aum(100)),
    "AUM of 200 epochs, 3 runs": by_runs(aum(200)),
    "AUM of 1000 epochs": lambda seen, seed: easiest(-seen.run(0, WHOLE).aum),
    "forgetting of 200 epochs, 3 runs": by_runs(forgetting),
    "k-means of features, highest AUM": clustered(FEATURES),
    "k-means of predictions, highest AUM": clustered(PREDICTIONS),
    "herding of features": herded(FEATURES),
    "herding of features, easier half": herded(FEATURES, 0.5),
    "herding of predictions": herded(PREDICTIONS),
    "nearest mean of untrained features": closest(UNTRAINED),
    "prefix": first,
}


def in_prefix(kept: Tensor, of_class: int, per_class: int) -> float:
    """Return the share of the images kept that are among the first `per_class` of their class.

    of_class: images of each class in the set.
    """
    return round((kept % of_class < per_class).float().mean().item(), 4)


def measure(
    seen: Seen,
    real: data.ImageData,
    path: Path,
    wanted: Sequence[tuple[int, str, int]],
    epochs: int,
    on_rest: bool = False,
) -> None:
    """Train on what each rule keeps, and append what is missing to the table at `path`.

    wanted: (IPC_T, rule, seed). on_rest: test on what the rule drops instead of real images.
    """
    images, labels = seen.condensed.form()
    tested = replace(real, mean=seen.condensed.mean, std=seen.condensed.std)  # as the set was made
    done = pd.read_csv(path).to_dict("records") if path.exists() else []
    known = {tuple(row[name] for name in KEY) for row in done}
    for ipc, rule, seed in wanted:
        if (seen.name, rule, ipc, seed, epochs) in known:
            continue
        per_class = ipc * seen.condensed.factor**2
        kept = in_groups(labels, per_class, True, RULES[rule](seen, seed))
        if on_rest:
            rest = torch.ones(len(labels), dtype=torch.bool).index_fill(0, kept, False)
            pixels = (images[rest] * 255).round().to(torch.uint8)
            tested = replace(tested, test_images=pixels, test_labels=labels[rest])
        accuracy = evaluate.evaluate(
            images[kept], labels[kept], tested, epochs=epochs, seed=seed, compiled=True
        )
        row = dict(zip(KEY, (seen.name, rule, ipc, seed, epochs)))
        share = in_prefix(kept, len(labels) // len(seen.condensed.classes), per_class)
        done.append({**row, "accuracy": round(accuracy, 2), "in_prefix": share})
        print(done[-1], flush=True)
        tensor_files.write_text(path, pd.DataFrame(done).to_csv(index=False))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset")
    parser.add_argument("sets", nargs="+", help="files, or zoo:NAME")
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--ipc", default="1,2", help="budgets")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--runs", type=Path, default=Path("runs/rules"))
    parser.add_argument("--out", type=Path, default=Path("figures/rules/rules.csv"))
    parser.add_argument("--rest", action="store_true", help="test on the rest of the set")
    options = parser.parse_args(arguments)
    real = data.load(options.dataset)
    options.runs.mkdir(parents=True, exist_ok=True)
    wanted = list(product(map(int, options.ipc.split(",")), options.rules, range(options.seeds)))
    for name in options.sets:
        seen = Seen(name, workflow.load_set(name), options.runs)
        measure(seen, real, options.out, wanted, options.epochs, options.rest)
    found = pd.read_csv(options.out)
    print(found.groupby(KEY[:3])["accuracy"].agg(["mean", "std", "count"]).round(2))


if __name__ == "__main__":
    main()
