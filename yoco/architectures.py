"""The networks (design §6): ConvNet-D3, ResNet10-AP, ResNet10 and DenseNet.

The first two have instance norm and average pooling, the other two batch norm. `models` finds them
by name.
"""

import copy
from collections import OrderedDict
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from yoco.utils import checks, fused
from yoco.utils import device as devices

MOST_DEPTH = 16  # halvings of an image with a side of 65,536 pixels


def check_shape(channels: int, classes: int, size: int, least: int) -> None:
    """Raise TypeError or ValueError unless these are whole numbers that are large enough.

    channels and classes must be at least 1, size at least `least`.
    """
    checks.whole("channels", channels, 1)
    checks.whole("classes", classes, 1)
    checks.whole("size", size, least)


def instance_norm(channels: int) -> nn.Module:
    """Return instance norm with learned scale and shift: group norm with one channel per group."""
    return nn.GroupNorm(channels, channels)


class Network(nn.Module):
    """A network of two parts: maps normalised images to logits."""

    body: nn.Module
    head: nn.Linear

    def features(
        self, images: Float[Tensor, "images channels size size"]
    ) -> Float[Tensor, "images features"]:
        """Return the embedding before the last layer."""
        return self.body(images)

    def forward(
        self, images: Float[Tensor, "images channels size size"]
    ) -> Float[Tensor, "images classes"]:
        return self.head(self.features(images))


class Blocks(nn.Sequential):
    """The layers of a ConvNet; on a GPU in bfloat16, those of each block together (see `fused`).

    A constant that is added to a channel has no effect on its norm, so the biases of the
    convolutions are left out there.

    Attributes:
        once: whether results are differentiated at most once (see `differentiable_twice`).
    """

    once = True

    def forward(
        self, images: Float[Tensor, "images channels size size"]
    ) -> Float[Tensor, "images features"]:
        if not devices.in_bfloat16(images.device):
            return super().forward(images)
        fast = self.once and fused.available(images.device)
        *layers, flatten = self
        for convolution, norm, relu, pool in zip(*(layers[n::4] for n in range(4))):
            here = fast and fused.fits(images)  # the convolution keeps their size
            images = fused.convolution(images, convolution.weight, here)
            if here:
                images = fused.norm_relu_pool(images, norm.weight, norm.bias)
            else:
                images = pool(relu(norm(images)))
        return flatten(images)


def differentiable_twice(network: nn.Module) -> nn.Module:
    """Return `network`, or a copy if some of its layers' fast forms have no second derivatives."""
    if not any(isinstance(module, Blocks) for module in network.modules()):
        return network
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, Blocks):
            module.once = False
    return network


class ConvNet(Network):
    """depth × (conv 3×3, instance norm, ReLU, average pool 2), then one linear layer.

    Maps normalised images [N, channels, size, size] to logits [N, classes]. ConvNet-D3 of width 128
    has 320,010 parameters at 32×32×3 and 10 classes. Raises ValueError if depth halvings leave
    nothing of size, or a count is below 1.
    """

    def __init__(
        self, channels: int, classes: int, size: int, width: int = 128, depth: int = 3
    ) -> None:
        super().__init__()
        checks.whole("width", width, 1)
        check_shape(channels, classes, size, 2 ** checks.whole("depth", depth, 1, MOST_DEPTH))
        blocks: list[nn.Module] = []
        for block in range(depth):
            blocks += [
                nn.Conv2d(width if block else channels, width, 3, padding=1),
                instance_norm(width),
                nn.ReLU(),
                nn.AvgPool2d(2),
            ]
        self.body = Blocks(*blocks, nn.Flatten())
        self.head = nn.Linear(width * (size // 2**depth) ** 2, classes)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut.

    A block that halves the image does so by average pooling before the second convolution, instead
    of a stride.
    """

    def __init__(self, inputs: int, outputs: int, halve: bool) -> None:
        super().__init__()
        pool = nn.AvgPool2d(2) if halve else nn.Identity()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            instance_norm(outputs),
            nn.ReLU(),
            pool,
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            instance_norm(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, bias=False), pool, instance_norm(outputs)
            )
        self.relu = nn.ReLU()

    def forward(
        self, images: Float[Tensor, "images channels size size"]
    ) -> Float[Tensor, "images outputs half half"]:
        return self.relu(self.body(images) + self.shortcut(images))


def fan_out(network: nn.Module) -> None:
    """Initialise every convolution from a normal distribution, as ResNet's authors do.

    The variance is 2 / (kernel size · outputs).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class ResNetAP(Network):
    """ResNet with average pooling instead of strides, and instance norm.

    This is the network of IDC's published code. Depth 10 has one block per stage: 4,910,922
    parameters at 10 classes and 224×224. The stem is a 3×3 convolution up to 64 pixels, the same
    with an average pool of 2 up to 128, and a 7×7 convolution with an average pool of 4 above.

    Args:
        channels, classes: at least 1.
        size: side of the images in pixels, at least 16: below, the last stage would have a single
            pixel, which instance norm turns into 0, so that all images would have the same logits.
        depth: a key of `DEPTHS`.
        width: channels of the first stage; each later stage has twice as many as the one before.

    Raises:
        TypeError, ValueError: for other values.
    """

    DEPTHS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2)}

    def __init__(
        self, channels: int, classes: int, size: int, depth: int = 10, width: int = 64
    ) -> None:
        super().__init__()
        if checks.whole("depth", depth, 1) not in self.DEPTHS:
            raise ValueError(
                f"depth={depth} is unknown; allowed: {', '.join(map(str, self.DEPTHS))}"
            )
        check_shape(channels, classes, size, 16)
        inputs = checks.whole("width", width, 1)
        kernel, pool = (3, 1) if size <= 64 else (3, 2) if size <= 128 else (7, 4)
        layers: list[nn.Module] = [
            nn.Conv2d(channels, inputs, kernel, padding=kernel // 2, bias=False),
            instance_norm(inputs),
            nn.ReLU(),
            nn.AvgPool2d(pool) if pool > 1 else nn.Identity(),
        ]
        for stage, count in enumerate(self.DEPTHS[depth]):
            for block in range(count):
                outputs = width * 2**stage
                layers.append(ResidualBlock(inputs, outputs, halve=stage > 0 and block == 0))
                inputs = outputs
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(inputs, classes)
        fan_out(self)


class BatchNormNetwork(Network):
    """What the two networks of the cross-architecture test share.

    `body` is torchvision's network, whose last layer is moved to `head`. Maps normalised images [N,
    channels, size, size] to logits [N, classes]. Below 64 pixels the stem is a 3×3 convolution
    without a pool, as is usual at 32×32; from 64 on it is torchvision's own. In training, an
    image's logits depend on its batch. Raises ValueError if size is below 16: the last stage would
    have a single pixel, and a batch of one image no variance.
    """

    def __init__(self, channels: int, classes: int, size: int) -> None:
        super().__init__()
        check_shape(channels, classes, size, 16)
        self.large = size >= 64

    def stem(self, channels: int, outputs: int) -> nn.Conv2d:
        """Return the first convolution; torchvision's always takes 3 channels."""
        kernel, stride = (7, 2) if self.large else (3, 1)
        return nn.Conv2d(channels, outputs, kernel, stride, padding=kernel // 2, bias=False)


class ResNet10(BatchNormNetwork):
    """torchvision's ResNet with one basic block per stage, with the names of its layers.

    4,903,242 parameters at 10 classes, 32×32×3 and width 64. Features have 8 times the width as
    dimension. IDC's published code uses 32 channels on CIFAR ("resnet10-w32"). width: channels of
    the first stage; each later stage has twice as many as the one before.
    """

    def __init__(self, channels: int, classes: int, size: int, width: int = 64) -> None:
        from torchvision.models import resnet  # takes a second: imported only when used

        super().__init__(channels, classes, size)
        checks.whole("width", width, 1)
        layers = {
            "conv1": self.stem(channels, width),
            "bn1": nn.BatchNorm2d(width),
            "relu": nn.ReLU(),
        }
        layers |= {"maxpool": nn.MaxPool2d(3, 2, 1)} if self.large else {}
        for stage in range(4):
            outputs, stride = width * 2**stage, 2 if stage else 1
            inputs, shortcut = outputs // stride, None
            if stage:
                shortcut = nn.Sequential(
                    nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
                )
            layers[f"layer{stage + 1}"] = nn.Sequential(
                resnet.BasicBlock(inputs, outputs, stride, shortcut)
            )
        self.body = nn.Sequential(
            OrderedDict(**layers, avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten())
        )
        self.head = nn.Linear(8 * width, classes)
        fan_out(self.body)


class DenseNet(BatchNormNetwork):
    """torchvision's DenseNet-BC in the layout of DenseNet-121, growth rate 12, 24 initial features.

    1,000,618 parameters at 10 classes and 32×32×3: below 64 pixels the stem is the convolution
    alone, as in IDC's published code. Features have dimension 384.
    """

    def __init__(self, channels: int, classes: int, size: int) -> None:
        from torchvision.models import densenet  # takes a second: imported only when used

        super().__init__(channels, classes, size)
        body: Any = densenet.DenseNet(
            growth_rate=12, block_config=(6, 12, 24, 16), num_init_features=24, num_classes=classes
        )
        body.features.conv0 = self.stem(channels, 24)
        nn.init.kaiming_normal_(body.features.conv0.weight)  # as torchvision draws the others
        if not self.large:
            body.features.norm0 = body.features.relu0 = body.features.pool0 = nn.Identity()
        self.head, body.classifier = body.classifier, nn.Identity()
        self.body = body
