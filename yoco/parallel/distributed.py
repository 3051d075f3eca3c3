"""Work over several processes that torchrun started: who takes which part, and how the parts come
together.
"""

import atexit
import contextlib
import functools
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load, save
from torch import Tensor

from yoco.utils import device

# that a rank is waited for; one that dies is noticed at once, one whose machine vanishes only so
TIMEOUT = timedelta(minutes=10)
FOREVER = timedelta(days=365)
# what torchrun, or whoever does its work, sets
STARTED_BY = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
ERRORS = {
    kind.__name__: kind
    for kind in (
        ValueError,
        TypeError,
        OSError,
        FileNotFoundError,
        PermissionError,
        BlockingIOError,
        FloatingPointError,
        MemoryError,
    )
}


class LostRank(ConnectionError):
    """Another of the processes has ended or does not answer, or torchrun ends this one because of
    that.
    """


class _ToldToEnd(BaseException):
    """SIGTERM came.

    No Exception, so that nothing on the way out takes it for an error of its own.
    """


@dataclass(frozen=True)
class Ranks:
    """This process, number `rank` of the `size` that work on one thing.

    Each calls the same methods in the same order.

    The methods that wait for the others raise LostRank where one of them is gone. Of one process
    alone they cost nothing. group, patient: torch.distributed's, with `TIMEOUT` and without one.
    """

    rank: int = 0
    size: int = 1
    group: Any = None
    patient: Any = None

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which alone writes, prints and watches the clock."""
        return self.rank == 0

    def part(self, count: int) -> range:
        """Which of 0..count-1 (classes, say) this rank takes: every `size`th.

        None, where there are fewer than ranks.
        """
        return range(self.rank, count, self.size)

    @property
    def rows(self) -> slice:
        """The same as `part`, of the rows of a tensor."""
        return slice(self.rank, None, self.size)

    def sum(self, values: Tensor) -> Tensor:
        """`values` added up over the ranks, the same bits on all of them.

        `values` may be written over.
        """
        return self._together(dist.all_reduce, values, self.group)

    @torch.no_grad()
    def like_first(self, tensors: Sequence[Tensor]) -> None:
        """Give tensors of one type and device the values that they have on rank 0, to the bit."""
        if self.size > 1:
            flat = self._together(
                dist.broadcast,
                torch.cat([tensor.flatten() for tensor in tensors]),
                self.group,
                src=0,
            )
            for tensor, values in zip(tensors, flat.split([tensor.numel() for tensor in tensors])):
                tensor.copy_(values.view(tensor.shape))

    def from_first(self, work: Callable[[], Any]) -> Any:
        """What `work` gives on rank 0, where alone it is done: something that JSON can hold.

        Its error is raised on every rank.
        """
        return (
            work()
            if self.size == 1
            else json.loads(self._bytes_from_first(lambda: json.dumps(work()).encode(), self.group))
        )

    def tensors_from_first(self, work: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """As `from_first`, of named tensors, which come to the CPU."""
        if self.size == 1:
            return dict(work())
        packed = lambda: save(
            {name: tensor.detach().cpu().contiguous() for name, tensor in work().items()}
        )
        return load(self._bytes_from_first(packed, self.group))

    def after_first(self, work: Callable[[], Any]) -> Any:
        """What `work` gives here, done by rank 0 alone before the others do it: it may be a
        download, and long. Errors as `from_first`.
        """
        done: list[Any] = []

        def keep() -> bytes:
            done.append(work())
            return b""

        if self.size > 1:
            self._bytes_from_first(keep, self.patient)
        return done[0] if done else work()

    def meet(self) -> None:
        """Wait until all ranks are here, however long that is."""
        self._together(dist.all_reduce, torch.zeros(1), self.patient)

    def check_alike(self, what: Mapping[str, Any]) -> None:
        """Raise ValueError, on every rank, unless `what`, of values that JSON can hold, is the same
        on all.
        """
        if self.size == 1:
            return
        expected, here = self.from_first(lambda: dict(what)), json.loads(json.dumps(dict(what)))
        differ = [
            f"{name}: {value!r} on rank 0, {here[name]!r} on rank {self.rank}"
            for name, value in expected.items()
            if here[name] != value
        ]
        if self.sum(torch.tensor(len(differ))):
            raise ValueError(
                "all ranks must work on the same run, but they differ "
                f"({'; '.join(differ) or 'another rank says in what'})"
            )

    def _bytes_from_first(self, work: Callable[[], bytes], group: Any) -> bytes:
        error, sent = None, b""
        if self.first:
            try:
                sent = work()
            except Exception as caught:  # whatever it is, the others would wait for ever
                error, sent = caught, json.dumps([type(caught).__name__, str(caught)]).encode()
        said = torch.tensor([error is not None, len(sent)], dtype=torch.long)
        failed, length = self._together(dist.broadcast, said, group, src=0).tolist()
        message = (
            torch.frombuffer(bytearray(sent), dtype=torch.uint8)
            if sent
            else torch.empty(length, dtype=torch.uint8)
        )
        if length:
            message = self._together(dist.broadcast, message, group, src=0)
        if error is not None:
            raise error
        if failed:
            kind, text = json.loads(message.numpy().tobytes())
            raise ERRORS.get(kind, RuntimeError)(text)
        return message.numpy().tobytes()

    def _together(
        self, operation: Callable[..., Any], values: Tensor, group: Any, **options: int
    ) -> Tensor:
        """What a collective operation makes of `values`, which may be written over."""
        if self.size == 1:
            return values
        # gloo knows no other devices, and writes beyond a tensor whose values lie over each other
        carried = (values if values.is_cuda else values.cpu()).contiguous()
        try:
            # NCCL would wait for a dead rank where no signal is heard: gloo looks first who is
            # there
            if values.is_cuda:
                dist.all_reduce(torch.zeros(1), group=group)
            operation(carried, group=group, **options)
        except RuntimeError as error:
            other = f"rank {1 - self.rank}" if self.size == 2 else "another rank"
            # behind gloo's place in its source
            reason = str(error).split("] ", 1)[-1].split(". ")[0]
            raise LostRank(
                f"rank {self.rank} of {self.size} has lost {other} ({reason})"
            ) from error
        return carried.to(values.device)


ALONE = Ranks()


def started() -> bool:
    """Whether this process is one of several that torchrun started, by its environment."""
    return (
        dist.is_available()
        and all(name in os.environ for name in STARTED_BY)
        and int(os.environ["WORLD_SIZE"]) > 1
    )


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """Inside, this process is one of those that torchrun started (`ALONE`, where it did not): they
    must all come here.

    Raises LostRank where a rank does not come, and where SIGTERM does: torchrun ends the others by
    it when it loses one.
    """
    if not started():
        yield ALONE
        return
    with _told_to_end():
        yield _come_together()


@functools.cache
def _come_together() -> Ranks:
    """The ranks, who stay together until the process ends: a second time, the addresses of the
    first would be in the store.

    They talk by gloo, and about tensors on GPUs by NCCL. A process group that is there already is
    left to who made it.
    """
    local = [
        int(os.environ.get(name, default))
        for name, default in (("LOCAL_RANK", 0), ("LOCAL_WORLD_SIZE", 1))
    ]
    backend = device.take_share(*local)
    try:
        if not dist.is_initialized():
            store, rank, size = next(dist.rendezvous("env://", timeout=TIMEOUT))
            # torchrun keeps it over its restarts
            fresh = dist.PrefixStore(
                f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT')}", store
            )
            dist.init_process_group(
                backend, timeout=TIMEOUT, store=fresh, rank=rank, world_size=size
            )
            atexit.register(dist.destroy_process_group)
        groups = [
            dist.new_group(backend=kind, timeout=time)
            for kind, time in ((backend, TIMEOUT), ("gloo", FOREVER))
        ]
    except RuntimeError as error:
        raise LostRank(
            f"the {os.environ['WORLD_SIZE']} ranks did not come together: "
            f"{str(error).splitlines()[0]}"
        ) from error
    return Ranks(dist.get_rank(), dist.get_world_size(), *groups)


@contextlib.contextmanager
def _told_to_end() -> Iterator[None]:
    """Inside, SIGTERM ends the work by a LostRank, so that locks are let go and temporary files
    removed on the way out.

    After a loss SIGTERM is ignored: the process is ending, and has something to say yet.
    """
    if threading.current_thread() is not threading.main_thread():  # only that one may set handlers
        yield
        return

    def told(*_: Any) -> None:
        raise _ToldToEnd

    before = signal.signal(signal.SIGTERM, told)
    try:
        yield
    except (_ToldToEnd, LostRank) as end:
        before = signal.SIG_IGN
        if isinstance(end, LostRank):
            raise
        me = f"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']}"
        raise LostRank(
            f"{me} was told to end (SIGTERM), as torchrun does when another rank is lost"
        ) from None
    finally:
        signal.signal(signal.SIGTERM, before)
