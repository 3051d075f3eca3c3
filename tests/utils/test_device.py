"""What choosing a device and compiling promise besides their results."""

import os
import subprocess
import sys

import pytest


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
