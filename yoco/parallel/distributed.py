"""Work over several processes started by torchrun: how it is divided and joined."""

import atexit
import contextlib
import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

from yoco.utils import device

# waiting time for a rank: a dead process is noticed at once, a vanished machine only after this
TIMEOUT = timedelta(minutes=10)
FOREVER = timedelta(days=365)
# set by torchrun or any launcher like it
STARTED_BY = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class LostRank(ConnectionError):
    """Another process has ended or does not answer, or torchrun ends this one for that reason."""


class _ToldToEnd(BaseException):
    """SIGTERM was received.

    Not an Exception, so that no handler on the way out mistakes it for an ordinary error.
    """


@dataclass(frozen=True)
class Ranks:
    """This process as number `rank` of the `size` that work on one thing.

    Every rank calls the same methods in the same order. Methods that wait for the others raise
    LostRank if one of them is gone. With a single process they cost nothing.

    group, patient: process groups of torch.distributed, with `TIMEOUT` and without one.
    """

    rank: int = 0
    size: int = 1
    group: Any = None
    patient: Any = None

    @property
    def first(self) -> bool:
        """Whether this is rank 0, the only one that writes, prints and watches the clock."""
        return self.rank == 0

    def part(self, count: int) -> range:
        """Return which of 0..count-1 (classes, for example) this rank takes: every `size`th.

        The range is empty for some ranks if count is below size.
        """
        return range(self.rank, count, self.size)

    @property
    def rows(self) -> slice:
        """The same as `part`, as a slice for the rows of a tensor."""
        return slice(self.rank, None, self.size)

    def sum(self, values: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
        """Return the sum of `values` over the ranks, bit-identical on all of them.

        `values` may be overwritten.
        """
        return self._together(dist.all_reduce, values, self.group)

    @torch.no_grad()
    def like_first(self, tensors: Sequence[Shaped[Tensor, "..."]]) -> None:
        """Give tensors of one dtype and device the values that they have on rank 0."""
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
        """Run `work` on rank 0 only and return its result, which is pickled, on every rank.

        An error of `work` is raised on every rank.
        """
        return work() if self.size == 1 else self._answer_of_first(work, self.group)

    def tensors_from_first(
        self, work: Callable[[], Mapping[str, Shaped[Tensor, "..."]]]
    ) -> dict[str, Shaped[Tensor, "..."]]:
        """As `from_first`, for named tensors, which arrive on the CPU."""
        return self.from_first(lambda: {name: part.detach().cpu() for name, part in work().items()})

    def after_first(self, work: Callable[[], Any]) -> Any:
        """Run `work` on rank 0 first, then on the others; each returns its own result.

        `work` may be a long download. Errors as `from_first`.
        """
        done: list[Any] = []
        if self.size > 1:
            self._answer_of_first(lambda: done.append(work()), self.patient)
        return done[0] if done else work()

    def meet(self) -> None:
        """Wait until all ranks are here, however long it takes."""
        self._together(dist.all_reduce, torch.zeros(1), self.patient)

    def check_alike(self, what: Mapping[str, Any]) -> None:
        """Raise ValueError on every rank unless `what` is the same on all of them."""
        differ = [
            f"{name}: {value!r} on rank 0, {what[name]!r} on rank {self.rank}"
            for name, value in self.from_first(lambda: dict(what)).items()
            if what[name] != value
        ]
        if self.sum(torch.tensor(len(differ))):
            raise ValueError(
                "all ranks must work on the same run, but they differ "
                f"({'; '.join(differ) or 'another rank reports how'})"
            )

    def _answer_of_first(self, work: Callable[[], Any], group: Any) -> Any:
        answer: list[Any] = [None]
        if self.first:
            try:
                answer = [(work(), None)]
            except Exception as error:  # without an answer, the others would wait forever
                known = type(error).__module__ == "builtins"  # others need not survive pickling
                answer = [(None, error if known else RuntimeError(repr(error)))]
        with self._all_there():
            dist.broadcast_object_list(answer, src=0, group=group, device=torch.device("cpu"))
        result, failed = answer[0]
        if failed is not None:
            raise failed
        return result

    def _together(
        self, operation: Callable[..., Any], values: Tensor, group: Any, **options: int
    ) -> Tensor:
        """Return the result of a collective operation on `values`, which may be overwritten."""
        if self.size == 1:
            return values
        # gloo supports no other devices, and writes out of bounds if values overlap in memory
        carried = (values if values.is_cuda else values.cpu()).contiguous()
        with self._all_there():
            # NCCL would wait for a dead rank without handling signals: gloo first checks that all
            # are there
            if values.is_cuda:
                dist.all_reduce(torch.zeros(1), group=group)
            operation(carried, group=group, **options)
        return carried.to(values.device)

    @contextlib.contextmanager
    def _all_there(self) -> Iterator[None]:
        """Raise LostRank if a collective operation in the block fails."""
        try:
            yield
        except RuntimeError as error:
            other = f"rank {1 - self.rank}" if self.size == 2 else "another rank"
            # what follows gloo's source location
            reason = str(error).split("] ", 1)[-1].split(". ")[0]
            raise LostRank(
                f"rank {self.rank} of {self.size} has lost {other} ({reason})"
            ) from error


ALONE = Ranks()


def started() -> bool:
    """Return whether torchrun started this process as one of several, by its environment."""
    return (
        dist.is_available()
        and all(name in os.environ for name in STARTED_BY)
        and int(os.environ["WORLD_SIZE"]) > 1
    )


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that torchrun started (`ALONE` if it did not); all must call this.

    Raises LostRank if a rank does not join, and on SIGTERM, with which torchrun ends the others
    when it loses one.
    """
    if not started():
        yield ALONE
        return
    with _told_to_end():
        yield _come_together()


@functools.cache
def _come_together() -> Ranks:
    """Return the ranks, which stay together until the process ends.

    They cannot join a second time, since the store would hold the addresses of the first time. They
    communicate by gloo, and by NCCL for tensors on GPUs. An existing process group is used and left
    to its creator.
    """
    local = [
        int(os.environ.get(name, default))
        for name, default in (("LOCAL_RANK", 0), ("LOCAL_WORLD_SIZE", 1))
    ]
    backend = device.take_share(*local)
    try:
        if not dist.is_initialized():
            store, rank, size = next(dist.rendezvous("env://", timeout=TIMEOUT))
            # torchrun keeps the store across restarts
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
            f"the {os.environ['WORLD_SIZE']} ranks did not all connect: "
            f"{str(error).splitlines()[0]}"
        ) from error
    return Ranks(dist.get_rank(), dist.get_world_size(), *groups)


@contextlib.contextmanager
def _told_to_end() -> Iterator[None]:
    """Inside the block, turn SIGTERM into a LostRank, so that locks and files are cleaned up.

    After a loss SIGTERM is ignored: the process is ending and still has an error to report.
    """
    if threading.current_thread() is not threading.main_thread():  # only this one may set handlers
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
            f"{me} received SIGTERM, which torchrun sends when another rank is lost"
        ) from None
    finally:
        signal.signal(signal.SIGTERM, before)
