"""Small data for all tests.

Random images of three classes that differ in brightness, so that a network can learn them.
"""

import functools
import os
import shutil
import tempfile
import time
from collections.abc import Callable

import matplotlib

matplotlib.use("Agg")

import hypothesis
import matplotlib.pyplot as plt
import pytest
import torch

from yoco import condense, dynamics
from yoco.data import ImageData, channel_statistics
from yoco.sets.condensed_set import CondensedSet

# the same examples every time, and no folder of them; a slow machine is no failure
hypothesis.settings.register_profile(
    "yoco",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=60,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("yoco")
# seconds after which a program that is waited for counts as hung: a guard, never a measure of speed
HUNG = 1200
# tests that share what takes long to start: an interpreter, processes, a browser, a compiler
TOGETHER = (
    ("tests/parallel/test_distributed.py",),
    (
        "tests/parallel/test_pool.py",
        "tests/test_determinism.py::test_side_by_side",
        "tests/test_fast.py::test_what_is_left",
    ),
    ("tests/test_killed.py",),
    ("tests/test_fast.py",),
    ("tests/test_browser.py",),
)
CLASSES = ("dark", "middle", "bright")


def until(done: Callable[[], object]) -> None:
    """Wait until `done()` is true, however long that takes on this machine."""
    end = time.monotonic() + HUNG
    while not done():
        assert time.monotonic() < end, "hung"
        time.sleep(0.01)


def make_data(per_class: int = 24, size: int = 16, channels: int = 3, seed: int = 0) -> ImageData:
    source = torch.Generator().manual_seed(seed)
    splits = []
    for count in (per_class, 8):
        labels = torch.arange(len(CLASSES)).repeat_interleave(count)
        noise = torch.rand(len(labels), channels, size, size, generator=source) * 80
        splits += [(noise + labels.view(-1, 1, 1, 1) * 80).to(torch.uint8), labels]
    mean, std = channel_statistics(splits[0])
    return ImageData("toy", *splits, CLASSES, mean, std)


@pytest.fixture(autouse=True, scope="session")
def cache_of_pixels():
    """Decode folders into a cache of this run's own, also in the processes that it starts."""
    folder = tempfile.mkdtemp(prefix="yoco-pixels-")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("YOCO_CACHE", folder)
        yield
    shutil.rmtree(folder)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Run tests of `TOGETHER` in one worker, and all others in any worker.

    xdist's loadgroup finds no group under pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return next((group[0] for group in TOGETHER if nodeid.startswith(group)), nodeid)

    return Together(config, log)


def pytest_configure(config):
    """Keep all tests and their processes on the CPU, unless `-m gpu` asks for the card."""
    if config.getoption("markexpr") != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        # no variable hides it; cached as torch's own, which torch.compile unwraps
        torch.backends.mps.is_available = functools.cache(lambda: False)


def pytest_collection_modifyitems(items):
    """Skip the slowest tests outside CI."""
    for item in items if os.environ.get("CI") != "true" else ():
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="takes long: CI=true has it run"))


@pytest.fixture(scope="session")
def toy() -> ImageData:
    return make_data()


@pytest.fixture(scope="session")
def toy_set(toy: ImageData) -> CondensedSet:
    """Three classes of 5 packed real images, factor 2."""
    return condense.real_set(toy, 5, 2, seed=0)


@pytest.fixture(scope="session")
def toy_dynamics(toy_set: CondensedSet) -> dynamics.Dynamics:
    return dynamics.record(toy_set, epochs=12, seed=0, width=8, precision="float32", progress=False)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")
