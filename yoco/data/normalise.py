"""From bytes to what networks train on: floats in 0..1, normalised per channel."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from yoco.data import decode


def normalise(
    images: Float[Tensor, "images channels height width"],
    mean: Sequence[float] | Float[Tensor, "channels"],
    std: Sequence[float] | Float[Tensor, "channels"],
) -> Float[Tensor, "images channels height width"]:
    """Return (images - mean) / std per channel of float images [N, C, H, W] in 0..1.

    On a GPU, mean and std that are tensors there save a copy.
    """
    mean, std = (
        torch.as_tensor(values, dtype=images.dtype, device=images.device).view(1, -1, 1, 1)
        for values in (mean, std)
    )
    return (images - mean) / std


def unnormalise(
    images: Float[Tensor, "images channels height width"],
    mean: Sequence[float],
    std: Sequence[float],
) -> Float[Tensor, "images channels height width"]:
    """Return images · std + mean per channel: the reverse of `normalise`."""
    shift, scale = (images.new_tensor(values).view(1, -1, 1, 1) for values in (mean, std))
    return images * scale + shift


# the published code's, for both CIFARs
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# mean and std in the authors' code of condensation methods; IDC and DREAM use CIFAR-10's for
# CIFAR-100 too
STATISTICS = {
    "cifar10": (CIFAR_MEAN, CIFAR_STD),
    "cifar100": ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "tinyimagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "mnist": ((0.1307,), (0.3081,)),
    "fashionmnist": ((0.2861,), (0.3530,)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
}


def channel_statistics(
    images: UInt8[Tensor, "images channels height width"],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel of uint8 images [N, C, H, W], in 0..1.

    A constant channel has std 1.
    """
    return statistics_of(decode.histogram(images))


def statistics_of(
    counts: Int[Tensor, "channels 256"],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The same, from how often each value occurs in each channel, int64 [C, 256]."""
    values = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for count in counts:
        share = count / int(count.sum())
        mean = (share * values).sum()
        means.append(mean.item())
        stds.append((share * (values - mean) ** 2).sum().sqrt().item() or 1.0)
    return tuple(means), tuple(stds)


def to_floats(images: UInt8[Tensor, "*shape"] | Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return uint8 images, or floats of any precision, as float32 in 0..1."""
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()
