"""The one place that chooses a device, a precision, and whether to compile."""

import contextlib
import os
import shutil

import torch

from yoco import checks

PRECISIONS = ("auto", "float32", "bfloat16")


def choose(device: str | torch.device = "auto") -> torch.device:
    """`auto` is CUDA, then MPS, then CPU; anything else is taken as torch spells it."""
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_precision(precision: str, device: torch.device) -> str:
    """`auto` is bfloat16 where the processor multiplies in it (CUDA, or a CPU with AVX512-BF16), else float32."""
    checks.one_of("precision", precision, PRECISIONS)
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)  # torch has no public question for it
    return "bfloat16" if device.type == "cpu" and has_bf16() else "float32"


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """bf16 for convolutions and matrix products; weights and losses stay float32."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile can work here: it needs a C++ compiler on the CPU, Triton on CUDA. `YOCO_COMPILE=0` says no."""
    if os.environ.get("YOCO_COMPILE", "1") == "0":
        return False
    if device.type == "cpu":
        return any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++")))
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0)


def worth_compiling(device: torch.device, images: int, size: int) -> bool:
    """Whether passing `images` images of side `size` through a network pays for compiling it (half a minute on two cores).

    Measured: compiled steps save about 0.6 ms an image at 32×32, so that 100,000 such images pay for it.
    """
    return can_compile(device) and images * size**2 >= 100_000 * 32**2
