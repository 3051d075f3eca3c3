"""What is worth checking on a real card, in two minutes: `pytest -m gpu tests/test_gpu.py`."""

import gc
import warnings

import pytest
import torch

from tests.condense import test_together
from yoco import condense, models
from yoco.selfcheck import checks, report, speed
from yoco.training import network as train
from yoco.training import stacked
from yoco.training.protocol import Protocol
from yoco.utils import fused, graphs, seeds

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU, or not -m gpu"),
]
CARD = torch.device("cuda")
MOST_MEMORY = 3 * 2**30  # bytes of a CIFAR-10 IPC 10 run (design §9)
# a pool that is trained in a second
POOL = {"pool_networks": 2, "pool_epochs": 1, "pool_images": 512}


@pytest.fixture(autouse=True)
def exact():
    """Convolve in float32 if float32 is asked for, and count memory anew."""
    gc.collect()  # what a failed test left
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield


@pytest.mark.parametrize("name", checks.CHECKS)
def test_the_card_computes_what_a_cpu_does(name, monkeypatch):
    monkeypatch.setattr(checks, "CHECKS", {name: checks.CHECKS[name]})
    found = list(report.results(CARD))
    assert found and all(result.right for result in found), "\n".join(
        f"{result} {result.error}" for result in found
    )


def a_run(epochs: int = 8, precision: str = "float32", seed: int = 0, **options) -> train.Run:
    condensed = speed.noise_set(40)
    images, labels = condensed.form()
    protocol = Protocol.of(epochs=epochs, precision=precision, **options)
    protocol = protocol.resolved(CARD, 0, condensed.size)
    return train.Run(condensed.normalise(images).to(CARD), labels.to(CARD), 10, protocol, seed)


def test_an_epoch_waits_for_the_card_once_at_most():
    run = a_run(precision="bfloat16")
    run.epoch()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            run.epoch()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [str(each.message) for each in told if "synchroniz" in str(each.message)]
    assert len(waits) <= 1, waits


def weights_of(run: train.Run) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in run.network.parameters()])


def weights_after(epochs: int, **options) -> torch.Tensor:
    run = a_run(**options)
    for _ in range(epochs):
        run.epoch()
    return weights_of(run)


PRECISIONS = pytest.mark.parametrize(
    "precision, most",
    [("float32", 0.01), ("bfloat16", 0.05)],  # relative differences of weights
)


@PRECISIONS
@pytest.mark.parametrize("name", ["even", "ncfm"])
def test_a_replayed_graph_trains_as_plain_kernels_do(name, precision, most, monkeypatch):
    options = {"protocol": name, "batch_size": 64, "precision": precision}
    recorded = weights_after(2, **options)
    monkeypatch.setenv("YOCO_GRAPHS", "0")
    assert checks.relative(recorded, weights_after(2, **options)) < most


def test_fused_layers_compute_what_pytorch_s_do(monkeypatch):
    network = models.build_seeded(0, "convnet", 3, 10, 32).to(CARD)
    images = torch.randn(64, 3, 32, 32, device=CARD, requires_grad=True)
    targets = torch.eye(10, device=CARD)[torch.arange(64) % 10]
    given = [images, *(p for n, p in network.named_parameters() if n.endswith("weight"))]

    def computed() -> list[torch.Tensor]:
        fused.available.cache_clear()
        loss, logits = train.loss_and_logits(network, images, targets, "bfloat16")
        return [logits, *torch.autograd.grad(loss, given)]

    found = computed()
    assert fused.available(images.device), "Triton's kernels do not work here"
    monkeypatch.setenv("YOCO_FUSED", "0")
    expected = computed()
    fused.available.cache_clear()
    assert max(checks.relative(*pair) for pair in zip(found, expected)) < 0.05


@PRECISIONS
def test_runs_at_once_train_as_in_turn(precision, most):
    alone, together = (
        [a_run(seed=seed, precision=precision) for seed in range(3)] for _ in range(2)
    )
    stack = stacked.Stacked(together)
    for _ in range(graphs.WARM_UP):
        stack.epoch()
        for run in alone:
            run.epoch()
    assert all(checks.relative(*map(weights_of, pair)) < most for pair in zip(together, alone))


@PRECISIONS
@pytest.mark.parametrize("name", ["idc", "dsa"])
def test_classes_together_are_each_class_alone_on_the_card(name, precision, most, monkeypatch):
    stepper = test_together.stepper_of(
        name, test_together.uneven(), precision=precision, device=CARD, real_batch=12, ipc=2
    )
    found, expected = test_together.together_and_alone(stepper, monkeypatch)
    assert all(checks.relative(*pair) < 2 * most for pair in zip(found, expected))


def test_a_state_is_resumed_on_the_card():
    whole, first = a_run(), a_run()
    whole.epoch()
    first.epoch()
    second = a_run()
    second.restore({name: tensor.cpu() for name, tensor in first.state().items()})
    whole.epoch()
    second.epoch()
    pairs = zip(whole.network.parameters(), second.network.parameters())
    assert max(checks.relative(a.detach(), b.detach()) for a, b in pairs) < 0.01


def test_trainings_one_after_another_hold_no_memory():
    work = speed.training(CARD, compiled=False)

    def held() -> int:
        # memory that PyTorch keeps in reserve is not held
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved()

    work()
    before = held()
    for _ in range(6):
        work()
    assert held() < before + 2**26


@pytest.mark.parametrize("method", ["idc", "ncfm"])
def test_steps_of_the_paper_s_size_are_finite_and_fit(method):
    settings = {"ncfm": {**POOL, "iterations": 6}, "idc": {"outer_loops": 1, "inner_loops": 6}}
    made = condense.condense(
        speed.noise(per_class=1100),
        method,
        10,
        preset="paper",
        device=CARD,
        progress=False,
        **settings[method],
    )
    assert torch.isfinite(torch.tensor(made.info["loss"])).all() and made.info["steps"] == 6
    assert torch.cuda.max_memory_allocated() < MOST_MEMORY


def test_draws_on_the_card_repeat_without_global_generator():
    before = torch.cuda.get_rng_state()
    first, second = (seeds.for_device(seeds.generator(3), CARD) for _ in range(2))
    drawn = [torch.rand(5, generator=source, device=CARD) for source in (first, second)]
    assert torch.equal(*drawn) and torch.equal(torch.cuda.get_rng_state(), before)
