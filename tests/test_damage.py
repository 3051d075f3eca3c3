"""Files corrupted at random: each loads as it was written, or yoco refuses it with an error.

Nothing else may happen.
"""

import random
import time
import warnings

import numpy as np
import pytest
import torch

from yoco import CondensedSet, RankedSet, condense
from yoco.condense import mtt_experts
from yoco.dynamics import Dynamics
from yoco.experiments import results_file, study
from yoco.sets import published
from yoco.utils import tensor_files

DAMAGES = 130  # of each of the formats: more than 1,300 in all
# seconds of processor time, thousands of times what a load takes: memory or loops without end
SLOW = 60.0


def same(held, other):
    """Return whether two files hold the same, tensor by tensor."""
    return all(torch.equal(a, b) for a, b in zip(held, other, strict=True))


def condensed(path):
    found = CondensedSet.load(path)
    return [found.images, found.labels], (
        found.factor,
        found.classes,
        found.mean,
        found.std,
        found.method,
        found.info,
    )


def recorded(path):
    found = Dynamics.load(path)
    return [
        found.logits,
        found.kept,
        found.correct,
        found.aum,
        found.labels,
        found.final_logits,
        found.features,
    ], found.info


def ranked(path):
    found = RankedSet.open(path)
    return list(found.take(per_class=found.ranks)), (
        found.factor,
        found.classes,
        found.mean,
        found.std,
        found.method,
        found.info,
    )


def expert(path):
    mtt_experts._check.cache_clear()  # a clock tick may be longer than the time between two damages
    return [torch.stack(mtt_experts.Experts([path]).pair(0, epoch, 1)) for epoch in range(2)], None


def results(path):
    return [], results_file.read_results(path)


OURS = {
    "condensed.safetensors": condensed,
    "dynamics.safetensors": recorded,
    "ranked.safetensors": ranked,
    "expert-000.safetensors": expert,
    "checkpoint.safetensors": lambda path: (
        list(tensor_files.load_tensors(path, "checkpoint")[0].values()),
        tensor_files.load_tensors(path, "checkpoint")[1],
    ),
    "results.csv": results,
}
PUBLISHED = {
    "idc.pt": "idc",
    "dsa.pt": "dsa",
    "images_best.pt": "mtt",
    "kip.npz": "kip",
    "kip.pt": "kip",
}


@pytest.fixture(scope="module")
def written(tmp_path_factory, toy, toy_set, toy_dynamics):
    """One file of each format."""
    folder = tmp_path_factory.mktemp("written")
    exact = {"precision": "float32", "progress": False}
    toy_set.save(folder / "condensed.safetensors")
    toy_dynamics.save(folder / "dynamics.safetensors")
    toy_set.rank(toy_dynamics).save(folder / "ranked.safetensors")
    mtt_experts.train_experts(
        toy, folder, mtt_experts.ExpertSettings(epochs=2, width=4, batch_size=64), count=1, **exact
    )
    kip = {"preset": "smoke", "iterations": 2, "kernel": "fc", "real_batch": 12}
    condense.condense(
        toy, "kip", ipc=1, checkpoint=folder / "checkpoint.safetensors", **kip, **exact
    )
    study.run(
        toy_set,
        toy,
        [toy_dynamics],
        methods=["yoco", "random"],
        ipc_to=[1],
        epochs=1,
        width=4,
        results=folder / "results.csv",
        **exact,
    )
    images, labels = (
        torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)),
        torch.arange(3).repeat_interleave(2),
    )
    torch.save([images, labels], folder / "idc.pt")
    torch.save(
        {"data": [[images * 2 - 1, labels]], "accs_all_exps": {"ConvNet": [1.0]}}, folder / "dsa.pt"
    )
    torch.save(images * 2 - 1, folder / "images_best.pt")
    torch.save(labels, folder / "labels_best.pt")
    hot = torch.nn.functional.one_hot(labels, 3) - 1 / 3
    np.savez(folder / "kip.npz", images=images.permute(0, 2, 3, 1).numpy(), labels=hot.numpy())
    torch.save({"images": images.permute(0, 2, 3, 1), "labels": hot}, folder / "kip.pt")
    return folder


def damaged(whole: bytes, source: random.Random) -> bytes:
    """Return `whole` after one or two accidents; half of them are in the first kilobyte.

    The headers are there.
    """
    held = bytearray(whole)
    for _ in range(source.choice([1, 1, 1, 2])):
        end = min(len(held), 1000) if source.random() < 0.5 else len(held)
        at, length = source.randrange(max(1, end)), source.choice([1, 1, 2, 8, 64, 512])
        accident = source.choice(
            ["bit", "byte", "random", "zeros", "cut", "drop", "insert", "again", "digit"]
        )
        if accident == "bit":
            held[at] ^= 1 << source.randrange(8)
        elif accident == "byte":
            held[at] = source.randrange(256)
        elif accident == "random":
            held[at : at + length] = source.randbytes(len(held[at : at + length]))
        elif accident == "zeros":
            held[at : at + length] = bytes(len(held[at : at + length]))
        elif accident == "cut":
            del held[at:]
        elif accident == "drop":
            del held[at : at + length]
        elif accident == "insert":
            held[at:at] = source.randbytes(length)
        elif accident == "again":
            held[at:at] = held[at : at + length]
        # where JSON and CSV stay what they are
        elif digits := [i for i, byte in enumerate(held) if chr(byte).isdigit()]:
            held[source.choice(digits)] = ord(source.choice("0123456789"))
        if not held:
            break
    return bytes(held)


def outcomes(load, path, whole):
    """Return what loading each corrupted version of a file gave: an error's text, or content."""
    source = random.Random(path.name)
    for _ in range(DAMAGES):
        path.write_bytes(damaged(whole, source))
        began = time.process_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield load(path)
        except ValueError as error:
            assert path.name in str(error) and len(str(error)) > len(path.name) + 10
            yield None
        assert time.process_time() - began < SLOW


@pytest.mark.parametrize("name", OURS)
def test_a_damaged_file_of_ours_is_what_was_written_or_refused(written, tmp_path, name):
    path = tmp_path / name
    whole = (written / name).read_bytes()
    path.write_bytes(whole)
    tensors, values = OURS[name](path)
    refused = 0
    for found in outcomes(OURS[name], path, whole):
        refused += found is None
        assert (
            found is None
            or name == "results.csv"
            or (same(found[0], tensors) and found[1] == values)
        )
        # a row may be missing: it is trained again; none may differ
        if found is not None and name == "results.csv":
            assert all(values[fingerprint] == row for fingerprint, row in found[1].items())
    assert refused > DAMAGES / 3


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_damaged_published_file_is_a_valid_set_or_refused(written, tmp_path, name):
    path = tmp_path / name
    (tmp_path / "labels_best.pt").write_bytes((written / "labels_best.pt").read_bytes())
    statistics = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    load = lambda path: CondensedSet.from_published(path, PUBLISHED[name], **statistics)
    whole = (written / name).read_bytes()
    path.write_bytes(whole)
    assert load(path).ipc == 2
    refused = 0
    for found in outcomes(load, path, whole):
        refused += found is None
        assert found is None or (
            found.images.isfinite().all()
            and found.images.abs().max() <= published.MOST
            and len(found.form()[0]) > 0
        )
    assert refused > DAMAGES / 3


def test_checksums_catch_what_every_other_check_lets_pass(written, tmp_path):
    """One bit of one pixel: a valid set, but not the one that was written."""
    whole = bytearray((written / "condensed.safetensors").read_bytes())
    whole[-5] ^= 1
    (tmp_path / "x.safetensors").write_bytes(whole)
    with pytest.raises(
        ValueError,
        match="x.safetensors is corrupted: .* does not have the checksum that it was written with",
    ):
        CondensedSet.load(tmp_path / "x.safetensors")
