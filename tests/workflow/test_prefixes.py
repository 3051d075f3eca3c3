"""The nested set beside a run's own, and its prefixes beside YOCO's choices."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from yoco import data, prune, workflow, zoo
from yoco.experiments import study
from yoco.utils import digests
from yoco.workflow import parameters, prefixes, recordings


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def chosen(**values):
    # the zoo's dynamics have 20 epochs
    short = {"ipc_to": [1], "dynamics": 1, "prefix_epochs": 1, "dynamics_epochs": 20}
    return parameters.validated("04_pruning", {**short, **values})


def fingerprints(sets):
    return {kind: found.fingerprint for kind, (_, found) in sets.items()}


def test_the_sets_are_the_run_s_own_or_the_zoo_s(digits, tmp_path, capsys):
    flat, nested, idc = (zoo.load(f"digits-{name}-ipc10") for name in ("ncfm", "nested", "idc"))
    both = {"flat": flat.fingerprint, "nested": nested.fingerprint}
    beside = prefixes.get_sets(tmp_path / "idc", idc, digits, chosen())
    assert fingerprints(beside) == both and list(beside) == ["flat", "nested"]
    assert [folder.name for folder, _ in beside.values()] == ["ncfm", "nested"] and (
        "from the zoo: ncfm"
    ) in capsys.readouterr().out
    for own, kind in ((flat, "flat"), (nested, "nested")):
        found = prefixes.get_sets(tmp_path / kind, own, digits, chosen(method="ncfm"))
        assert fingerprints(found) == both and found[kind] == (tmp_path / kind, own)


def test_without_a_nested_set_there_is_nothing_to_compare(toy, toy_set, tmp_path):
    assert prefixes.get_sets(tmp_path, toy_set, toy, chosen()) == {} and not list(
        tmp_path.iterdir()
    )


def test_results_tell_yoco_s_choices_from_prefixes_and_are_kept(digits, tmp_path, monkeypatch):
    idc = zoo.load("digits-idc-ipc10")
    table = prefixes.get_results(tmp_path, idc, digits, chosen())
    assert (
        table["method"].tolist() == ["YOCO, flat", "YOCO, nested", "Prefix, nested"]
        and table["accuracy"].between(0, 100).all()
    )
    assert (
        pd.read_csv(tmp_path / "prefixes.csv").fingerprint.tolist() == table.fingerprint.tolist()
        and table.fingerprint.is_unique
    )
    monkeypatch.setattr(recordings, "record_many", lambda *a, **k: pytest.fail("recorded again"))
    monkeypatch.setattr(study, "accuracies", lambda *a, **k: pytest.fail("trained again"))
    assert prefixes.get_results(tmp_path, idc, digits, chosen()).equals(table)


def test_the_zoo_s_nested_set_is_ranked_as_it_is():
    nested = zoo.load("digits-nested-ipc10")
    assert (
        nested.method == "ncfm"
        and nested.info["nested"] == [1, 2, 3, 5, 7, 10]
        and nested.info["finished"]
    )
    images, labels = prune.prune(nested, None, "prefix", 2).subset(nested)
    ranked = nested.rank().take(ipc=2)
    assert torch.equal(ranked[1], labels) and (ranked[0] - images).abs().max() < 1e-6


def test_a_study_of_a_nested_set_has_a_row_for_its_prefixes(digits, tmp_path):
    few = chosen(method="ncfm", methods=["random"], also=[], epochs=1)
    for name, methods in (("nested", ["random", "prefix"]), ("ncfm", ["random"])):
        results = workflow.get_results(
            tmp_path / name, zoo.load(f"digits-{name}-ipc10"), digits, few
        )
        assert results["method"].tolist() == methods
        # neither method needs a recording
        assert not [*(tmp_path / name).glob("dynamics*")]


def test_a_nested_set_of_other_images_is_refused(digits, tmp_path):
    own, nested = zoo.load("digits-idc-ipc10"), zoo.load("digits-nested-ipc10")
    other = replace(digits, train_labels=digits.train_labels.roll(1))
    told = {**nested.info, digests.MADE_FROM: other.made_from}
    replace(nested, info=told).save(tmp_path / "nested/condensed.safetensors")
    with pytest.raises(ValueError, match="training labels"):
        prefixes.get_sets(tmp_path, own, digits, chosen())
