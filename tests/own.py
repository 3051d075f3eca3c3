"""A network and a dataset that the package does not know; tests name them by their paths."""

from typing import ClassVar

import torch
from torch import nn

from yoco.data import ImageData

WIDTH = 6  # of `plain`: another one is another network of the same name


class Plain(nn.Module):
    """A convolution whose layers have names of their own, without `features`."""

    def __init__(self, channels: int, classes: int, size: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.GroupNorm(2, width),
            nn.ReLU(),
            nn.AvgPool2d(4),
        )
        self.classifier = nn.Linear(width * (size // 4) ** 2, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.stem(images).flatten(1))


def plain(channels: int, classes: int, size: int) -> nn.Module:
    return Plain(channels, classes, size, WIDTH)


def normed(channels: int, classes: int, size: int) -> nn.Module:
    """With batch norm."""
    return nn.Sequential(
        nn.Conv2d(channels, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, classes),
    )


class Watched(nn.Sequential):
    """With batch norm and dropout; `modes` has whether each pass has gradients, and its mode."""

    modes: ClassVar[list[tuple[bool, bool]]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.modes.append((torch.is_grad_enabled(), self.training))
        return super().forward(images)


def watched(channels: int, classes: int, size: int) -> nn.Module:
    return Watched(nn.Dropout(0.5), *normed(channels, classes, size))


def flat(channels: int, classes: int, size: int) -> nn.Module:
    """One linear layer for images of 32 pixels a side."""
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * 32**2, classes))


def headless(channels: int, classes: int, size: int) -> nn.Module:
    """A network whose logits come from no linear layer."""
    return nn.Sequential(nn.Conv2d(channels, classes, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def tones() -> ImageData:
    """Three classes of noise, each brighter than the previous one."""
    source, splits = torch.Generator().manual_seed(0), []
    for count in (8, 4):
        labels = torch.arange(3).repeat_interleave(count)
        noise = torch.rand(len(labels), 1, 16, 16, generator=source) * 80
        splits += [(noise + labels.view(-1, 1, 1, 1) * 80).to(torch.uint8), labels]
    return ImageData("tones", *splits, ("dark", "middle", "bright"), (0.5,), (0.25,))
