"""On a simulated Apple GPU, everything runs without float64 and without an operation it lacks."""

import pytest
import torch

from tests.condense.test_methods import TINY
from tests.fake_mps import MPS, fake_mps, supported
from yoco import condense
from yoco.data import spaces
from yoco.dynamics.recording import Recorder, Recording
from yoco.training import network as train
from yoco.training import trials
from yoco.utils import device as devices
from yoco.utils import seeds

# fake tensors have no values to copy
pytestmark = pytest.mark.filterwarnings("ignore:for .*copying from a non-meta parameter")


LIKE_IDC = ("dream", "dsa")


@pytest.fixture
def mps():
    with fake_mps() as mps:
        yield mps
    assert not mps.lacking


def stepper_of(name, data):
    method = condense.METHODS[name]
    settings = method.settings_for("smoke", data.size, 2, TINY[name])
    options = {"progress": False} if method.experts else {}
    factor = 2 if method.multi else 1
    place = (MPS, devices.choose_precision("auto", MPS), devices.can_compile(MPS))
    return method.stepper(data, 2, factor, settings, seeds.generator(0), *place, **options)


def test_what_mps_lacks_is_found():
    with fake_mps() as mps:
        values = torch.ones(3, 3, device=MPS)
        with pytest.raises(TypeError, match="float64"):
            values.double()
        with pytest.raises(RuntimeError, match="same device"):
            values + torch.ones(3, 3)
        torch.linalg.eig(values)
    assert mps.lacking == {"aten::linalg_eig"}
    assert supported("aten::mm") and supported("aten::convolution_backward")


@pytest.mark.parametrize(
    "name",
    ["idc", "mtt", "ncfm", *(pytest.param(name, marks=pytest.mark.slow) for name in LIKE_IDC)],
)
def test_steps_of_every_method_but_kip_run(toy, mps, name):
    stepper = stepper_of(name, toy)
    stepper.prepare(None)
    stepper.step(0)
    stepper.step(1)
    assert stepper.images.device == MPS
    stepper.restore({name: tensor.cpu() for name, tensor in stepper.state().items()})


def test_all_methods_are_held():
    assert {"idc", "mtt", "ncfm", "kip", *LIKE_IDC} == set(TINY)


def test_kip_falls_back_to_the_cpu_and_says_so(toy):
    with pytest.warns(UserWarning, match="KIP needs float64, which mps does not have"):
        stepper = stepper_of("kip", toy)
    assert stepper.device == torch.device("cpu") and stepper.step(0) > 0


@pytest.mark.parametrize("model, augmentation", [("convnet", "imagenet"), ("resnet10ap", "dsa")])
def test_training_runs(toy, mps, model, augmentation):
    protocol = train.Protocol(epochs=3, model=model, augmentation=augmentation).resolved(MPS, 1, 16)
    assert (protocol.precision, protocol.compiled) == ("float32", False)
    images, labels = torch.rand(20, 3, 16, 16).to(MPS), (torch.arange(20) % 3).to(MPS)
    run = train.Run(images, labels, 3, protocol, seed=0, mean=toy.mean, std=toy.std, recorded=True)
    run.epoch()
    run.epoch()


@pytest.mark.parametrize("record_on", ["augmented", "clean"])
def test_recording_runs(toy_set, mps, record_on):
    images, labels = toy_set.form()
    protocol = train.Protocol(epochs=6, width=4).resolved(MPS, 1, 16)
    run = train.Run(toy_set.normalise(images).to(MPS), labels.to(MPS), 3, protocol, seed=0)
    kept = Recorder(labels, 3, top_k=2, windows=[5], early=2)
    Recording(run, kept, record_on).step(0)


def test_evaluation_runs(toy, toy_set, mps):
    protocol = train.Protocol(epochs=2, width=4)
    tests, subsets = {None: spaces.TestSet.of(toy)}, [(*toy_set.form(), 0)]
    (accuracy,) = trials.train_and_test(tests, subsets, None, protocol, MPS)
    assert 0 <= accuracy <= 100
