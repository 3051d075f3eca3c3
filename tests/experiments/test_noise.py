"""Damage and its record, rules that keep damaged images, and repairs, computed by hand.

The study of notebook 06 runs end to end.
"""

import math
from dataclasses import replace

import pandas as pd
import pytest
import torch

from tests.conftest import make_data
from yoco import condense, formation, plots, prune, scores, workflow
from yoco.experiments import corruption, noise
from yoco.workflow import condensation, parameters, recordings

PLAIN = {"width": 8, "precision": "float32", "progress": False}


@pytest.fixture(scope="module")
def ten_cells(toy):
    """Three classes of 5 images with 4 cells each: 20 cells per class."""
    return condense.real_set(toy, 5, 2, seed=0)


@pytest.mark.parametrize("kind", corruption.KINDS)
@pytest.mark.parametrize("percent", [0, 5, 40])
def test_damage_hits_the_same_share_of_every_class(toy, ten_cells, kind, percent):
    data, which = corruption.damage_data(toy, kind, percent)
    changed = (data.train_images != toy.train_images).flatten(1).any(1) | (
        data.train_labels != toy.train_labels
    )
    assert (
        torch.equal(changed, which)
        and torch.bincount(toy.train_labels[which], minlength=3).tolist()
        == [round(24 * percent / 100)] * 3
    )
    assert torch.equal(data.test_images, toy.test_images) and torch.equal(
        data.test_labels, toy.test_labels
    )
    spoiled, cells = corruption.damage_set(ten_cells, kind, percent)
    before, after = (formation.cells(s.images, s.factor) for s in (ten_cells, spoiled))
    assert (
        torch.equal((before != after).flatten(1).any(1), cells)
        and cells.view(3, 20).sum(1).tolist() == [20 * percent // 100] * 3
    )
    assert torch.equal(spoiled.labels, ten_cells.labels) and spoiled.info["damage"] == {
        "kind": kind,
        "percent": percent,
        "seed": 0,
    }


def test_wrong_labels_go_where_their_kind_says(toy, ten_cells):
    data, which = corruption.damage_data(toy, "class_dependent", 40)
    assert torch.equal(data.train_labels[which], (toy.train_labels[which] + 1) % 3)
    data, which = corruption.damage_data(make_data(200), "symmetric", 50)
    moved = torch.stack(
        [
            torch.bincount(data.train_labels[which & (torch.arange(600) // 200 == k)], minlength=3)
            for k in range(3)
        ]
    )
    # as many come as go
    assert moved.diagonal().tolist() == [0, 0, 0] and moved.sum(0).tolist() == [100] * 3
    # any other class, with equal chance
    assert (moved[~torch.eye(3, dtype=torch.bool)] - 50).abs().max() < 25
    spoiled, cells = corruption.damage_set(ten_cells, "class_dependent", 40)
    before, after = (formation.cells(s.images, 2) for s in (ten_cells, spoiled))
    for label in range(3):  # cells of class k are found among those of class k + 1
        left, came = (
            before[cells & (ten_cells.formed_labels == label)],
            after[cells & (ten_cells.formed_labels == (label + 1) % 3)],
        )
        assert torch.equal(left, came)


def test_uneven_factor_leaves_undamaged_cells_unchanged(toy):
    three = condense.real_set(toy, 2, 3, seed=0)
    for kind in corruption.KINDS:
        spoiled, cells = corruption.damage_set(three, kind, 30)
        before, after = three.form()[0], spoiled.form()[0]
        assert torch.equal(before[~cells], after[~cells]) and cells.any()


def test_damage_to_images_is_of_the_stated_strength():
    flat = condense.real_set(make_data(), 5, 2, seed=0)
    grey = replace(flat, images=torch.full_like(flat.images, 0.25))
    cells = {
        kind: formation.cells(corruption.damage_set(grey, kind, 100)[0].images, 2)
        for kind in corruption.IMAGE_KINDS
    }
    # half the side
    assert (cells["occlusion"] == 0.5).float().mean((1, 2, 3)).unique().tolist() == [0.25]
    assert torch.allclose(cells["blur"], torch.full((), 0.25))
    assert 0.15 < cells["noise"].std() < 0.3 and cells["noise"].min() == 0  # clamped at 0
    edge = torch.zeros_like(flat.images)
    edge[..., ::8] = 1
    blurred = formation.cells(
        corruption.damage_set(replace(flat, images=edge), "blur", 100)[0].images, 2
    )
    assert blurred.std() < edge.std() / 2


def test_a_seed_fixes_the_damage_at_every_rate(ten_cells):
    first, again, other = (
        corruption.damage_set(ten_cells, "noise", 40, seed)[0].images for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    masks = [corruption.damage_set(ten_cells, kind, 40)[1] for kind in corruption.KINDS]
    assert all(torch.equal(mask, masks[0]) for mask in masks)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("blurr", 10), "kind='blurr'.*did you mean 'blur'"),
        (("blur", 101), ("percent must be between")),
    ],
)
def test_wrong_damage_is_refused(toy, ten_cells, arguments, said):
    for call, thing in ((corruption.damage_data, toy), (corruption.damage_set, ten_cells)):
        with pytest.raises(ValueError, match=said):
            call(thing, *arguments)


def test_start_set_tells_where_its_cells_came_from(toy):
    for method in condense.METHODS:
        start = condense.start_set(toy, method, 2, preset="smoke", seed=3)
        chosen = torch.tensor(start.info["started_from"])
        own = formation.pack(toy.train_images[chosen].float() / 255, start.factor, toy.size)
        assert torch.equal(own, start.images), method


def test_trimmed_mean_leaves_out_a_fifth_at_either_end():
    logits, labels = torch.zeros(10, 2, 2), torch.tensor([0, 1])
    logits[0, 0, 1] = 50.0  # one epoch in which the first image was far off, as CutMix makes it
    plain, robust = (
        scores.lbpe(logits, labels, average=average) for average in ("mean", "trimmed")
    )
    assert plain[0] > plain[1] and robust[0] == robust[1] == pytest.approx(2**-0.5)
    assert torch.equal(
        scores.lbpe(logits[:4], labels, average="trimmed"), scores.lbpe(logits[:4], labels)
    )
    with pytest.raises(ValueError, match="average='median' is unknown.*allowed: mean, trimmed"):
        scores.lbpe(logits, labels, average="median")


def test_two_sided_cuts_what_all_runs_put_at_an_end():
    labels = torch.zeros(10, dtype=torch.long)
    one = torch.arange(10.0)
    # agrees on the easiest, and of the hardest two on one
    two = torch.tensor([0.0, 9, 2, 3, 4, 5, 6, 7, 1, 8])
    score = scores.two_sided(torch.stack([one, two]), labels, cut=0.2)
    assert torch.nonzero(score >= 1).flatten().tolist() == [0, 9]
    kept = prune.select(score, labels, 9, keep="easy", balanced=True)
    assert kept[-1] == 0 and 9 not in kept.tolist()  # of those cut, the easy end comes back first
    assert torch.equal(scores.two_sided(one[None], labels, cut=0), one.double() / 10)
    apart = scores.two_sided(torch.cat([one, one])[None], torch.arange(20) // 10, cut=0.1)
    assert torch.nonzero(apart >= 1).flatten().tolist() == [0, 9, 10, 19]  # class by class
    for wrong in (
        {"errors": one},
        {"errors": one[None] * math.nan},
        {"cut": 0.6},
        {"labels": labels[:3]},
    ):
        with pytest.raises((ValueError, TypeError), match=next(iter(wrong))):
            scores.two_sided(**{"errors": one[None], "labels": labels, **wrong})


@pytest.fixture(scope="module")
def case(toy_set, toy_dynamics):
    which = torch.zeros(60, dtype=torch.bool)
    which[::5] = True  # 4 of each class
    return noise.Case("formed", "symmetric", 20, toy_set, which, [toy_dynamics, toy_dynamics])


def test_precision_and_recall_by_hand(case):
    selection = noise.keep(case, "yoco", 2, 0)
    bad = sum(index % 5 == 0 for index in selection.indices.tolist())
    assert noise.kept(case, selection) == {
        "kept": 24,
        "damaged": bad,
        "precision": 100 * bad / 24,
        "recall": 100 * bad / 12,
    }
    everything = noise.kept(case, noise.keep(case, "random", 5, 0))
    assert everything == {"kept": 60, "damaged": 12, "precision": 20, "recall": 100}
    clean = noise.kept(replace(case, damaged=torch.zeros(60, dtype=torch.bool)), selection)
    assert clean["precision"] == 0 and math.isnan(clean["recall"])


def test_rules_are_the_methods_and_the_repairs(case, toy_set, toy_dynamics):
    for method in prune.METHODS:
        assert torch.equal(
            noise.keep(case, method, 1, 1).indices,
            prune.prune(toy_set, toy_dynamics, method, 1, seed=1).indices,
        )
    by_el2n = prune.prune(toy_set, toy_dynamics, "el2n", 1, keep="easy", balanced=True).indices
    assert torch.equal(noise.keep(case, "early", 1, 0).indices, by_el2n)
    assert torch.equal(
        noise.keep(case, "trimmed", 1, 0).indices,
        prune.prune(toy_set, toy_dynamics, "yoco", 1, average="trimmed").indices,
    )
    # two equal runs
    assert torch.equal(
        noise.keep(case, "all runs", 1, 0).indices,
        prune.prune(toy_set, toy_dynamics, "yoco", 1).indices,
    )
    easiest = prune.prune(toy_set, toy_dynamics, "yoco", 1).indices.view(3, 4)
    cut = noise.keep(case, "two-sided", 1, 0)  # one in twenty at either end of each class
    assert cut.per_class_counts.tolist() == [4, 4, 4] and not set(easiest[:, 0].tolist()) & set(
        cut.indices.tolist()
    )
    with pytest.raises(ValueError, match="rule='yocco'.*did you mean 'yoco'"):
        noise.keep(case, "yocco", 1, 0)
    with pytest.raises(ValueError, match="ipc_to"):
        noise.keep(case, "two-sided", 6, 0)


def test_detection_is_one_where_every_damaged_image_is_harder(case, toy_set, toy_dynamics):
    hard = prune.score_table(toy_set, toy_dynamics)["lbpe"].rank(method="first").to_numpy() > 50
    seen = noise.detection(replace(case, damaged=torch.from_numpy(hard))).set_index(
        ["score", "dynamics"]
    )["auc"]
    assert seen["lbpe", 0] == seen["all runs", 1] == 1 and len(seen) == 2 * 9
    # a low margin is hard
    aum = prune.score_table(toy_set, toy_dynamics)["aum"].rank(method="first").to_numpy() <= 10
    assert (
        noise.detection(replace(case, damaged=torch.from_numpy(aum))).set_index(
            ["score", "dynamics"]
        )["auc"]["aum", 0]
        == 1
    )
    nothing = noise.detection(replace(case, damaged=torch.zeros(60, dtype=torch.bool)))
    assert nothing.empty and nothing["auc"].dtype.kind == "f"


def test_compare_trains_at_the_budgets_asked_for(case, toy, tmp_path):
    options = {
        "ipc_to": [1, 2],
        "trained_to": [2],
        "epochs": 2,
        "results": tmp_path / "results.csv",
        **PLAIN,
    }
    table = noise.compare([case], toy, ["yoco", "random", "trimmed"], seed=5, seeds=2, **options)
    assert (
        len(table) == 3 * 2 * (1 + 2)
        and table[table.ipc_to == 1].accuracy.isna().all()
        and table[table.ipc_to == 2].accuracy.notna().all()
    )
    seeds = table[table.ipc_to == 2].groupby(["method", "dynamics"])["seed"].agg(list)
    assert seeds["yoco", 0] == [5, 6] and seeds["trimmed", 1] == [7, 8]  # the same for every rule
    gained = noise.gains(table).set_index("method")
    mean = table.dropna(subset="accuracy").groupby("method")["accuracy"].mean()
    assert (
        gained.loc["random", "mean"] == pytest.approx(mean["random"] - mean["yoco"])
        and gained.loc["random", "n"] == 4
    )
    before = (tmp_path / "results.csv").read_text()
    assert noise.compare(
        [case], toy, ["yoco", "random", "trimmed"], seed=5, seeds=2, **options
    ).equals(table)
    assert (tmp_path / "results.csv").read_text() == before
    with pytest.raises(
        ValueError, match=r"trained_to must hold budgets of ipc_to=\[1\], got \[2\]"
    ):
        noise.compare([case], toy, ipc_to=[1], trained_to=[2])
    with pytest.raises(ValueError, match="seeds must be at least 1, got 0"):
        noise.compare([case], toy, ipc_to=[1], seeds=0)
    untrained = noise.compare([case], toy, ["yoco"], ipc_to=[1], trained_to=[], **PLAIN)
    assert len(untrained) == 2 and untrained["accuracy"].isna().all()


def test_figures_of_damage(case, toy, toy_set):
    table = noise.compare(
        [replace(case, kind=noise.CLEAN, percent=0), case],
        toy,
        ["yoco", "all runs"],
        epochs=1,
        **PLAIN,
    )
    figure = plots.by_damage(table, "precision", "damaged (%)", chance=True)
    assert (
        figure.axes[0].get_title() == "symmetric"
        and len(figure.axes[0].lines) == 3
        and figure.axes[0].get_xlabel() == "damaged (%)"
    )
    ax = plots.condensed_set(toy_set, 2)
    plots.cross_out(ax, toy_set, case.damaged, 2)
    assert len(ax.lines[0].get_xdata()) == case.damaged.view(3, 20)[:, :8].sum()
    with pytest.raises(ValueError, match=r"which must have shape \[60\]"):
        plots.cross_out(ax, toy_set, case.damaged[1:])


def test_the_parameters_say_which_damage_is_done():
    chosen = parameters.validated("06_noise", {})
    assert (
        chosen.scale == "smoke"
        and chosen.real_dataset == "digits"
        and chosen.real_damage() == [("clean", 0), ("symmetric", 40)]
    )
    large = parameters.validated("06_noise", {"dataset": "cifar10"})
    assert [percent for kind, percent in large.formed_damage() if kind == "class_dependent"] == [
        5,
        10,
        20,
        40,
    ]
    assert [kind for kind, _ in large.real_damage()] == [
        "clean",
        *corruption.KINDS,
    ] and large.formed_damage()[-1] == ("occlusion", 40)
    assert parameters.validated(
        "06_noise", {"dataset": "cifar10", "rates": "20,10"}
    ).formed_damage()[1:3] == [("symmetric", 10), ("symmetric", 20)]
    with pytest.raises(ValueError, match="trained_to must hold budgets of ipc_to"):
        parameters.validated("06_noise", {"ipc_to": [1], "trained_to": [2]})
    with pytest.raises(
        ValueError, match="real must name the folder of zoo:cifar10-idc-ipc10's images"
    ):
        parameters.validated("06_noise", {"dataset": "zoo:cifar10-idc-ipc10"}).real_dataset  # noqa: B018
    assert (
        parameters.validated(
            "06_noise", {"dataset": "zoo:cifar10-idc-ipc10", "real": "cifar10"}
        ).real_dataset
        == "cifar10"
    )


def test_the_study_goes_on_from_what_its_folder_holds(tmp_path, monkeypatch, capsys):
    values = {
        "epochs": 2,
        "width": 8,
        "precision": "float32",
        "ipc_to": "1",
        "methods": "yoco,aum",
        "rates": "20",
        "condensed_kinds": "blur",
        "outer_loops": 1,
        "inner_loops": 2,
        "run_dir": str(tmp_path),
    }
    chosen = parameters.validated("06_noise", values)
    from yoco import data

    real = data.load("digits")
    condensed = workflow.get_condensed(tmp_path, chosen.dataset, **chosen.condensation())
    cases, table = workflow.get_noise(tmp_path, condensed, real, chosen)
    assert [(case.place, case.kind, case.percent) for case in cases][-2:] == [
        ("real", "clean", 0),
        ("real", "blur", 20),
    ] and len(cases) == 5
    assert len(table) == 5 * 6 and table.accuracy.notna().all()
    blurred = cases[-1]
    start = condense.start_set(corruption.damage_data(real, "blur", 20)[0], **chosen.packing())
    which = corruption.damage_data(real, "blur", 20)[1]
    assert (
        torch.equal(blurred.damaged, which[torch.tensor(start.info["started_from"])])
        and 0 < blurred.damaged.float().mean() < 0.5
    )
    monkeypatch.setattr(recordings, "record_many", lambda *a, **k: pytest.fail("recorded again"))
    monkeypatch.setattr(condensation, "condense", lambda *a, **k: pytest.fail("condensed again"))
    capsys.readouterr()
    assert workflow.get_noise(tmp_path, condensed, real, chosen)[1].equals(table)
    # the zoo's took more steps
    assert [case.condensed is condensed for case in cases[:1] + cases[-2:]] == [True, False, False]
    written = pd.read_csv(tmp_path / "noise.csv")
    assert (
        written.accuracy.tolist() == pytest.approx(table.accuracy.tolist())
        and (tmp_path / "noise_detection.csv").exists()
    )
    without = parameters.validated("06_noise", {**values, "condensed_kinds": ""})
    cases, table = workflow.get_noise(tmp_path, condensed, real, without)
    assert {case.place for case in cases} == {"formed"} and len(table) == 3 * 6


def test_a_clean_set_of_the_same_settings_is_the_run_s_own(toy, tmp_path):
    chosen = parameters.validated(
        "06_noise",
        {
            "dataset": "folder:toy",
            "preset": "smoke",
            "width": 8,
            "ipc": 2,
            "outer_loops": 1,
            "inner_loops": 2,
        },
    )
    made = condense.condense(toy, progress=False, **chosen.packing())
    assert condensation.made_by(made, toy, chosen.packing()) and not condensation.made_by(
        made, make_data(20), chosen.packing()
    )
    further = replace(made, info={**made.info, "start": "0123456789ab"})
    assert not condensation.made_by(further, toy, chosen.packing())  # it began as another set
    for other in (
        {"inner_loops": 3},
        {"seed": 1},
        {"ipc": 1},
        {"method": "dream"},
        {"width": 16},
        {"factor": 1},
    ):
        assert not condensation.made_by(made, toy, {**chosen.packing(), **other}), other
