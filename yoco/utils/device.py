"""The one place that chooses a device, a precision, and whether to compile."""

import contextlib
import ctypes
import functools
import getpass
import logging
import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from yoco.utils import checks

PRECISIONS = ("auto", "float32", "bfloat16")
# images at 32×32 that pay for compiling a training step, or a test; measured, see README, "What it
# costs"
WORTH = 25_000
# the same for a step of condensation, differentiated twice, which compiles for up to a minute
WORTH_TWICE = 300_000
MOST_COMPILED = 256  # networks and shapes that one function is compiled for in a process
TOOLS = "torch.utils.cpp_extension"  # torch's logger of compilers
Function = TypeVar("Function", bound=Callable)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


def choose(device: str | torch.device = "auto") -> torch.device:
    """`auto` is CUDA, then MPS, then CPU; anything else is taken as torch spells it.

    Raises TypeError if it is no device, ValueError if torch knows none of that name, or this
    machine has it not.
    """
    if isinstance(device, torch.device) or device != "auto":
        return _usable(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _usable(device: str | torch.device) -> torch.device:
    if not isinstance(device, (str, torch.device)):
        raise TypeError(f"device must be a string or a torch.device, got {checks.shown(device)}")
    try:
        where = torch.device(device)
        torch.zeros(1, device=where).item()  # "meta" has no values; a GPU may be missing
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = " ".join(str(error).split()[:12])
        allowed = "auto, cpu, or a GPU of this machine as torch names it"
        raise ValueError(
            f"device={str(device)!r} cannot be used here ({why}); allowed: {allowed}"
        ) from error
    return where


def is_gpu(device: torch.device) -> bool:
    """Return whether `device` is a CUDA GPU: one with a generator of its own, CUDA graphs, and a
    host that should not wait for it.
    """
    return device.type == "cuda"


def take_share(number: int, processes: int) -> str:
    """Take this process's share of the machine, it being `number` of so many `processes` here: a
    GPU of its own, which is what `auto` comes to, or threads, unless OMP_NUM_THREADS says how many.
    Returns what torch.distributed is to talk by.

    Raises ValueError if there are GPUs, but too few of them.
    """
    if not torch.cuda.is_available():
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, torch.get_num_threads() // processes))
        return "gloo"
    if processes > torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(
            f"--nproc-per-node must be at most {count}, the GPUs of this machine, got {processes} "
            "(CUDA_VISIBLE_DEVICES= works on CPUs)"
        )
    torch.cuda.set_device(number)
    return "cpu:gloo,cuda:nccl"


def resident(images: Tensor, device: torch.device) -> Tensor:
    """`images` on `device` if they leave half of its free memory, else as they are: their user
    moves what it needs.
    """
    if images.device == device or images.nbytes > _free(device) / 2:
        return images
    return images.to(device)


def _free(device: torch.device) -> float:
    """Free bytes of a GPU of its own memory; elsewhere the machine's own, which images are in
    already.
    """
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else float("inf")


def count(device: torch.device) -> int:
    """GPUs of the kind of `device` on this machine; one of any other kind."""
    return max(1, torch.cuda.device_count()) if device.type == "cuda" else 1


def for_worker(device: torch.device, number: int, there: int | None = None) -> torch.device:
    """The device of worker process `number`, from 0: the GPUs in turn where `device` is a GPU
    without a number of its own, else `device`. there: GPUs of this machine (None: counted).
    """
    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", number % (count(device) if there is None else there))


def environment(device: torch.device) -> dict[str, str]:
    """Environment variables of a program that should see no GPU but `device`, where that has a
    number; else none.
    """
    if device.type != "cuda" or device.index is None:
        return {}
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return {
        "CUDA_VISIBLE_DEVICES": seen[device.index]
        if device.index < len(seen) and seen[0]
        else str(device.index)
    }


def choose_precision(precision: str, device: torch.device) -> str:
    """Return "float32" or "bfloat16" for convolutions and matrix products on `device`.

    Args:
        precision: "float32", "bfloat16", or "auto": what the environment variable `YOCO_PRECISION`
            says; if it is not set, or "auto" itself, bfloat16 if the processor multiplies in it
            (CUDA, or a CPU with AVX512-BF16), else float32. bfloat16 also runs on a CPU without
            these instructions, but slowly.
        device: where the work will be done.

    Raises:
        TypeError: if `precision` is not a string.
        ValueError: if `precision` or `YOCO_PRECISION` is not one of `PRECISIONS`.
    """
    if checks.one_of("precision", precision, PRECISIONS) == "auto":
        precision = checks.one_of(
            "YOCO_PRECISION", os.environ.get("YOCO_PRECISION", "auto"), PRECISIONS
        )
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    # torch has no public question for it
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bfloat16" if device.type == "cpu" and has_bf16() else "float32"


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """bf16 for convolutions and matrix products; weights and losses stay float32."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile can work here: it needs a C++ compiler on the CPU, Triton on CUDA.

    `YOCO_COMPILE=0` says no.
    """
    if os.environ.get("YOCO_COMPILE", "1") == "0":
        return False
    if device.type == "cpu":
        return any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++")))
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0)


def worth_compiling(device: torch.device, images: int, size: int, worth: int = WORTH) -> bool:
    """Whether work on `images` images of side `size` in one process pays for compiling its step
    (see `WORTH`, `WORTH_TWICE`).

    On a GPU it never does: CUDA graphs (see `graphs`) take the launches away without a minute of
    compiling.
    """
    return device.type == "cpu" and can_compile(device) and images * size**2 >= worth * 32**2


def separate_cache() -> str:
    """Keep compiled code apart by instruction set, unless `TORCHINDUCTOR_CACHE_DIR` names a folder;
    returns the folder.

    torch's own cache does not tell the sets apart: code from another processor that shares the
    folder, or compiled under `ATEN_CPU_CAPABILITY`, crashes the process.
    """
    sets = torch.backends.cpu.get_cpu_capability(), os.environ.get("ONEDNN_MAX_CPU_ISA", "all")
    name = "-".join(("yoco-inductor", getpass.getuser(), *sets)).replace(" ", "_")
    given = os.environ.get("TORCHINDUCTOR_CACHE_DIR", "")
    # torch sets its own folder there when it is first asked
    if not given or os.path.basename(given).startswith("torchinductor_"):
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.path.join(tempfile.gettempdir(), name)
    return os.environ["TORCHINDUCTOR_CACHE_DIR"]


def compiled(function: Function) -> Function:
    """`function` through torch.compile, each network and shape as if it were the process's first:
    what ran before decides neither which sizes are left open (see `for_compiled`) nor, up to
    `MOST_COMPILED`, whether it is compiled at all.

    Where torch cannot compile it, it runs as it is written from then on, with a warning.
    """
    separate_cache()
    _no_cuda_warning()
    fast = torch._dynamo.config.patch(recompile_limit=MOST_COMPILED)(
        torch.compile(function, dynamic=False)
    )
    failed = False

    def either(*arguments: Any) -> Any:
        nonlocal failed
        if not failed:
            try:
                return fast(*arguments)
            # Inductor writes C++ that does not compile, now and then
            except torch._dynamo.exc.BackendCompilerFailed as error:
                failed = True
                why = " ".join(str(error).split()[:20])
                warnings.warn(
                    (
                        f"torch could not compile {function.__name__} on this machine, which now "
                        "runs "
                        f"uncompiled: {why}"
                    ),
                    stacklevel=2,
                )
        return function(*arguments)

    return cast(Function, functools.wraps(function)(either))


def _no_cuda_warning() -> None:
    """Silence what torch logs, here and in its compile workers, if CUDA is installed but no GPU."""
    logging.getLogger(TOOLS).setLevel(logging.ERROR)
    logs = os.environ.get("TORCH_LOGS", "")
    if TOOLS not in logs:
        os.environ["TORCH_LOGS"] = ",".join(filter(None, [logs, f"-{TOOLS}"]))


def for_compiled(images: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """A batch as compiled functions take it: channels last, over which their fused loops are
    vectorised, and of any length, so that one compilation serves the smaller last batch and every
    other set as well.
    """
    batch = (images.contiguous(memory_format=torch.channels_last), *others)
    for tensor in batch:
        torch._dynamo.maybe_mark_dynamic(tensor, 0)
    return batch


@functools.cache
def keep_memory(device: torch.device) -> None:
    """On a CPU, have glibc keep freed memory for the next step; elsewhere nothing happens.

    By default it hands every freed buffer of megabytes back to the kernel, which clears its pages
    again at the next step: a tenth to a quarter of the time of a training step on a CPU.
    """
    if device.type != "cpu" or platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
    libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
