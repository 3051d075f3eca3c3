"""The bound on training speed: only the convolutions of ConvNet-D3, forward and backward.

They run in the precision that training uses.
"""

import time
from statistics import median

import torch
import torch.nn.functional as F

LAYERS = ((3, 32), (128, 16), (128, 8))  # channels in, side; 128 channels out


def convolution_rate(precision: str, batch: int = 64, repeats: int = 9) -> float:
    """Return the training images/s if a step were only its convolutions, on all CPU threads."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    layers = []
    for channels, side in LAYERS:
        images = torch.randn(batch, channels, side, side, dtype=dtype).contiguous(
            memory_format=torch.channels_last
        )
        weight = (
            torch.randn(128, channels, 3, 3, dtype=dtype)
            .contiguous(memory_format=torch.channels_last)
            .requires_grad_()
        )
        # the loss needs no gradient of the images
        layers.append((images.requires_grad_(channels > 3), weight))
    seconds = []
    for _ in range(repeats):
        outputs = [F.conv2d(*layer, padding=1) for layer in layers]
        gradients = [torch.ones_like(output) for output in outputs]
        started = time.perf_counter()
        for images, weight in layers:
            with torch.no_grad():
                F.conv2d(images, weight, padding=1)
        for output, gradient in zip(outputs, gradients):
            output.backward(gradient)
        seconds.append(time.perf_counter() - started)
    return batch / median(seconds)
