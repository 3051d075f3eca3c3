"""Condensing a given set further: every method starts from its images and names the set."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.condense.test_methods import SHORT, TINY
from tests.conftest import make_data
from yoco import condense
from yoco.training import resumable

METHODS = list(TINY)


@pytest.fixture(scope="module")
def given(toy):
    """A set that no method starts from by default."""
    made = condense.real_set(toy, 1, 1, seed=99)
    return replace(made, images=made.images * 0.5 + 0.25)


def made_from(start, method, toy, **options):
    return condense.condense(toy, method, 1, start=start, **{**SHORT, **TINY[method], **options})


@pytest.mark.parametrize("method", METHODS)
def test_every_method_starts_from_the_images_that_it_is_given(method, given, toy, monkeypatch):
    seen = []
    monkeypatch.setattr(
        condense.METHODS[method].stepper,
        "step",
        lambda self, number: seen.append(self.images.clone()) or 1.0,
    )
    made = made_from(given, method, toy)
    assert torch.equal(seen[0], given.images) and made.factor == given.factor == 1
    assert (
        made.info["start"] == given.fingerprint and "start" not in made_from(None, method, toy).info
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_run_from_a_set_resumes_to_the_same_bits(method, given, toy, tmp_path, monkeypatch):
    whole, path = made_from(given, method, toy), tmp_path / "checkpoint.safetensors"
    stepper = condense.METHODS[method].stepper
    step = stepper.step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resumable, "SAVE_EVERY", 0.0)
        patch.setattr(
            stepper,
            "step",
            lambda self, number: pytest.fail("killed") if number == 3 else step(self, number),
        )
        with pytest.raises(pytest.fail.Exception):
            made_from(given, method, toy, checkpoint=path)
    assert torch.equal(made_from(given, method, toy, checkpoint=path).images, whole.images)
    with pytest.raises(ValueError, match="checkpoint .* belongs to another run .*start: "):
        made_from(whole, method, toy, checkpoint=path)


@pytest.mark.parametrize(
    "change, match",
    [
        ({"ipc": 2}, "start does not fit: ipc must be 2, got 1"),
        ({"factor": 2}, "start does not fit: factor must be 2, got 1"),
        ({"data": make_data(size=8)}, "start does not fit toy: it has size 16, not 8"),
        ({"data": make_data(channels=1)}, "start does not fit toy: it has channels 3, not 1"),
        (
            {"data": replace(make_data(), classes=("a", "b", "c"))},
            "start does not fit toy: it has class 0 'dark', not 'a'; class 1",
        ),
    ],
)
def test_a_set_that_does_not_fit_is_named(given, toy, change, match):
    with pytest.raises(ValueError, match=match):
        condense.condense(
            **{"data": toy, "method": "idc", "ipc": 1, "start": given, **SHORT, **change}
        )


def test_a_start_that_is_no_set_is_refused(toy):
    for factor in (None, 1):
        with pytest.raises(
            TypeError, match="start must be of type CondensedSet, got 'start.safetensors'"
        ):
            condense.condense(toy, "idc", 1, factor, start="start.safetensors", **SHORT)


def test_a_start_of_bad_numbers_names_them(toy):
    for bad, told in (((-1, 2, 0), "ipc must be at least 1"), ((1, 2, -1), "seed must be between")):
        with pytest.raises(ValueError, match=told):
            condense.real_set(toy, *bad)
    assert condense.real_set(toy, 1, 2, np.int64(3)).info["seed"] == 3
