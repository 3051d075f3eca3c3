"""What choosing a device and compiling promise besides their results."""

import os
import subprocess
import sys

import pytest
import torch

from yoco.utils import device


@pytest.mark.slow
def test_compiling_without_a_gpu_says_nothing_of_cuda(tmp_path):
    code = """
from yoco.utils import device
device.compiled(lambda x: x)
import subprocess, sys
import torch.utils.cpp_extension
subprocess.run([sys.executable, "-c", "import torch.utils.cpp_extension"])
"""
    environment = {**os.environ, "CUDA_HOME": str(tmp_path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "CUDA" not in done.stderr


def test_tests_stay_on_the_cpu_unless_the_gpu_is_asked_for():
    assert device.choose("auto") == torch.device("cpu")
    code = "import torch; print(torch.cuda.device_count())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"
