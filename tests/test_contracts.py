"""What is declared once is available everywhere.

A score, a pruning rule or a condensation method that is registered here goes through pruning,
studies, figures and the command line.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tools import generate
from yoco import cli, condense, plots, prune, scores
from yoco.condense import presets
from yoco.dynamics import lbpe_settings, record
from yoco.experiments import ablations, noise, study, tables
from yoco.workflow import parameters

PLAIN = {
    "epochs": 2,
    "width": 8,
    "precision": "float32",
    "jobs": 1,
    "progress": False,
    "device": "cpu",
}


def confidence(condensed, dynamics, *, last: int = 3):
    """How sure the network was of an image's label in the `last` kept epochs."""
    return dynamics.label_probability(range(len(dynamics.labels)))[-last:].mean(0)


@pytest.fixture
def toy_score():
    """A score of ours, registered during a test."""
    yield scores.register(
        scores.Score("confidence", "Conf.", "confidence, 0..1", "low", "early", confidence)
    )
    del scores.SCORES["confidence"]


def test_a_registered_score_is_in_table_pruning_and_study(toy_score, toy, toy_set, toy_dynamics):
    values = confidence(toy_set, toy_dynamics)
    assert prune.score_table(toy_set, toy_dynamics)["confidence"].tolist() == values.tolist()
    kept = prune.prune(toy_set, toy_dynamics, "confidence", 1)
    assert not kept.balanced and kept.keep == "hard"
    assert kept.indices.tolist() == values.argsort(stable=True)[:12].tolist(), "low is hard"
    short = prune.prune(toy_set, toy_dynamics, "confidence", 1, last=1).indices
    assert (
        short.tolist()
        == confidence(toy_set, toy_dynamics, last=1).argsort(stable=True)[:12].tolist()
    )
    assert toy_set.rank(toy_dynamics, "confidence").info["ranked_by"] == "confidence"
    table = study.run(
        toy_set, toy, [toy_dynamics], methods=["random", "confidence"], ipc_to=[1], **PLAIN
    )
    assert table.method.tolist() == ["random", "confidence"] and table.accuracy.notna().all()
    assert "confidence" in {
        cell.selection.method
        for cell in study.grid(toy_set, [toy_dynamics], ablations.rules(), ipc_to=[1])
    }
    assert {"confidence"} < {
        selection.method for selection in study.selections(toy_set, toy_dynamics, [1])
    }


def test_a_registered_score_is_in_the_figures(toy_score, toy_set, toy_dynamics):
    table = prune.score_table(toy_set, toy_dynamics)
    names = prune.score_names(table)
    assert plots.two_scores(toy_set, table, "lbpe", "confidence").get_ylabel() == (
        "confidence, 0..1 (low is hard)"
    )
    assert "−confidence" in [
        text.get_text() for text in plots.rank_correlations(table, names).get_xticklabels()
    ]
    assert plots.score_distributions(table, names).axes[2 * len(names) - 1].get_xlabel() == (
        "confidence, 0..1\n(low is hard)"
    )
    panels = plots.kept_by_method(toy_set, study.selections(toy_set, toy_dynamics, [1])).axes
    assert (
        "Conf." in " ".join(ax.get_title() for ax in panels)
        and tables.title_of("confidence") == "Conf."
    )
    agreement = ablations.agreement(toy_set, [toy_dynamics, toy_dynamics])
    assert agreement.set_index("score").loc["confidence", "spearman"] == pytest.approx(1)
    damaged = toy_dynamics.label_probability(range(60))[-3:].mean(0).argsort().argsort() < 6
    found = noise.detection(
        noise.Case("formed", "symmetric", 10, toy_set, damaged, [toy_dynamics])
    ).set_index("score")
    assert found.loc["confidence", "auc"] == 1 and "confidence" in noise.every_rule()


def first_cells(condensed, dynamics, wanted, *, skip: int = 0):
    """The first formed images of every class, after `skip` of them."""
    of_class = [
        (condensed.formed_labels == label).nonzero().flatten()
        for label in condensed.formed_labels.unique()
    ]
    return torch.cat([members[skip : skip + wanted.per_class] for members in of_class])


@pytest.fixture
def toy_method():
    """A rule of ours that is not a score, registered during a test."""
    yield prune.register(
        prune.Method("first", "First", "easy", True, "none", first_cells, nests=True)
    )
    del prune.METHODS.registered["first"]


def test_a_registered_rule_is_a_method_with_its_own_options(toy_method, toy, toy_set, toy_dynamics):
    assert (
        list(prune.METHODS)[-1] == "first"
        and toy_method.options == ("skip",)
        and tables.title_of("first") == "First"
    )
    assert prune.prune(toy_set, None, "first", 1, skip=1).indices.view(3, 4)[:, 0].tolist() == [
        1,
        21,
        41,
    ]
    table = study.run(toy_set, toy, [None], methods=["first"], ipc_to=[1], **PLAIN)
    assert (
        table.method.tolist() == ["first"] and table.balanced.all() and table.accuracy.notna().all()
    )
    assert parameters.validated("04_pruning", {"methods": "first,yoco"}).methods == [
        "first",
        "yoco",
    ]
    with pytest.raises(ValueError, match="method='first' is registered already"):
        prune.register(toy_method)
    with pytest.raises(ValueError, match="needs='some' is unknown"):
        prune.Method("x", "X", "easy", True, "some", first_cells)


def test_a_score_says_what_is_wrong_with_it_and_with_its_options(toy_score, toy_set, toy_dynamics):
    with pytest.raises(
        ValueError, match="score='confidence' is registered already; registered: lbpe, "
    ):
        scores.register(toy_score)
    with pytest.raises(ValueError, match="direction='up' is unknown.*allowed: high, low"):
        scores.Score("x", "X", "x", "up", "early", confidence)
    with pytest.raises(
        TypeError, match="option 'first' is unknown to score='confidence'; allowed: last"
    ):
        toy_score.read(toy_set, toy_dynamics, first=1)
    with pytest.raises(ValueError, match="score='confidence' needs dynamics, got None"):
        toy_score.read(toy_set, None)
    assert torch.equal(
        toy_score.hardness(toy_set, toy_dynamics), -toy_score.read(toy_set, toy_dynamics)
    )


def test_notebooks_and_commands_offer_a_registered_score(toy_score, capsys, tmp_path, monkeypatch):
    assert (
        parameters.validated("04_pruning", {}).methods[-1]
        == "confidence"
        == parameters.validated("06_noise", {}).methods[-1]
    )
    told = parameters.described()["05_ablations"]
    assert any("prefix, confidence" in str(row) for row in told)
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        cli.main(["study", "--help"])
    assert (
        "el2n, ccs, yoco, yoco+, prefix, confidence [names; default: all]"
        in capsys.readouterr().out
    )
    assert cli.main(["study", "--methods", "confidense"]) == 2
    assert "did you mean 'confidence'?" in capsys.readouterr().err
    monkeypatch.setenv("YOCO_RUNS", str(tmp_path))
    short = [
        "--ipc",
        "1",
        "--outer-loops",
        "1",
        "--inner-loops",
        "1",
        "--width",
        "8",
        "--epochs",
        "1",
        "--dynamics",
        "1",
    ]
    assert (
        cli.main(["study", *short, "--ipc-to", "1", "--methods", "confidence", "--also", ""]) == 0
    )
    assert "confidence" in capsys.readouterr().out


PLUGIN = """
from tests.own import plain, tones
from tests.test_contracts import confidence
from yoco import scores

scores.register(scores.Score("plugged", "Plug", "confidence", "low", "early", confidence))
"""


@pytest.mark.parametrize("named", [{"dataset": "plugin:tones"}, {"model": "plugin:plain"}])
def test_the_module_that_an_option_names_may_register(named, tmp_path, monkeypatch):
    (tmp_path / "plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        chosen = parameters.validated("04_pruning", {"methods": "plugged", **named})
        assert chosen.methods == ["plugged"]
    finally:
        scores.SCORES.pop("plugged", None)
        sys.modules.pop("plugin", None)


@dataclass(frozen=True)
class Paint(condense.Settings):
    """Settings of a condensation method of ours."""

    iterations: int = 4
    rate: float = 0.5

    @property
    def steps(self) -> int:
        return self.iterations


class Painting(condense.Condensing):
    """Every step moves the images towards a random brightness."""

    def step(self, number: int) -> float:
        level = torch.rand(1, generator=self.source)
        loss = (self.images - level).square().mean().item()
        self.images = self.images.lerp(level.expand_as(self.images), self.settings.rate)
        return loss


@pytest.fixture
def toy_condenser():
    """A condensation method of ours, registered during a test."""
    settings_for = lambda preset, size, ipc, overrides: presets.overridden(Paint(), overrides)
    options = {"loss": "distance of levels", "unending": {"iterations": 50}, "lbpe": (2, 3)}
    yield condense.register(condense.Condenser("paint", settings_for, Painting, **options))
    del condense.METHODS["paint"]


def test_a_registered_condenser_condenses_and_is_gone_on_with(toy_condenser, toy, tmp_path):
    common = {"method": "paint", "ipc": 2, "preset": "smoke", "progress": False, "device": "cpu"}
    whole, checkpoint = condense.condense(toy, **common), tmp_path / "checkpoint.safetensors"
    assert (
        whole.factor == 1 == condense.factor_of("paint", 32)
        and whole.method == "paint"
        and whole.info["finished"]
    )
    assert whole.info["settings"] == {"iterations": 4, "rate": 0.5} and not torch.equal(
        whole.images, condense.start_set(toy, "paint", 2).images
    )
    stopped = condense.condense(toy, **common, checkpoint=checkpoint, time_budget=0)
    assert stopped.info["steps"] < 4 and torch.equal(
        condense.condense(toy, **common, checkpoint=checkpoint).images, whole.images
    )
    again = condense.condense(toy, **common, start=whole, rate=0)
    assert torch.equal(again.images, whole.images) and again.info["start"] == whole.fingerprint
    refused = {
        "expert_folder=": {"expert_folder": tmp_path},
        "nested=True is for ncfm": {"nested": True},
        "setting='rat'": {"rat": 1},
    }
    for told, wrong in refused.items():
        with pytest.raises(ValueError, match=told):
            condense.condense(toy, **common, **wrong)
    with pytest.raises(ValueError, match="method='paint' is registered already; registered: idc, "):
        condense.register(toy_condenser)


def test_a_registered_condenser_is_in_studies_and_figures(toy_condenser, toy):
    short = {"epochs": 1, "width": 8, "precision": "float32", "progress": False, "device": "cpu"}
    table, made = study.condensations(toy, ["paint"], 60.0, ipc=1, **short)
    assert (
        set(table.subset) == {"start", "condensed"}
        and set(table.steps) == {50}
        and table.accuracy.notna().all()
    )
    assert plots.loss_curve(made["paint"]).get_ylabel() == "distance of levels"
    assert "paint" in [text.get_text() for text in plots.condensations(table).get_xticklabels()]
    assert lbpe_settings(made["paint"]) == (2, 3)
    recorded = record(made["paint"], seed=0, **short)
    table = study.run(
        made["paint"], toy, [recorded], methods=["random"], ipc_to=[1], jobs=1, **short
    )
    assert table.condensation.tolist() == ["paint"] and table.accuracy.notna().all()


def test_notebooks_and_commands_offer_a_registered_condenser(
    toy_condenser, capsys, tmp_path, monkeypatch
):
    assert parameters.validated("01_condensation", {}).compare[-1] == "paint"
    assert "ncfm, paint" in generate.cell("01_condensation")
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        cli.main(["condense", "--help"])
    assert "kip, ncfm, paint [name; default: ncfm; idc in smoke]" in capsys.readouterr().out
    assert cli.main(["condense", "--method", "pant"]) == 2
    assert "did you mean 'paint'?" in capsys.readouterr().err
    monkeypatch.setenv("YOCO_RUNS", str(tmp_path))
    assert cli.main(["condense", "--method", "paint", "--ipc", "1", "--iterations", "3"]) == 0
    assert (
        "made condensed.safetensors: paint of digits, 1 image per class, factor 1"
        in capsys.readouterr().out
    )


def test_the_page_about_adding_your_own_runs_as_it_stands(tmp_path, monkeypatch):
    page = (Path(__file__).parent.parent / "docs/extend.md").read_text()
    names: dict = {}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    try:
        for code in re.findall(r"```python\n(.*?)```", page, re.S):
            if code.startswith("# mine.py"):
                (tmp_path / "mine.py").write_text(code)
            exec(code, names)
        assert (
            names["mine"].info["settings"]["model"]
            == "mine:Small"
            == names["recorded"].info["model"]
        )
        assert (
            names["data"].name == "mine:stripes"
            and names["blended"].method == "blend"
            and 0 <= names["accuracy"] <= 100
        )
        assert (
            names["kept"].method == "every-other"
            and len(names["kept"].indices) == 40
            and "confidence" in names["table"].columns
        )
    finally:
        scores.SCORES.pop("confidence", None)
        prune.METHODS.registered.pop("every-other", None)
        condense.METHODS.pop("blend", None)
        sys.modules.pop("mine", None)


def test_settings_must_say_their_steps():
    with pytest.raises(TypeError, match="abstract.*steps"):
        type("Stepless", (condense.Settings,), {})()
