"""One check wherever a set meets real images."""

from dataclasses import replace

import pytest

from tests.conftest import make_data
from yoco import condense
from yoco.experiments import by_bytes, condensations, study
from yoco.sets.fits import check_fits


def test_what_differs_is_named_in_both(toy, toy_set):
    check_fits(toy_set, toy)
    check_fits(replace(toy_set, classes=("0", "1", "2")), toy)  # of a file without names
    for data, said in (
        (make_data(size=8), "size 16, not 8"),
        (make_data(channels=1), "channels 3, not 1"),
        (replace(toy, classes=("a", *toy.classes[1:])), "class 0 'dark', not 'a'"),
        (
            replace(toy, classes=toy.classes[::-1]),
            "class 0 'dark', not 'bright'; class 2 'bright', not 'dark'",
        ),
    ):
        with pytest.raises(ValueError, match=f"the set does not fit toy: it has {said}"):
            check_fits(toy_set, data, "the set")
    with pytest.raises(ValueError, match="it has class 0 '0', not 'dark'"):  # a name like others
        check_fits(replace(toy_set, classes=("0", *toy.classes[1:])), toy)


def test_it_is_made_before_any_work(toy, toy_set, toy_dynamics, tmp_path, monkeypatch):
    for module, name in ((study, "accuracies"), (by_bytes, "evaluate_many")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("training began"))
    other = replace(toy, classes=toy.classes[::-1])
    calls = (
        lambda: study.run(toy_set, other, [None], methods=["random"], ipc_to=[1], epochs=1),
        lambda: by_bytes.by_bytes(toy_set, other, toy_dynamics, tmp_path, epochs=1),
        lambda: condensations.condensations(
            other, ["idc"], 1.0, ready={"idc": toy_set}, epochs=1, progress=False
        ),
        lambda: condense.condense(other, "idc", 5, 2, start=toy_set, preset="smoke"),
    )
    for call in calls:
        with pytest.raises(
            ValueError, match="does not fit toy: it has class 0 'dark', not 'bright'"
        ):
            call()
