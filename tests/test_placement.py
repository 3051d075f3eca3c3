"""Where tensors are: on a simulated GPU, every step runs without mixed devices.

It waits for the GPU at most once.
"""

import pytest
import torch

from tests.condense.test_methods import TINY
from tests.fake_gpu import GPU, fake_gpu
from yoco import condense
from yoco.condense import class_groups, expert_training
from yoco.data import spaces
from yoco.dynamics.recording import RecordedTogether, Recorder, Recording
from yoco.training import network as train
from yoco.training import stacked, trials
from yoco.utils import seeds

# fake tensors have no values to copy
pytestmark = pytest.mark.filterwarnings("ignore:for .*copying from a non-meta parameter")


@pytest.fixture
def gpu(monkeypatch):
    with fake_gpu(monkeypatch) as gpu:
        yield gpu


def test_mixed_devices_and_what_is_read_are_found(gpu):
    here, there = torch.ones(3), torch.ones(3, device=GPU)
    with pytest.raises(RuntimeError, match="same device"):
        here + there
    assert (
        not gpu.waits
        and there.sum().item() == 1
        and bool((there > 0).all())
        and there.cpu().device.type == "cpu"
    )
    assert len(gpu.waits) == 3 and not gpu.sent
    here.to(GPU)
    there[torch.tensor([0, 1])]
    assert len(gpu.sent) == 2 and len(gpu.waits) == 3


def steps_of(name, data, gpu, precision, **overrides):
    """Return the second step of a method on the GPU, and how often it waited."""
    method = condense.METHODS[name]
    settings = method.settings_for("smoke", data.size, 2, {**TINY[name], **overrides})
    options = {"progress": False} if method.experts else {}
    stepper = method.stepper(
        data,
        2,
        2 if method.multi else 1,
        settings,
        seeds.generator(0),
        GPU,
        precision,
        False,
        **options,
    )
    stepper.prepare(None)
    stepper.step(0)
    gpu.waits.clear(), gpu.sent.clear()
    stepper.step(1)
    assert (
        stepper.images.device == stepper.device
        and stepper.state()["images"].device == stepper.device
    )
    return stepper


@pytest.mark.parametrize(
    "precision, overrides", [("float32", {}), ("bfloat16", {"sampler": 3, "calibrate_every": 2})]
)
def test_a_step_of_ncfm_draws_on_the_device_and_waits_once(toy, gpu, precision, overrides):
    stepper = steps_of("ncfm", toy, gpu, precision, pool_epochs=1, **overrides)
    assert len(gpu.waits) == 1 and not gpu.sent, (gpu.waits, gpu.sent)
    state = stepper.state()
    assert "device_generator" in state
    stepper.restore({name: tensor.cpu() for name, tensor in state.items()})
    stepper.step(2)


@pytest.mark.parametrize(
    "name, most",
    [("idc", class_groups.TOGETHER), ("idc", 1), ("dream", 10**9), ("dsa", 10**9)],
)
def test_a_step_draws_on_the_device_and_waits_once(toy, gpu, monkeypatch, name, most):
    monkeypatch.setattr(class_groups, "TOGETHER", most)
    stepper = steps_of(name, toy, gpu, "bfloat16", synthetic_batch=1, real_batch=5)
    assert stepper.together and len(stepper.groups) == (1 if most > 1 else 3)
    assert len(gpu.waits) == 1 and not gpu.sent, (gpu.waits, gpu.sent)
    stepper.restore({name: tensor.cpu() for name, tensor in stepper.state().items()})
    stepper.step(2)


def test_a_step_of_mtt_waits_once(toy, gpu):
    steps_of("mtt", toy, gpu, "bfloat16")
    assert len(gpu.waits) == 1, gpu.waits


def test_a_step_of_kip_stays_on_its_device(toy, gpu):
    steps_of("kip", toy, gpu, "float32")


@pytest.mark.parametrize("model, augmentation", [("convnet", "imagenet"), ("resnet10", "dsa")])
def test_an_epoch_of_training_waits_once_and_its_batches_never(toy, gpu, model, augmentation):
    protocol = train.Protocol(
        epochs=6, model=model, precision="bfloat16", compiled=False, augmentation=augmentation
    )
    images, labels = torch.rand(20, 3, 16, 16).to(GPU), (torch.arange(20) % 3).to(GPU)
    run = train.Run(images, labels, 3, protocol, seed=0, mean=toy.mean, std=toy.std, recorded=True)
    run.epoch()
    gpu.waits.clear(), gpu.sent.clear()
    within = []
    run.epoch(lambda index, logits: within.append((index.device, logits.device, len(gpu.waits))))
    assert within == [(GPU, GPU, 0)] and len(gpu.waits) == 1 and not gpu.sent, (
        within,
        gpu.waits,
        gpu.sent,
    )
    run.restore({name: tensor.cpu() for name, tensor in run.state().items()})
    run.epoch()


@pytest.mark.parametrize("record_on, waits", [("augmented", 2), ("clean", 2)])
def test_recording_waits_for_an_epoch_s_weights_and_logits(toy_set, gpu, record_on, waits):
    images, labels = toy_set.form()
    protocol = train.Protocol(epochs=6, width=4, precision="bfloat16", compiled=False)
    run = train.Run(toy_set.normalise(images).to(GPU), labels.to(GPU), 3, protocol, seed=0)
    recording = Recording(run, Recorder(labels, 3, top_k=2, windows=[5], early=2), record_on)
    recording.step(0)
    gpu.waits.clear(), gpu.sent.clear()
    recording.step(1)
    assert len(gpu.waits) == waits and not gpu.sent, (gpu.waits, gpu.sent)


def test_a_pool_epoch_waits_for_loss_and_weights(toy, gpu):
    settings = expert_training.PairSettings(epochs=3, width=4, batch_size=32)
    training = expert_training.ExpertTraining(
        toy,
        settings,
        {"seed": 0, "number": 0, "precision": "bfloat16"},
        GPU,
        False,
        lambda images: None,
    )
    training.step(0)
    gpu.waits.clear(), gpu.sent.clear()
    training.step(1)
    assert len(gpu.waits) == 2 and not gpu.sent, (gpu.waits, gpu.sent)


# torch's AdamW reads its learning rate once, when it is made
@pytest.mark.parametrize("name, waits", [("even", 3), ("ncfm", 4)])
def test_evaluation_runs_on_the_device(toy, toy_set, gpu, name, waits):
    protocol = train.Protocol.of(
        name, epochs=2, width=4, batch_size=64, precision="bfloat16", compiled=False
    )
    subsets = [(*toy_set.form(), 0)]
    (accuracy,) = trials.train_and_test(
        {None: spaces.TestSet.of(toy)}, subsets, None, protocol, GPU
    )
    assert 0 <= accuracy <= 100 and len(gpu.waits) == waits, gpu.waits


def test_runs_trained_at_once_wait_once_per_epoch(toy, gpu):
    protocol = train.Protocol(epochs=6, width=4, precision="bfloat16", compiled=False)
    images, labels = torch.rand(3, 20, 3, 16, 16).to(GPU), (torch.arange(20) % 3).to(GPU)
    together = stacked.Stacked(
        [train.Run(own, labels, 3, protocol, seed) for seed, own in enumerate(images)]
    )
    together.epoch()
    gpu.waits.clear(), gpu.sent.clear()
    within = []
    together.epoch(lambda *both: within.append((both[0].device, both[1].shape, len(gpu.waits))))
    assert within == [(GPU, (3, 20, 3), 0)] and len(gpu.waits) == 1 and not gpu.sent, (
        within,
        gpu.waits,
        gpu.sent,
    )


@pytest.mark.parametrize("record_on, waits", [("augmented", 2), ("clean", 4)])
def test_recording_at_once_waits_once_for_the_logits_of_all_runs(toy_set, gpu, record_on, waits):
    images, labels = toy_set.form()
    protocol = train.Protocol(epochs=6, width=4, precision="bfloat16", compiled=False)
    recordings = [
        Recording(
            train.Run(toy_set.normalise(images).to(GPU), labels.to(GPU), 3, protocol, seed),
            Recorder(labels, 3, top_k=2, windows=[5], early=2),
            record_on,
        )
        for seed in range(3)
    ]
    together = RecordedTogether(recordings, [None] * 3, [{}] * 3)
    together.step(0)
    gpu.waits.clear(), gpu.sent.clear()
    together.step(1)
    assert len(gpu.waits) == waits and not gpu.sent, (gpu.waits, gpu.sent)
