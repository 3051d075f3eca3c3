from dataclasses import replace

import pytest
import torch

from yoco import dynamics, scores
from yoco.dynamics import Dynamics, recording
from yoco.dynamics.dynamics import top_epochs
from yoco.dynamics.recording import Recorder
from yoco.training.protocol import Protocol
from yoco.utils import device, tensor_files


def run_of(epochs=60, count=9, classes=3, seed=0):
    source = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    rise = torch.linspace(0, 3, epochs).view(-1, 1, 1) * torch.nn.functional.one_hot(
        labels, classes
    )
    return torch.randn(epochs, count, classes, generator=source) + rise, labels


def recorded(logits, labels, **settings):
    recorder = Recorder(
        labels, logits.shape[2], **{"top_k": 5, "windows": [20, 40], "early": 10, **settings}
    )
    most = 0
    for epoch in logits:
        recorder.add(epoch)
        most = max(most, len(recorder.held))
    features = torch.randn(len(labels), 4)
    return Dynamics(
        recorder.logits(),
        recorder.kept,
        torch.stack(recorder.correct),
        recorder.aum(),
        labels,
        logits[-1],
        features,
        recorder.margins(),
    ), most


def test_running_sums_equal_the_scores_of_all_logits():
    logits, labels = run_of()
    kept, _ = recorded(logits, labels)
    assert torch.allclose(kept.aum, scores.aum(logits, labels), atol=1e-6)
    correct = logits.argmax(-1) == labels
    assert torch.equal(kept.correct, correct) and torch.equal(
        kept.forgetting, scores.forgetting(correct)
    )
    assert torch.allclose(kept.accuracy, correct.float().mean(1))


@pytest.mark.parametrize("within", [1, 20, 40, 60, 100])
def test_early_aum_is_that_of_the_first_epochs(within):
    logits, labels = run_of()
    kept, _ = recorded(logits, labels)
    assert torch.allclose(kept.early_aum(within), scores.aum(logits[:within], labels), atol=1e-6)


def test_early_aum_of_epochs_that_were_not_kept(tmp_path):
    kept, _ = recorded(*run_of())
    with pytest.raises(ValueError, match="within=41 exceeds the 40 epochs whose margins were kept"):
        kept.early_aum(41)
    old = Dynamics.load(replace(kept, margins=None).save(tmp_path / "old.safetensors"))
    assert torch.equal(old.early_aum(40), kept.aum)


def test_a_checkpoint_without_margins_is_still_resumed():
    logits, labels = run_of()
    whole, half = (Recorder(labels, 3, top_k=5, windows=[20, 40], early=10) for _ in range(2))
    for recorder, until in ((whole, 60), (half, 30)):
        for epoch in logits[:until]:
            recorder.add(epoch)
    for lacking in (set(), {"early_margins"}):
        resumed = Recorder(labels, 3, top_k=5, windows=[20, 40], early=10)
        resumed.restore(
            {name: t.clone() for name, t in half.state().items() if name not in lacking}
        )
        for epoch in logits[30:]:
            resumed.add(epoch)
        assert torch.equal(resumed.aum(), whole.aum())
        assert resumed.margins() is None if lacking else resumed.margins().equal(whole.margins())


@pytest.mark.parametrize("top_k, within", [(5, 20), (5, 40), (1, 40), (3, 20)])
def test_kept_epochs_serve_every_score_as_all_epochs_would(top_k, within):
    logits, labels = run_of(seed=top_k + within)
    kept, most = recorded(logits, labels)
    assert most <= 10 + 5 * 2 + 1  # early + top_k × windows, and the one just added
    top = kept.top_logits(top_k, within)
    assert torch.equal(
        scores.lbpe(top, labels, top_k=top_k, within=within),
        scores.lbpe(logits, labels, top_k=top_k, within=within),
    )
    assert torch.equal(scores.el2n(kept.early_logits(), labels), scores.el2n(logits, labels))


def test_the_work_of_an_epoch_does_not_grow_with_those_before(monkeypatch):
    seen, best = [], recording.top_epochs
    monkeypatch.setattr(
        recording,
        "top_epochs",
        lambda accuracy, *rest: seen.append(len(accuracy)) or best(accuracy, *rest),
    )
    recorded(*run_of(epochs=200), windows=[150, 200])
    assert len(seen) == 2 * 200 and max(seen) <= 10 + 5 * 2 + 1


def test_what_was_not_kept_is_an_error_that_says_so():
    kept, _ = recorded(*run_of())
    with pytest.raises(
        ValueError, match="logits of the best 9 of the first 60 epochs were not kept; record again"
    ):
        kept.top_logits(9, 60)
    with pytest.raises(ValueError, match="the first 30 epochs"):
        kept.early_logits(30)


def test_top_epochs_ties_go_to_the_earlier():
    assert top_epochs(torch.tensor([0.5, 0.9, 0.9, 0.9, 0.1]), 2, 5).tolist() == [1, 2]
    assert top_epochs(torch.tensor([0.5, 0.9, 0.9, 1.0]), 2, 3).tolist() == [1, 2]
    assert top_epochs(torch.tensor([0.5]), 10, 100).tolist() == [0]


def test_record_gives_all_that_the_scores_need(toy_set, toy_dynamics):
    d = toy_dynamics
    assert d.correct.shape == (12, 60) and d.logits.shape == (len(d.kept), 60, 3) and d.complete
    assert d.final_logits.shape == (60, 3) and d.features.shape == (60, 8 * 2 * 2)
    assert torch.equal(d.labels, toy_set.formed_labels)
    assert d.accuracy[-3:].mean() > d.accuracy[0]  # it learned something


def test_label_probability_is_the_softmax_at_the_label(toy_dynamics):
    p = toy_dynamics.label_probability([0, 59])
    assert p.shape == (len(toy_dynamics.kept), 2)
    assert p[3, 1].item() == pytest.approx(
        toy_dynamics.logits[3, 59].softmax(0)[toy_dynamics.labels[59]].item()
    )


def test_until_stops_the_same_run_early(toy_set, toy_dynamics):
    early = dynamics.record(
        toy_set, epochs=12, seed=0, until=5, width=8, precision="float32", progress=False
    )
    assert len(early.correct) == 5 and not early.complete
    assert torch.equal(early.correct, toy_dynamics.correct[:5]) and torch.equal(
        early.early_logits(5), toy_dynamics.early_logits(5)
    )


@pytest.mark.parametrize("compiles", [False, True])
def test_a_recording_that_stopped_early_can_be_continued(
    toy_set, toy_dynamics, tmp_path, monkeypatch, compiles
):
    if compiles:  # the whole run pays for compiling, the first epochs do not
        monkeypatch.setattr(
            Protocol, "pays_to_compile", lambda _, where, images, size: images > 400
        )
        monkeypatch.setattr(device, "compiled_once", lambda function: function)
    path = tmp_path / "unfinished.safetensors"
    how = {"epochs": 12, "seed": 0, "width": 8, "precision": "float32", "progress": False}
    dynamics.record(toy_set, until=5, checkpoint=path, **how)
    whole = dynamics.record(toy_set, checkpoint=path, **how)
    for name in ("logits", "kept", "correct", "aum", "final_logits", "features"):
        # a compiled step has another memory layout, which rounds differently
        assert compiles or torch.equal(getattr(whole, name), getattr(toy_dynamics, name)), name
    assert len(whole.correct) == 12 and whole.info == {**toy_dynamics.info, "compiled": compiles}
    with pytest.raises(ValueError, match="unfinished.* has 12 steps already, more than 5"):
        dynamics.record(toy_set, until=5, checkpoint=path, **how)


def test_same_seed_same_run_and_clean_differs_from_augmented(toy_set, toy_dynamics):
    torch.rand(3)
    options = {"epochs": 12, "seed": 0, "width": 8, "precision": "float32", "progress": False}
    again, clean = (
        dynamics.record(toy_set, **options),
        dynamics.record(toy_set, record_on="clean", early=12, **options),
    )
    other = dynamics.record(toy_set, **{**options, "seed": 1})
    assert not torch.equal(other.correct, toy_dynamics.correct)
    assert torch.equal(again.logits, toy_dynamics.logits) and torch.equal(
        again.features, toy_dynamics.features
    )
    assert torch.equal(clean.final_logits, toy_dynamics.final_logits)  # the same training
    # what was recorded last is the trained network's
    assert torch.equal(clean.early_logits(12)[-1], clean.final_logits)
    assert not torch.equal(clean.correct, toy_dynamics.correct)


def test_save_and_load(toy_dynamics, tmp_path):
    loaded = Dynamics.load(toy_dynamics.save(tmp_path / "d.safetensors"))
    for name in ("logits", "kept", "correct", "aum", "labels", "final_logits", "features"):
        assert torch.equal(getattr(loaded, name), getattr(toy_dynamics, name)), name
    assert loaded.info == toy_dynamics.info
    tensors, info = tensor_files.load_tensors(tmp_path / "d.safetensors", "dynamics")
    assert list(tensors["correct"].shape) == [12, 8]  # 60 images, 8 a byte
    tensor_files.save_tensors(
        tmp_path / "short.safetensors",
        "dynamics",
        {**tensors, "correct": tensors["correct"][:, :7].contiguous()},
        info,
    )
    with pytest.raises(
        ValueError,
        match=r"short.safetensors holds no valid dynamics: correct must be uint8 \[E, " r"8\]",
    ):
        Dynamics.load(tmp_path / "short.safetensors")
    half = Dynamics.load(toy_dynamics.save(tmp_path / "h.safetensors", torch.float16))
    assert half.logits.dtype == torch.float32 and torch.allclose(
        half.logits, toy_dynamics.logits, atol=0.02
    )
    with pytest.raises(ValueError, match="not a yoco condensed file"):
        from yoco import CondensedSet

        CondensedSet.load(tmp_path / "d.safetensors")


def test_paper_settings_by_what_the_set_is(toy_set):
    from dataclasses import replace

    assert dynamics.lbpe_settings(toy_set) == (10, 100)
    single = replace(toy_set, factor=1, method="mtt")
    assert dynamics.lbpe_settings(single) == (3, 10)
    # the published code's, on CIFAR-10
    assert dynamics.lbpe_settings(replace(toy_set, method="dream")) == (10, 200)
    assert dynamics.lbpe_settings(replace(toy_set, factor=1, method="dream")) == (10, 100)
    for method, window in (("dsa", 100), ("kip", 50), ("mtt", 10)):
        assert dynamics.lbpe_settings(replace(toy_set, factor=1, method=method)) == (3, window)
    names, one_each = tuple(map(str, range(100))), torch.arange(100)
    hundred = replace(toy_set, images=torch.rand(100, 3, 16, 16), labels=one_each, classes=names)
    large = replace(toy_set, images=torch.zeros(len(toy_set.images), 3, 64, 64))
    assert dynamics.lbpe_settings(hundred) == dynamics.lbpe_settings(large) == (10, 200)


@pytest.mark.parametrize(
    "arguments, error, match",
    [
        ({"epochs": 0}, ValueError, "epochs must be at least 1"),
        ({"record_on": "both"}, ValueError, "record_on='both' is unknown.*augmented, clean"),
        ({"until": 13}, ValueError, "until must be between 1 and 12, got 13"),
        ({"model": "vgg"}, ValueError, "model='vgg' is unknown"),
        ({"top_k": 0}, ValueError, "top_k must be at least 1"),
        ({"seed": "0"}, TypeError, "seed must be a whole number"),
    ],
)
def test_bad_input(toy_set, arguments, error, match):
    with pytest.raises(error, match=match):
        dynamics.record(
            toy_set, **{"epochs": 12, "seed": 0, "width": 8, "progress": False, **arguments}
        )


def test_memory_stays_bounded_at_scale():
    """What is held after many epochs, with 100 classes.

    2,000 images stand for 20,000, with a tenth of the memory.
    """
    labels = torch.arange(2000) % 100
    recorder = Recorder(labels, 100, top_k=10, windows=[200], early=10)
    for _ in range(300):
        recorder.add(torch.randn(2000, 100))
    held = sum(t.numel() * t.element_size() for t in recorder.held.values()) + sum(
        t.numel() for t in recorder.correct
    )
    assert len(recorder.held) <= 20 and held < 20 * 2000 * 100 * 4 + 300 * 2000 + 1
