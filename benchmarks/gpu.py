"""Everything that is to be measured on a GPU, in calls of a few minutes that continue each other.

    python -m benchmarks.gpu --minutes 9 --out DIR --data PACKED     # repeat until all is done

PACKED is a folder of `benchmarks.mosaic`, or the name of a dataset. DIR holds at most 8 files of at
most 16 MiB each: `report.json` with every result so far, and pieces of an archive (see
`packed_folder`) with sets, results, checkpoints and networks. Each stage has a process of its own,
which is killed at the end of the time; a stage that fails is told in the report, and the others go
on. docs/scale.md has the order.
"""

import argparse
import importlib
import json
import multiprocessing
import time
import traceback
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks import gpu_job, gpu_stages
from benchmarks.gpu_job import Job, Stage
from benchmarks.gpu_plan import PLANS
from yoco.selfcheck import machine
from yoco.utils import device as devices
from yoco.utils import tensor_files

REPORT = "report.json"
AT_THE_END = 25.0  # seconds kept for packing
GRACE = 10.0  # seconds that a stage may take beyond its time before it is killed
# what stages import late, in seconds each
LATE = ("pandas", "sklearn.cluster")
# a child has what this process has imported and loaded; this process never uses a GPU
FORK = multiprocessing.get_context("fork")
THREADS = torch.get_num_threads()


def read(out: Path) -> dict[str, Any]:
    """Return the report of earlier calls."""
    path = out / REPORT
    return json.loads(path.read_text()) if path.exists() else {"machines": [], "stages": {}}


def write(out: Path, report: dict[str, Any]) -> None:
    tensor_files.write_text(out / REPORT, json.dumps(report, indent=1) + "\n")


def apart(work: Callable[[Job], Any], job: Job, seconds: float) -> dict[str, Any]:
    """Do `work` in a process of its own and return its result, its error, or neither.

    seconds: time after which it is killed.
    """
    receiver, sender = FORK.Pipe(duplex=False)
    child = FORK.Process(target=_answer, args=(work, job, sender))
    child.start()
    sender.close()
    answer: dict[str, Any] = {}
    try:
        if receiver.poll(seconds):
            answer = receiver.recv()
            child.join(GRACE)  # it still has to print
    except EOFError:
        child.join()
        answer = {"error": f"the process ended with status {child.exitcode}"}
    child.kill()
    child.join()
    return answer


def _answer(work: Callable[[Job], Any], job: Job, sender: Any) -> None:
    torch.set_num_threads(THREADS)
    try:
        sender.send({"result": work(job)})
    except BaseException:
        sender.send({"error": traceback.format_exc()})


def run(job: Job, stages: list[Stage]) -> bool:
    """Do the stages that are not done yet, as far as the time goes; return whether all are done."""
    report = read(job.out)
    told = _of_call(lambda job: machine.described(devices.choose(job.device)), job, 60.0)
    if told not in report["machines"]:
        report["machines"].append(told)
    write(job.out, report)
    if _of_call(Job.unpack, job, job.left()) is None:
        print("the files of earlier calls cannot be unpacked: nothing was done or replaced")
        return False
    for stage in stages:
        entry = report["stages"].setdefault(stage.name, {"seconds": 0.0})
        ready = all("result" in report["stages"].get(name, {}) for name in stage.needs)
        if "result" in entry or not ready or job.left() < stage.least:
            continue
        print(f"\n{stage.name}: {job.left():.0f} s are left", flush=True)
        began = time.monotonic()
        answer = apart(stage.work, job, job.left() + GRACE)
        _sweep(job.work)
        packed = _of_call(Job.pack, job, AT_THE_END)
        if packed is None:  # its files are lost: the next call repeats it
            answer = {"error": answer.get("error", "its files could not be packed")}
        report["stages"][stage.name] = _after(entry, answer, time.monotonic() - began)
        write(job.out, report)
    return all("result" in report["stages"].get(stage.name, {}) for stage in stages)


def _of_call(work: Callable[[Job], Any], job: Job, seconds: float) -> Any:
    """Do what every call does once, and return its result; an error is only told."""
    answer = apart(work, job, seconds)
    if "error" in answer:
        print(answer["error"], flush=True)
    return answer.get("result")


def _after(entry: dict[str, Any], answer: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Return a stage's entry in the report after one more attempt."""
    found = {"seconds": round(entry["seconds"] + seconds, 1)}
    if answer.get("result") is not None:
        return {**found, "result": answer["result"]}
    if "error" in answer:
        print(answer["error"], flush=True)
        return {**found, "error": answer["error"]}
    return found


def _sweep(folder: Path) -> None:
    """Remove locks and temporary files of a stage that was killed."""
    for ending in ("part", "lock", "holder"):
        for path in folder.glob(f".*.{ending}"):
            path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--plan", choices=PLANS, default="cifar10", help='"tiny" rehearses on a CPU'
    )
    parser.add_argument("--only", nargs="+", default=["*"], help='stages: "flat*" "idc*", say')
    options = parser.parse_args()
    plan, end = PLANS[options.plan], time.monotonic() + 60 * options.minutes
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # a process with threads cannot be forked
    for name in LATE:
        importlib.import_module(name)
    real = gpu_job.load(options.data, (r.given for r in plan.recipes.values() if r.given))
    with TemporaryDirectory() as scratch:
        job = Job(options.out, Path(scratch), real, options.device, plan, end - AT_THE_END)
        wanted = [
            stage
            for stage in gpu_stages.stages(plan)
            if any(fnmatch(stage.name, pattern) for pattern in options.only)
        ]
        done = run(job, wanted)
    print("\nall is done" if done else "\nnot all is done: call again with the same folder")


if __name__ == "__main__":
    main()
