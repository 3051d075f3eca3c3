"""What a result depends on besides yoco: processor, GPU, versions."""

import os
import platform
from importlib import metadata
from pathlib import Path

import torch

import yoco
from yoco.utils import device as devices

VERSIONS = ("torchvision", "numpy", "scikit-learn", "safetensors")


def processor() -> str:
    """Return the name of the processor as the system gives it."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.exists() else []
    named = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def gpu(device: torch.device) -> str:
    """Return a CUDA GPU's name, its memory and the versions of CUDA and cuDNN."""
    told = torch.cuda.get_device_properties(device)
    libraries = f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    return f"{told.name}, {told.total_memory / 2**30:.0f} GiB, {libraries}"


def described(device: torch.device) -> dict[str, str | int | bool]:
    """Return the machine as `make bench` stores it and `yoco selfcheck` prints it.

    `instructions` are those that torch chose for the CPU; `bfloat16` says whether the CPU
    multiplies faster in it than in float32.
    """
    return {
        **({"gpu": gpu(device)} if devices.is_gpu(device) else {}),
        "processor": processor(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "bfloat16": devices.cpu_gains_by_bfloat16(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "yoco": yoco.__version__,
        "torch": torch.__version__,  # its build included
        **{name: metadata.version(name) for name in VERSIONS},
    }
