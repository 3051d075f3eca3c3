"""What the ranks of tests/parallel/test_distributed.py do: the jobs in FOLDER/jobs.json, in order.

`torchrun … -m tests.parallel.torchrun FOLDER` is one rank. `python -m tests.parallel.torchrun`
plays torchrun's part: for every line "RANKS FOLDER" that it reads, it forks that many ranks and
answers with their exit statuses. It imports everything once (each rank would take seconds for this)
and computes nothing.

A job condenses by "method" and leaves the set in FOLDER/NAME.safetensors, and what a rank saw in
FOLDER/NAME-RANK.json. Its other values are arguments of `condense`, except "drift" (rank 1's
networks train to other weights, by far more than rounding), "signal" ([rank, step, signal]: sent by
that rank to itself there) and "of_rank" (arguments of one rank only). A job with "cli" calls the
command line instead.
"""

import contextlib
import json
import os
import signal
import socket
import sys
from pathlib import Path
from unittest import mock

import torch

from tests.conftest import HUNG, make_data
from yoco import cli, condense
from yoco.condense.idc import GradientMatching
from yoco.parallel import distributed
from yoco.training import resumable
from yoco.utils import tensor_files


def me() -> int:
    return int(os.environ.get("RANK", 0))


def patched(method, drift, sent, seen):
    """The method's steps and trainings, changed as a job asks.

    `seen` receives the network's checksum whenever it is matched.
    """
    stepper, changed = condense.METHODS[method].stepper, contextlib.ExitStack()
    step, gradient, train = (
        stepper.step,
        getattr(stepper, "image_gradient", None),
        GradientMatching._train_network,
    )

    def signalling(self, number):
        if sent and sent[:2] == [me(), number]:
            os.kill(os.getpid(), sent[2])
        return step(self, number)

    def noting(self):
        seen.append(
            tensor_files.checksum(
                torch.cat([parameter.flatten() for parameter in self.model.parameters()])
            )
        )
        return gradient(self)

    def drifting(self, *arguments, **options):
        train(self, *arguments, **options)
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.add_(0.1 * me())

    changed.enter_context(mock.patch.object(stepper, "step", signalling))
    if gradient:
        changed.enter_context(mock.patch.object(stepper, "image_gradient", noting))
    if drift:
        changed.enter_context(mock.patch.object(GradientMatching, "_train_network", drifting))
    return changed


def do(folder, name, method, drift=False, signal=None, of_rank=None, **arguments):
    """Do one job and return the set."""
    arguments |= (of_rank or {}).get(str(me()), {})
    if "checkpoint" in arguments:
        arguments["checkpoint"] = folder / arguments["checkpoint"]
    seen, looks, made = [], [], None
    try:
        with patched(method, drift, signal, seen):
            made = condense.condense(
                make_data(),
                method,
                preset="smoke",
                precision="float32",
                watch=looks.append,
                progress=False,
                **arguments,
            )
        said = {
            "networks": seen,
            "info": made.info,
            "looks": len(looks),
            "images": tensor_files.checksum(made.images),
        }
        if me() == 0:
            made.save(folder / f"{name}.safetensors")
    except ValueError as error:
        said = {"error": str(error)}
    (folder / f"{name}-{me()}.json").write_text(json.dumps(said))
    return made


def rank(folder: Path) -> int:
    """Do all jobs and return the exit status."""
    resumable.SAVE_EVERY = 0.0
    torch.set_num_threads(1)
    try:
        for job in json.loads((folder / "jobs.json").read_text()):
            if "cli" in job:
                return cli.main(job["cli"])
            do(folder, **job)
    except distributed.LostRank as error:
        print("LOST", error, file=sys.stderr)
        return 1
    return 0


def forked(number: int, count: int, port: int, folder: Path) -> int:
    """Start a rank in a process of its own and return its pid.

    It writes its output to FOLDER/said-NUMBER.
    """
    pid = os.fork()
    if pid:
        return pid
    os.environ |= {
        "RANK": str(number),
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    said = os.open(folder / f"said-{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    status = 99
    try:
        status = rank(folder)
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit(rank(Path(sys.argv[1])))
    import sklearn.datasets  # noqa: F401
    import torch._dynamo

    signal.alarm(HUNG)
    for line in sys.stdin:
        count, folder = line.split()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        pids = [forked(number, int(count), port, Path(folder)) for number in range(int(count))]
        print(
            json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]),
            flush=True,
        )
    os._exit(0)  # at once: tearing all modules down takes seconds
