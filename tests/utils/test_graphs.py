"""CUDA graphs, with a stand-in for CUDA that records a function and repeats it.

It runs on the same tensors again.
"""

import contextlib
import gc
import types
import weakref
from collections import defaultdict

import pytest
import torch
from torch.utils import _pytree as pytree

from tests.fake_gpu import OnGPU
from yoco.utils import graphs, seeds

GPU = torch.device("cuda")
CPU = torch.device("cpu")


def on_gpu(seed):
    return OnGPU().manual_seed(seed)


class Graph:
    """Replays what was recorded: runs it again and writes the results to the recorded tensors."""

    made: list = []

    def __init__(self):
        self.generators, self.replays = [], 0
        Graph.made.append(self)

    def register_generator_state(self, generator):
        self.generators.append(generator)

    def replay(self):
        self.replays += 1
        recording = self.recording
        fresh = recording.function(*recording.inputs, **recording.options)
        for old, new in zip(recording.outputs, fresh):
            old.copy_(new)


CURRENT: list = []  # streams that were made the current one


@pytest.fixture
def cuda(monkeypatch):
    Graph.made = []
    stream = types.SimpleNamespace(wait_stream=lambda other: None)
    record = graphs._Recording._record

    def recorded(self):
        sources = pytree.tree_leaves(list(self.options.values()))
        state = [source.get_state() for source in sources]
        record(self)  # a recording draws nothing
        self.graph.recording = self
        for source, before in zip(sources, state):
            source.set_state(before)

    monkeypatch.setattr(graphs._Recording, "_record", recorded)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("graph", "stream", "device"):
        monkeypatch.setattr(torch.cuda, name, lambda *_, **__: contextlib.nullcontext())
    for name, stand_in in {
        "CUDAGraph": Graph,
        "Stream": lambda device: stream,
        "current_stream": lambda: stream,
        "set_stream": CURRENT.append,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, device=None: empty(*size))


def moved(values, rate, *, source):
    return values - rate * torch.rand(values.shape, generator=source), values.sum()


def test_a_recorded_function_gives_what_the_plain_one_gives(cuda):
    """Numbers and tensors are read anew, results belong to the caller, generators continue."""
    fast, source, same = graphs.captured(moved, GPU), on_gpu(0), on_gpu(0)
    values, kept = torch.ones(3), []
    for number in range(8):
        result = fast(values, 0.1 * number, source=source)
        expected = moved(values, torch.tensor(0.1 * number), source=same)
        assert torch.equal(result[0], expected[0]) and torch.equal(result[1], expected[1])
        kept.append((values, values.clone()))
        values = result[0]
    assert all(torch.equal(*pair) for pair in kept)
    (graph,) = Graph.made
    assert graph.replays == 8 - graphs.WARM_UP and graph.generators == [source]


def test_each_shape_and_option_has_a_graph_of_its_own(cuda):
    fast, source = graphs.captured(moved, GPU), on_gpu(0)
    for _ in range(graphs.WARM_UP + 2):
        for size in (2, 3):
            assert fast(torch.ones(size), 0.5, source=source)[1] == size
        fast(torch.ones(2), 0.5, source=(other := on_gpu(1)))
    assert sorted(len(graph.generators) for graph in Graph.made) == [1, 1] and other is not source


def test_a_call_that_draws_on_the_host_is_not_recorded(cuda):
    fast, source, same = graphs.captured(moved, GPU), seeds.generator(0), seeds.generator(0)
    for _ in range(graphs.WARM_UP + 2):
        values = fast(torch.ones(2), 0.5, source=source)[0]
        assert torch.equal(values, moved(torch.ones(2), 0.5, source=same)[0])
    assert not Graph.made


def test_a_function_may_draw_from_several_generators(cuda):
    fast = graphs.captured(lambda values, *, sources: (values * len(sources),), GPU)
    sources = tuple(on_gpu(seed) for seed in range(3))
    for _ in range(graphs.WARM_UP + 1):
        assert fast(torch.ones(1), sources=sources) == (3,)
    assert Graph.made[0].generators == list(sources)


def test_what_cannot_be_recorded_says_how_to_do_without(cuda, monkeypatch):
    def reading(values):
        if reads.append(values) or len(reads) > graphs.WARM_UP:
            raise RuntimeError("operation not permitted when stream is capturing")
        return (values,)

    @contextlib.contextmanager
    def ending(*_, **__):
        try:
            yield
        finally:
            raise RuntimeError("capture was invalidated")

    monkeypatch.setattr(torch.cuda, "graph", ending)
    reads, fast = [], graphs.captured(reading, GPU)
    for _ in range(graphs.WARM_UP):
        fast(torch.ones(1))
    CURRENT.clear()
    with pytest.raises(RuntimeError, match="invalidated") as caught:
        fast(torch.ones(1))
    assert "not permitted when" in (note := caught.value.__notes__[0]) and "YOCO_GRAPHS=0" in note
    assert [torch.cuda.current_stream()] == CURRENT, "as before the recording"


def test_the_function_is_unchanged_without_graphs(cuda, monkeypatch):
    assert graphs.captured(moved, CPU) is moved and graphs.captured(moved, GPU) is not moved
    monkeypatch.setenv("YOCO_GRAPHS", "0")
    assert graphs.captured(moved, GPU) is moved
    monkeypatch.delenv("YOCO_GRAPHS")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert graphs.captured(moved, GPU) is moved


def test_no_garbage_is_collected_while_a_graph_is_recorded(cuda):
    enabled, fast = [], graphs.captured(lambda x: (x + (enabled.append(gc.isenabled()) or 1),), GPU)
    for _ in range(graphs.WARM_UP + 1):
        fast(torch.ones(2))
    assert enabled == [True] * graphs.WARM_UP + [False, True] and gc.isenabled(), "off, then on"


class Owner:
    """Holds the graphs of its own method."""

    def __init__(self):
        self.fast = graphs.captured(self.work, GPU)

    def work(self, x):
        return (x + 1,)


def test_graphs_go_with_the_object_whose_method_they_hold(cuda):
    owner = Owner()
    for _ in range(graphs.WARM_UP + 2):
        assert owner.fast(torch.ones(1)) == (2,)
    gone = weakref.ref(owner), weakref.ref(owner.fast)
    gc.disable()
    try:
        del owner
        assert [each() for each in gone] == [None, None], "without a garbage collector"
    finally:
        gc.enable()


def test_a_stream_is_reused_once_its_owner_is_gone(cuda, monkeypatch):
    made = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: made.append(object()) or made[-1])
    monkeypatch.setattr(graphs, "_IDLE", defaultdict(list))
    gpu = torch.device("cuda")
    first, second = (graphs.captured(moved, gpu) for _ in range(2))
    assert [first.stream, second.stream] == made and len(made) == 2, "never shared"
    del first
    third = graphs.captured(moved, gpu)
    assert third.stream is made[0] and len(made) == 2
