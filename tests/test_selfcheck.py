"""`yoco selfcheck`: right here, wrong if a computation is, and without what a GPU machine lacks."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from yoco import cli, condense
from yoco.selfcheck import checks, expected, machine, report, speed
from yoco.training.sgd import MomentumSGD
from yoco.utils import seeds

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
SLOW = ("condense kip", "condense idc, as used", "evaluate, as used", "evaluate two, as used")
# a bare GPU machine has torch, torchvision, numpy, pandas, scikit-learn, matplotlib and what these
# need, and of yoco's other dependencies einops, filelock, jaxtyping and lazy_loader
MISSING = (
    "pydantic",
    "loky",
    "papermill",
    "ipywidgets",
    "ipykernel",
    "IPython",
    "jupyterlab",
    "distributed",
    "hypothesis",
)
BARE = f"""
import sys

from importlib.machinery import PathFinder

class Found(PathFinder):
    @classmethod
    def find_spec(cls, name, *where):
        return None if name.split(".")[0] in {MISSING} else super().find_spec(name, *where)

sys.meta_path[sys.meta_path.index(PathFinder)] = Found
"""


def only(monkeypatch, *names):
    monkeypatch.setattr(checks, "CHECKS", {name: checks.CHECKS[name] for name in names})


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in checks.CHECKS],
)
def test_this_machine_computes_what_is_stored(name, monkeypatch):
    only(monkeypatch, name)
    found = list(report.results(CPU))
    assert found and all(result.right for result in found), "\n".join(map(str, found))


def test_every_method_and_every_result_is_checked():
    assert set(checks.STEPS) == set(condense.METHODS)
    known = expected.load()
    assert {name: set(parts) for name, parts in known.items()} == {
        name: set(check.rules) for name, check in checks.CHECKS.items()
    }


def test_a_wrong_computation_is_found_and_the_others_go_on(monkeypatch, capsys):
    """An optimiser that forgets its momentum, and one check that raises an error."""
    only(monkeypatch, "condense kip", "dynamics", "condense ncfm")
    monkeypatch.setattr(speed, "WORK", {})
    step = MomentumSGD.step

    def forgetful(self):
        step(self)
        for momentum in self.momenta:
            momentum.zero_()

    def failing(device):
        raise RuntimeError("an illegal memory access")

    monkeypatch.setattr(MomentumSGD, "step", forgetful)
    monkeypatch.setitem(checks.CHECKS, "condense kip", checks.Check(failing, {}))
    assert cli.main(["selfcheck", "--device", "cpu"]) == 1
    told = capsys.readouterr().out
    assert "condense kip                         nan" in told and "an illegal memory access" in told
    assert told.count("FAILED") == 5 and told.endswith("\n0 of 5 results are right\n")


@pytest.mark.parametrize(
    "got, right", [([1.0, 2.0], True), ([1.0, 2.1], False), ([1.0, float("nan")], False)]
)
def test_a_deviation_is_judged(got, right):
    deviation = checks.relative(torch.tensor(got), torch.tensor([1.0, 2.0]))
    assert report.Result("a", deviation, 0.002, 1.0).right == right


def test_what_is_kept_is_compared_as_sets():
    kept = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    assert checks.exchanged(kept.flip(1), kept) == 0
    assert checks.exchanged(torch.tensor([[1, 2, 3, 9], [5, 6, 0, 9]]), kept) == 0.5


def test_the_report_names_machine_and_versions(monkeypatch, capsys):
    only(monkeypatch, "condense dsa")
    monkeypatch.setattr(speed, "WORK", {"nothing": lambda device, compiled: lambda: None})
    assert cli.main(["selfcheck", "--device", "cpu"]) == 0
    told = capsys.readouterr().out
    for part in ("device: cpu, precision: ", "instructions: ", f"torch: {torch.__version__}"):
        assert part in told
    assert "condense dsa: images" in told and "nothing: 0.000 s" in told
    assert told.endswith("1 of 1 results are right\n")
    assert cli.main(["selfcheck", "--device", "cuda:99"]) == 2


def test_a_machine_says_what_its_processor_can(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    told = machine.described(CPU)
    assert (told["instructions"], told["bfloat16"]) == ("AVX2", False) and "gpu" not in told


def test_only_quick_work_is_timed_after_a_first_run(monkeypatch):
    taken = iter([5.0, 1.0, 2.0, 3.0])
    monkeypatch.setattr(speed, "timed", lambda work, device: next(taken))
    monkeypatch.setattr(speed, "WORK", {"work": lambda device, compiled: None})
    monkeypatch.setattr(speed.time, "monotonic", iter(range(0, 100, 9)).__next__)
    assert speed.seconds("work", CPU, patience=8.0) == 5.0
    assert speed.seconds("work", CPU, patience=30.0, most=2) == 2.5


def test_inside_drawn_on_host_a_gpu_draws_from_the_cpu():
    gpu, source = torch.device("cuda:0"), seeds.generator(0)
    with seeds.drawn_on_host():
        assert seeds.for_device(source, gpu) is source
    assert seeds.for_device(source, CPU) is source


@pytest.mark.slow
def test_it_runs_without_what_a_gpu_machine_lacks():
    code = f"""{BARE}
import functools
from yoco import cli
from yoco.selfcheck import checks, speed

few = ("condense ncfm", "condense mtt", "dynamics", "evaluate")
checks.CHECKS = {{name: checks.CHECKS[name] for name in few}}
speed.WORK = {{"train_40": functools.partial(speed.training, per_class=4, epochs=1)}}
sys.exit(cli.main(["selfcheck", "--device", "cpu"]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "train_40: " in done.stdout
