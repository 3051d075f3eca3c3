"""Runs that train at once end as each would have alone, with the same draws."""

import copy
from unittest import mock

import pytest
import torch

from yoco import dynamics, evaluate
from yoco.data import spaces
from yoco.dynamics.recording import Recorder
from yoco.training import resumable, stacked, trials
from yoco.training.network import Protocol, Run
from yoco.training.stacked import Stacked
from yoco.utils import seeds

CPU = torch.device("cpu")
WIDE = {"width": 8}


def runs_of(protocol, *, soft=False, seeds_of=(3, 4, 5)):
    source = seeds.generator(9)
    labels = torch.arange(11) % 3
    targets = torch.rand(11, 3, generator=source).softmax(1) if soft else labels
    images = [torch.randn(11, 3, 16, 16, generator=source) for _ in seeds_of]
    return [Run(own, targets, 3, protocol, seed) for own, seed in zip(images, seeds_of)]


def weights(run):
    return torch.cat([p.detach().flatten() for p in run.network.parameters()])


def agree(ours, theirs, precision):
    if precision == "bfloat16":
        assert torch.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.99
    else:
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item())


@pytest.mark.parametrize(
    "precision, options",
    [
        ("float32", WIDE),
        # few epochs: with so few pixels, a ReLU soon switches by rounding
        ("float32", {"model": "resnet10ap-w4", "last_batch": "small", "epochs": 2}),
        ("float32", {**WIDE, "soft": True}),
        ("bfloat16", WIDE),
    ],
)
def test_weights_and_logits_are_those_of_training_in_turn(precision, options):
    """Over the drops of the learning rate, with batches of different sizes."""
    options = {"epochs": 6, **options}
    soft = options.pop("soft", False)
    protocol = Protocol(batch_size=4, precision=precision, compiled=False, **options)
    alone, together = (runs_of(protocol, soft=soft) for _ in range(2))
    start = [weights(run).clone() for run in alone]
    stack, seen, expected = Stacked(together), [], [[] for _ in alone]
    for _ in range(protocol.epochs):
        stack.epoch(lambda index, logits: seen.append((index, logits)))
        for run, own in zip(alone, expected):
            run.epoch(lambda index, logits, own=own: own.append((index, logits)))
    for number, (ours, theirs) in enumerate(zip(together, alone)):
        agree(weights(ours) - start[number], weights(theirs) - start[number], precision)
        assert ours.epochs == theirs.epochs == protocol.epochs
        assert torch.equal(ours.source.get_state(), theirs.source.get_state())
        for (index, logits), (own_index, own_logits) in zip(seen, expected[number]):
            assert torch.equal(index[number], own_index)
            agree(logits[number], own_logits, precision)


def test_a_run_of_several_can_be_stored_and_resumed_alone():
    protocol = Protocol(epochs=4, batch_size=4, precision="float32", compiled=False, **WIDE)
    whole, together = runs_of(protocol)[1], runs_of(protocol)
    stack = Stacked(together)
    for _ in range(2):
        stack.epoch()
    state = copy.deepcopy(together[1].state())
    (rest,) = runs_of(protocol, seeds_of=(4,))
    rest.images = whole.images
    rest.restore(state)
    for _ in range(2):
        rest.epoch()
        stack.epoch()
    for _ in range(4):
        whole.epoch()
    agree(weights(rest), weights(whole), "float32")
    agree(weights(together[1]), weights(whole), "float32")
    together[0].restore(state)
    stack.epoch()
    assert not torch.equal(weights(together[0]), weights(rest)), "restoring changes what is trained"


def test_the_run_that_diverged_is_named():
    stack = Stacked(runs_of(Protocol(epochs=2, precision="float32", compiled=False, **WIDE)))
    stack.runs[1].images.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="after epoch 1 .seed 4,"):
        stack.epoch()


def test_only_a_gpu_trains_as_many_runs_at_once_as_fit(monkeypatch):
    gpu, shape = torch.device("cuda"), torch.Size([10, 3, 32, 32])
    few, short = Protocol(epochs=5), Protocol(epochs=4)
    kinds = [(few, shape, None), (short, shape, None), (few, shape, None), (few, shape[1:], None)]
    assert stacked.grouped(kinds, CPU) == [[0], [1], [2], [3]]
    assert stacked.grouped(kinds, gpu) == [[0, 2], [1], [3]]
    monkeypatch.setattr(stacked, "TOGETHER", 2 * 10 * 32**2)
    assert stacked.grouped([kinds[0]] * 5, gpu) == [[0, 1], [2, 3], [4]]
    assert stacked.grouped([kinds[0]] * 5, gpu, jobs=4) == [[0, 1], [2], [3], [4]]
    assert stacked.grouped([kinds[0]] * 2, gpu, jobs=8) == [[0], [1]]
    for model in ("densenet", "resnet10", "torchvision:resnet18"):
        assert stacked.grouped([(Protocol(model=model), shape, None)] * 2, gpu) == [[0], [1]]
    assert stacked.grouped([(Protocol(compiled=True), shape, None)] * 2, gpu) == [[0], [1]]


def test_an_evaluation_of_several_gives_the_accuracies_of_each(toy, toy_set):
    images, labels = toy_set.form()
    protocol = Protocol(epochs=3, precision="float32", compiled=False, **WIDE)
    subsets = [(images[:12], labels[:12], 0), (images[4:16], labels[4:16], 1)]
    how = ({None: spaces.TestSet.of(toy)}, None, protocol, CPU)
    tests, *rest = how
    several = trials.train_and_test(tests, subsets, *rest)
    alone = [trials.train_and_test(tests, [subset], *rest)[0] for subset in subsets]
    assert several == pytest.approx(alone)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Runs are grouped as on a GPU, and train here."""
    real = stacked.grouped
    monkeypatch.setattr(
        stacked, "grouped", lambda kinds, _, jobs: real(kinds, torch.device("cuda"), jobs)
    )
    with mock.patch.object(Stacked, "epoch", autospec=True, side_effect=Stacked.epoch) as epoch:
        yield epoch


def test_a_study_trains_seeds_at_once_if_the_device_can(toy, toy_set, as_on_a_gpu):
    images, labels = toy_set.form()
    how = {"epochs": 3, "precision": "float32", "device": "cpu", **WIDE}
    part = images[:12], labels[:12]
    subsets = {"a": part, "b": (images, labels), "c": part}
    found = evaluate.evaluate_many(subsets, toy, seeds=(0, 1), jobs=1, progress=False, **how)
    assert as_on_a_gpu.call_count == 2 * 3
    alone = [
        evaluate.evaluate(*subsets[row.subset], toy, seed=row.seed, **how)
        for row in found.itertuples()
    ]
    assert found.accuracy.tolist() == pytest.approx(alone)


@pytest.mark.parametrize("record_on", ["augmented", "clean"])
def test_dynamics_recorded_at_once_are_those_of_each_seed(toy_set, as_on_a_gpu, record_on):
    how = {"epochs": 4, "precision": "float32", "device": "cpu", "record_on": record_on, **WIDE}
    many = dict(dynamics.record_many(toy_set, seeds=[1, 2, 3], jobs=1, progress=False, **how))
    assert sorted(many) == [1, 2, 3] and as_on_a_gpu.call_count == 4
    for seed in (1, 3):
        alone = dynamics.record(toy_set, seed=seed, progress=False, **how)
        assert many[seed].info == alone.info
        for name in ("logits", "aum", "final_logits", "features"):
            agree(getattr(many[seed], name), getattr(alone, name), "float32")
        assert torch.equal(many[seed].kept, alone.kept)


def test_stopped_recordings_resume_alone(toy_set, tmp_path, as_on_a_gpu, monkeypatch):
    how = {"epochs": 6, "precision": "float32", "device": "cpu", "progress": False, **WIDE}
    files = {seed: tmp_path / f"{seed}.safetensors" for seed in (1, 2)}
    many = {"seeds": [1, 2], "jobs": 1, "checkpoints": files, **how}
    add, added = Recorder.add, []
    stop = lambda self, logits: (
        pytest.fail("stopped") if len(added) == 8 else (added.append(1), add(self, logits))
    )
    monkeypatch.setattr(Recorder, "add", stop)
    monkeypatch.setattr(resumable, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(resumable, "LOOK_SHARE", 1.0)
    with pytest.raises(pytest.fail.Exception):
        list(dynamics.record_many(toy_set, **many))
    assert as_on_a_gpu.call_count == 5 and all(file.exists() for file in files.values())
    monkeypatch.setattr(Recorder, "add", add)
    rest = dict(dynamics.record_many(toy_set, **many))
    assert as_on_a_gpu.call_count == 5
    for seed in (1, 2):
        whole = dynamics.record(toy_set, seed=seed, **how)
        agree(rest[seed].logits, whole.logits, "float32")
        assert torch.equal(rest[seed].kept, whole.kept)


def test_images_of_runs_at_once_are_held_once():
    runs = runs_of(Protocol(epochs=1, **WIDE))
    alone = [run.images.clone() for run in runs]
    stack = Stacked(runs)
    place = stack.images.untyped_storage().data_ptr()
    for run, own in zip(runs, alone):
        assert torch.equal(run.images, own)
        assert run.images.untyped_storage().data_ptr() == place
