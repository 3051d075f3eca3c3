"""Every fast path against the literal implementation (benchmarks/literal.py).

float32 up to rounding, bfloat16 by cosine.
"""

import functools
import json
import os
import platform
import warnings

import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from benchmarks import bench, cases, growth, limit, literal
from yoco import augment, condense, dynamics, evaluate, formation, models
from yoco.condense.gradient_matching import GradientMatcher
from yoco.condense.idc import GradientMatching
from yoco.parallel import pool
from yoco.training import network as training
from yoco.utils import device, seeds

CPU = torch.device("cpu")
compiles = pytest.mark.skipif(not device.can_compile(CPU), reason="no C++ compiler here")
# compiling takes a minute at the paper's depth: in each precision with CI=true, otherwise a
# training step of a layer less in this processor's own
PAPER, SHALLOW = (
    {"name": name, "channels": 3, "classes": 10, "size": 32}
    for name in ("convnet-d3-w32", "convnet-d2-w32")
)
WAYS = [
    pytest.param(PAPER, "float32", False, id="eager"),
    *(
        pytest.param(PAPER, how, True, marks=[compiles, pytest.mark.slow], id=f"compiled-{how}")
        for how in ("float32", "bfloat16")
    ),
]
QUICK = pytest.param(
    SHALLOW, device.choose_precision("auto", CPU), True, marks=[compiles], id="compiled"
)


def agree(ours: torch.Tensor, theirs: torch.Tensor, precision: str) -> None:
    if precision == "float32":
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item())
    else:
        assert F.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) >= 0.99


@pytest.mark.parametrize("network, precision, compiled", WAYS)
def test_matching_is_the_literal_one(network, precision, compiled):
    model = models.build_seeded(0, **network)
    source = seeds.generator(0)
    real, images = (
        torch.randn(8, 3, 32, 32, generator=source),
        torch.rand(2, 3, 32, 32, generator=source).requires_grad_(),
    )
    theirs = literal.match(model, real, formation.form(images, 2), 3)
    ours = GradientMatcher(model, "l2", precision=precision, compiled=compiled).match(
        model, real, formation.form(images, 2), 3
    )
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-4 if precision == "float32" else 0.05)
    agree(torch.autograd.grad(ours, images)[0], torch.autograd.grad(theirs, images)[0], precision)


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("network, precision, compiled", [*WAYS, QUICK])
def test_an_epoch_of_training_is_the_literal_one(network, precision, compiled):
    images = torch.randn(20, 3, 32, 32, generator=seeds.generator(2))
    labels = torch.arange(20) % 10
    start, theirs, ours = (models.build_seeded(1, **network) for _ in range(3))
    source = seeds.generator(0)
    step = training.Step(ours, training.Optimiser().build(ours.parameters()), precision, compiled)
    how = {
        "augmentation": augment.Augmentation(augment.EVALUATION),
        "batch_size": 8,
        "last_batch": "small",
    }
    training.epoch(step, images, labels, source, classes=10, **how)
    source = seeds.generator(0)  # the same draws in the same order
    loader = [
        (index, images[index], labels[index])
        for index in torch.randperm(20, generator=source).split(8)
    ]
    for _ in literal.train_epoch(
        theirs, literal.sgd(theirs), loader, 10, augment.EVALUATION, source
    ):
        pass
    agree(weights(ours) - weights(start), weights(theirs) - weights(start), precision)


@compiles
def test_one_compilation_serves_every_network_and_batch_size():
    graphs = []
    for seed, count in ((0, 6), (1, 6), (2, 9), (3, 2)):
        eager, compiled = (models.build_seeded(seed, **SHALLOW) for _ in range(2))
        images, targets = torch.randn(count, 3, 32, 32), torch.randn(count, 10).softmax(1)
        logits = []
        for model, compile_it in ((eager, False), (compiled, True)):
            optimizer = training.Optimiser().build(model.parameters())
            step = training.Step(model, optimizer, compiled=compile_it)
            logits += [torch.stack([step(images, targets) for _ in range(3)])]
        assert torch.allclose(logits[0], logits[1], atol=1e-4)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert graphs[0] == graphs[-1] > 0


@compiles
def test_compiled_outputs_are_the_eager_ones(toy):
    model = models.build_seeded(0, "convnet-d1-w8", 3, 3, 16).eval()
    inputs = torch.randn(11, 3, 16, 16)
    eager, compiled = (
        training.outputs(model, lambda part: inputs[part], 11, "float32", compiled=how, batch=4)
        for how in (False, True)
    )
    assert torch.allclose(eager, compiled, atol=1e-5) and not compiled.requires_grad


def test_short_runs_and_machines_without_a_compiler_stay_eager(monkeypatch):
    protocol = training.Protocol(epochs=1)
    assert not protocol.resolved(CPU, device.WORTH - 1, 32).compiled
    assert not protocol.resolved(CPU, device.WORTH, 16).compiled
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/" + name)
    assert protocol.resolved(CPU, device.WORTH, 32).compiled
    assert not device.worth_compiling(CPU, device.WORTH, 32, device.WORTH_TWICE)
    assert device.worth_compiling(CPU, device.WORTH_TWICE, 32, device.WORTH_TWICE)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert not protocol.resolved(CPU, 10**9, 32).compiled
    monkeypatch.undo()
    monkeypatch.setenv("YOCO_COMPILE", "0")
    assert not protocol.resolved(CPU, 10**9, 32).compiled


def test_no_compiler_still_condenses_and_says_so(toy, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    made = condense.condense(
        toy, "idc", 1, preset="smoke", outer_loops=1, inner_loops=1, width=4, progress=False
    )
    assert made.info["compiled"] is False and made.info["precision"] in ("float32", "bfloat16")


def test_what_does_not_compile_runs_as_written(monkeypatch):
    def broken(graph, inputs):
        raise RuntimeError("a kernel that is no C++")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=broken))
    double = device.compiled(lambda values: values * 2)
    with pytest.warns(
        UserWarning, match="could not compile <lambda> .* runs uncompiled: .*that is no C"
    ):
        assert double(torch.tensor(3.0)) == 6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert double(torch.tensor(4.0)) == 8  # said once
    with pytest.raises(ZeroDivisionError):  # an error of the function's own is its own
        device.compiled(lambda value: 1 / value)(0)


def test_memory_is_kept_with_glibc_and_left_alone_elsewhere(monkeypatch):
    device.keep_memory(CPU)
    device.keep_memory.cache_clear()
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(device.ctypes, "CDLL", lambda name: pytest.fail("no glibc: nothing to set"))
    device.keep_memory(CPU)
    device.keep_memory.cache_clear()


def test_a_network_that_compiles_for_minutes_stays_eager(monkeypatch):
    monkeypatch.setattr(device, "can_compile", lambda where: True)
    assert training.Protocol(model="resnet10").resolved(CPU, 10**6, 32).compiled
    assert not training.Protocol(model="densenet").resolved(CPU, 10**9, 32).compiled
    assert training.Protocol(model="densenet", compiled=True).resolved(CPU, 1, 32).compiled


def test_what_is_left_of_a_block_ends_as_the_whole_would_have(toy, toy_set):
    images, labels = toy_set.form()
    protocol = training.Protocol(epochs=2, width=8, precision="float32")
    work = [evaluate.Training(images[: 4 * n], labels[: 4 * n], n, protocol) for n in (1, 2, 3, 4)]
    whole = dict(evaluate.accuracies(work, toy, jobs=2, progress=False))
    rest = dict(evaluate.accuracies(work, toy, only=[2], progress=False))
    assert sorted(whole) == [0, 1, 2, 3] and rest == {2: whole[2]}


def test_dynamics_side_by_side_are_those_of_one_thread(toy_set):
    options = {"epochs": 3, "width": 8, "precision": "float32", "progress": False}
    several = dict(dynamics.record_many(toy_set, seeds=[4, 5], **options))
    ((seed, again),) = dynamics.record_many(toy_set, seeds=[4, 5], only=[5], **options)
    assert sorted(several) == [4, 5] and seed == 5 and torch.equal(again.logits, several[5].logits)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = dynamics.record(toy_set, seed=5, **options)
    torch.set_num_threads(threads)
    assert torch.equal(alone.logits, several[5].logits) and torch.equal(
        alone.final_logits, several[5].final_logits
    )


def test_jobs_by_device():
    assert pool.default_jobs(torch.device("cuda"), 9) == 1 and pool.default_jobs(CPU, 0) == 1
    assert pool.default_jobs(CPU, 1) == 1 and pool.default_jobs(CPU, 100) == torch.get_num_threads()
    assert sorted(pool.run(pow, [(2, 3), (2, 4)], 1)) == [(0, 8), (1, 16)]
    with pytest.raises(ValueError, match="jobs"):
        list(pool.run(pow, [(2, 3)], 0))


@pytest.mark.parametrize("side", ["literal", "ours"])
def test_an_inner_loop_of_either_side_moves_images_and_network(side):
    data = cases.noise(classes=2, per_class=40, size=16)
    source = seeds.generator(0)
    if side == "literal":
        loops = literal.InnerLoops(
            data, condense.real_set(data, 1, 2, 0).images, 2, lr=0.1, device=CPU, source=source
        )
        run = lambda: loops.step(4, 8)
    else:
        settings = condense.settings_for(
            "paper", 16, 1, {"real_batch": 4, "network_images": 8, "image_lr": 0.1}
        )
        loops = GradientMatching(data, 1, 2, settings, source, CPU, "float32", False)
        run = lambda: loops.step(1)
    images, network = loops.images.detach().clone(), weights(loops.model)
    run()
    assert not torch.equal(images, loops.images) and not torch.equal(network, weights(loops.model))
    assert loops.images.min() >= 0 and loops.images.max() <= 1


@pytest.mark.slow
def test_the_benchmark_measures_both_sides_and_the_limit(monkeypatch):
    # in the sides' processes too: seconds in place of a minute
    monkeypatch.setenv("YOCO_COMPILE", "0")
    monkeypatch.setenv("YOCO_PRECISION", "float32")
    (row,) = bench.measure("train_40", CPU, repeats=1, epochs=1)
    assert row["precision"] == "float32"
    assert row["ratio"] == pytest.approx(row["literal_s"] / row["ours_s"])
    assert row["share"] == pytest.approx(row["limit_s"] / row["ours_s"])
    assert row["instructions"] == torch.backends.cpu.get_cpu_capability()
    assert row["ours_mb"] > 100 and row["first_s"] > 0
    assert json.loads(json.dumps(row)) == row


def test_float32_is_measured_wherever_bfloat16_is_the_default(monkeypatch):
    monkeypatch.setenv("YOCO_PRECISION", "bfloat16")
    assert bench.precisions(CPU) == ["bfloat16", "float32"]
    monkeypatch.setenv("YOCO_PRECISION", "float32")
    assert bench.precisions(CPU) == ["float32"]


def test_only_a_cpu_compiles_in_the_benchmark(monkeypatch):
    monkeypatch.setattr("yoco.utils.device.can_compile", lambda where: True)
    assert cases.compiled(CPU) and not cases.compiled(torch.device("cuda"))


def test_each_precision_has_its_own_row():
    def run(seconds):
        return {"seconds": seconds, "memory_mb": 9.0, "gpu_mb": None}

    runs = [{"literal": run(s), "bfloat16": run(s / 4), "float32": run(s / 2)} for s in (4, 8, 6)]
    rows = [bench._row("train_40", name, 1.0, runs) for name in ("bfloat16", "float32")]
    assert [row["ratio"] for row in rows] == [4, 2] and rows[0]["literal_s"] == 6  # the median


def test_new_benchmark_rows_replace_the_same_case():
    def row(name, precision, threads, seconds):
        return {"name": name, "precision": precision, "threads": threads, "ours_s": seconds}

    known = [row("train_40", "float32", 2, 1), row("inner_loop", "float32", 2, 2)]
    measured = [row("train_40", "float32", 2, 3), row("train_40", "float32", 1, 4)]
    assert [r["ours_s"] for r in bench.merged(known, measured)] == [2, 3, 4]


def test_the_limit_counts_every_convolution_and_times_it():
    weight = torch.rand(4, 3, 3, 3, requires_grad=True)
    images = torch.rand(2, 3, 8, 8)

    def work():
        for _ in range(2):
            torch.nn.functional.conv2d(images, weight, padding=1).sum().backward()

    calls = limit.counted(work)
    assert {name.split("::")[1]: count for (name, _), count in calls.items()} == {
        "convolution": 2,
        "convolution_backward": 2,
    }
    once = limit.seconds(calls, "float32", CPU)
    assert 0 < once < 1 and limit.counted(lambda: torch.rand(3, 3) @ torch.rand(3, 3)) == {}


def test_a_second_derivative_s_convolutions_are_counted():
    data = cases.noise(classes=2, per_class=40, size=16)
    overrides = {"real_batch": 4, "network_images": 0, "width": 4}
    settings = condense.settings_for("paper", 16, 1, overrides)
    loops = GradientMatching(data, 1, 2, settings, seeds.generator(0), CPU, "float32", False)
    calls = limit.counted(lambda: loops.step(1))
    # 2 classes, 3 layers: 2 forward passes; backward once for real and synthetic, then twice
    assert sum(count for (name, _), count in calls.items() if "backward" not in name) >= 12
    assert sum(count for (name, _), count in calls.items() if "backward" in name) >= 18


def test_growth_is_drawn_from_its_table():
    rows = [
        {
            "across": across,
            "classes": n,
            "ipc": n,
            "side": side,
            "seconds": n * 2.0,
            "memory_mb": 100.0,
        }
        for across in ("classes", "ipc")
        for n in (1, 10)
        for side in ("literal", "ours")
    ]
    figure = growth.draw(pd.DataFrame(rows))
    line = figure.axes[0].lines[0]
    assert (
        list(line.get_xdata()) == [1, 10]
        and list(line.get_ydata()) == [2, 20]
        and figure.axes[0].get_ylabel() == ("time of one inner loop (s)")
    )


def test_compiled_code_is_kept_apart_by_instruction_set(monkeypatch):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    first = device.separate_cache()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == first and first.endswith("-AVX2-AVX2")
    assert device.separate_cache() == first
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert device.separate_cache() != first
    monkeypatch.setenv(
        "TORCHINDUCTOR_CACHE_DIR", torch._inductor.runtime.cache_dir_utils.default_cache_dir()
    )
    assert device.separate_cache().endswith("-AVX512-AVX2")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/of/the/user")
    assert device.separate_cache() == "/of/the/user"
