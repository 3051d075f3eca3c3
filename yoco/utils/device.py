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
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

from yoco.utils import checks

PRECISIONS = ("auto", "float32", "bfloat16")
# 32×32 images that pay for compiling a training step or a test; measured, docs/performance.md
WORTH = 25_000
# the same for a condensation step, which is differentiated twice and compiles for up to a minute
WORTH_TWICE = 300_000
MOST_COMPILED = 256  # networks and shapes for which a process compiles one function
TOOLS = "torch.utils.cpp_extension"  # torch's logger of compilers
Function = TypeVar("Function", bound=Callable)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


def choose(device: str | torch.device = "auto") -> torch.device:
    """Return the device: `auto` is CUDA, then MPS, then CPU; other values are torch's device names.

    Raises:
        TypeError: if `device` is neither a string nor a torch.device.
        ValueError: if torch does not know the name or this machine lacks the device.
    """
    if not isinstance(device, (str, torch.device)):
        raise TypeError(f"device must be a string or a torch.device, got {checks.shown(device)}")
    if device == "auto":
        mps = "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device("cuda" if torch.cuda.is_available() else mps)
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
    """Return whether `device` is a CUDA GPU.

    Such a device has its own generator and CUDA graphs, and the host should not wait for it.
    """
    return device.type == "cuda"


def take_share(number: int, processes: int) -> str:
    """Take this process's share of the machine as process `number` of `processes`.

    On a machine with GPUs, that is one GPU, which `auto` then chooses; otherwise it is an equal
    part of the threads, unless OMP_NUM_THREADS is set.

    Returns:
        The backend for torch.distributed.

    Raises:
        ValueError: if there are GPUs, but fewer than processes.
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


def resident(
    images: UInt8[Tensor, "images channels size size"], device: torch.device
) -> UInt8[Tensor, "images channels size size"]:
    """Return `images` on `device` if they take at most half of its free memory, else unchanged.

    In the second case the caller moves the parts that it needs.
    """
    if images.device == device or images.nbytes > _free(device) / 2:
        return images
    return images.to(device)


def _free(device: torch.device) -> float:
    """Return the free bytes of a GPU; infinity elsewhere, as images are in main memory already."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else float("inf")


def count(device: torch.device) -> int:
    """Return the number of GPUs of the kind of `device` on this machine; 1 for any other kind."""
    return max(1, torch.cuda.device_count()) if device.type == "cuda" else 1


def for_worker(device: torch.device, number: int) -> torch.device:
    """Return the device of worker process `number`, counted from 0.

    If `device` is a GPU without an index, the workers take the GPUs in turn; otherwise all of them
    use `device`.
    """
    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", number % count(device))


def environment(device: torch.device) -> dict[str, str]:
    """Return the environment variables of a program that should see only the GPU `device`.

    They are empty unless `device` is a GPU with an index.
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
        precision: "float32", "bfloat16" or "auto". "auto" takes the value of the environment
            variable `YOCO_PRECISION`. If that is unset or "auto" too, the choice is bfloat16 if the
            device is faster in it (see `cpu_gains_by_bfloat16`), else float32.
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
        # of this GPU: torch.cuda.is_bf16_supported asks the current one
        return "bfloat16" if torch.cuda.get_device_properties(device).major >= 8 else "float32"
    return "bfloat16" if device.type == "cpu" and cpu_gains_by_bfloat16() else "float32"


def cpu_gains_by_bfloat16() -> bool:
    """Return whether the processor multiplies faster in bfloat16 than in float32.

    It does with AMX, or with AVX512-BF16 on AMD; on Intel, AVX512-BF16 alone is slower than float32
    (docs/performance.md).
    """
    has = torch.cpu.get_capabilities()
    intel = str(has.get("cpu_name", "")).startswith("Intel")
    return bool(has.get("amx_bf16") or (has.get("avx512_bf16") and not intel))


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """Return a context in which convolutions and matrix products use bfloat16.

    Weights and losses stay float32. With precision "float32" the context does nothing.
    """
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def in_bfloat16(device: torch.device) -> bool:
    """Return whether this is inside `autocast` to bfloat16 on a CUDA GPU, and not compiled."""
    if not is_gpu(device) or torch.compiler.is_compiling():
        return False
    kind = device.type
    return torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.bfloat16


def can_compile(device: torch.device) -> bool:
    """Return whether torch.compile can work here.

    It needs a C++ compiler on the CPU, and compute capability 7.0 for Triton on CUDA.
    `YOCO_COMPILE=0` disables it.
    """
    if os.environ.get("YOCO_COMPILE", "1") == "0":
        return False
    if device.type == "cpu":
        return any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++")))
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0)


def worth_compiling(device: torch.device, images: int, size: int, worth: int = WORTH) -> bool:
    """Return whether `images` images of side `size` pay for compiling a step in this process.

    `worth` is the threshold in 32×32 images (see `WORTH`, `WORTH_TWICE`). On a GPU compiling never
    pays: CUDA graphs (see `graphs`) remove the launch overhead without a minute of compiling.
    """
    return device.type == "cpu" and can_compile(device) and images * size**2 >= worth * 32**2


def separate_cache() -> str:
    """Keep compiled code in one folder per instruction set, and return the folder.

    torch's own cache does not distinguish instruction sets: code from another processor that shares
    the folder, or compiled under `ATEN_CPU_CAPABILITY`, crashes the process. A folder given in
    `TORCHINDUCTOR_CACHE_DIR` is kept.
    """
    sets = torch.backends.cpu.get_cpu_capability(), os.environ.get("ONEDNN_MAX_CPU_ISA", "all")
    name = "-".join(("yoco-inductor", getpass.getuser(), *sets)).replace(" ", "_")
    given = os.environ.get("TORCHINDUCTOR_CACHE_DIR", "")
    # torch puts its own default folder there on first use
    if not given or os.path.basename(given).startswith("torchinductor_"):
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.path.join(tempfile.gettempdir(), name)
    return os.environ["TORCHINDUCTOR_CACHE_DIR"]


def compiled(function: Function) -> Function:
    """Return `function` through torch.compile; compilation does not depend on earlier calls.

    Which sizes are dynamic is marked by `for_compiled`; up to `MOST_COMPILED` networks and shapes
    are compiled. If torch fails to compile the function, it runs uncompiled from then on, with a
    warning.
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
            # Inductor occasionally generates C++ that does not compile
            except torch._dynamo.exc.BackendCompilerFailed as error:
                failed = True
                why = " ".join(str(error).split()[:20])
                warnings.warn(
                    f"torch could not compile {function.__name__} on this machine; it now runs "
                    f"uncompiled: {why}",
                    stacklevel=2,
                )
        return function(*arguments)

    return cast(Function, functools.wraps(function)(either))


@functools.cache
def compiled_once(function: Function) -> Function:
    """Return `compiled(function)`, the same for all networks that the function takes.

    The weights are its inputs, so a fresh network needs no compilation.
    """
    return compiled(function)


def _no_cuda_warning() -> None:
    """Silence what torch logs, here and in its compile workers, if CUDA is installed but no GPU."""
    logging.getLogger(TOOLS).setLevel(logging.ERROR)
    logs = os.environ.get("TORCH_LOGS", "")
    if TOOLS not in logs:
        os.environ["TORCH_LOGS"] = ",".join(filter(None, [logs, f"-{TOOLS}"]))


def for_compiled(
    images: Float[Tensor, "images channels size size"], *others: Shaped[Tensor, "images ..."]
) -> tuple[Shaped[Tensor, "images ..."], ...]:
    """Return a batch in the form for compiled functions: channels last, and with a dynamic length.

    Fused loops are vectorised over the channels. Thanks to the dynamic length, one compilation
    serves a smaller last batch and every other set.
    """
    batch = (images.contiguous(memory_format=torch.channels_last), *others)
    for tensor in batch:
        torch._dynamo.maybe_mark_dynamic(tensor, 0)
    return batch


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@functools.cache
def keep_memory(device: torch.device) -> None:
    """On a CPU, make glibc keep freed memory for the next step; on other devices do nothing.

    By default glibc returns every freed buffer of some megabytes to the kernel, which clears the
    pages again at the next step: a tenth to a quarter of a training step's time on a CPU.
    """
    if device.type != "cpu" or platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
    libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
