"""Digests of what artefacts are made from."""

import pytest
import torch

from yoco.utils import digests


def test_a_digest_is_of_values_shape_and_type(monkeypatch):
    values = torch.arange(60, dtype=torch.uint8).view(5, 3, 2, 2)
    seen = {digests.of_tensor(values)}
    for other in (values.view(5, 3, 4), values.float(), values.flip(0), values[:4]):
        seen.add(digests.of_tensor(other))
    assert len(seen) == 5 and all(len(digest) == 16 for digest in seen)
    assert digests.of_tensor(values.clone()) == digests.of_tensor(values)
    assert digests.of_tensor(values.permute(1, 0, 2, 3)) == digests.of_tensor(
        values.permute(1, 0, 2, 3).contiguous()
    )
    monkeypatch.setattr(digests, "BLOCK", 24)  # two images
    assert digests.of_tensor(values.clone()) not in seen
    changed = values.clone()
    changed[4, 2, 1, 1] = 0  # in the last block
    assert digests.of_tensor(changed) != digests.of_tensor(values.clone())


def test_it_is_kept_until_the_tensor_is_written_to(monkeypatch):
    values = torch.zeros(3, 2)
    first = digests.of_tensor(values)
    with monkeypatch.context() as patch:
        patch.setattr(digests, "of_block", lambda _: pytest.fail("read again"))
        assert digests.of_tensor(values) == first
    values[0, 0] = 1
    assert digests.of_tensor(values) != first
    assert digests.of_tensor(digests.keep(values, "known")) == "known"
    with torch.inference_mode():
        assert digests.of_tensor(torch.zeros(3, 2)) == first


def test_a_mismatch_names_what_changed_and_old_files_warn():
    own = {"pixels": "a", "labels": "b"}
    digests.check("x", own | {"more": "c"}, own)
    for stored, said in (
        ({"pixels": "a", "labels": "c"}, "x was made from other data, which differ in labels: "),
        ({}, "pixels, labels: choose another folder .--run-dir., or start from scratch .--fresh."),
        ([], "pixels, labels"),
    ):
        with pytest.raises(ValueError, match=said):
            digests.check("x", stored, own)
    with pytest.warns(UserWarning, match="x is from an earlier version of yoco"):
        digests.check("x", None, own)
