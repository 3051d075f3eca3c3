"""The networks: ConvNet-D3 and ResNet10-AP, with instance norm and average pooling (design §6); ResNet10 and DenseNet, with batch norm."""

import functools
import re
from collections.abc import Callable

from torch import Tensor, nn

from yoco import checks, seeds

MOST_DEPTH = 16  # halvings of an image of 65,536 pixels a side


def check_shape(channels: int, classes: int, size: int, least: int) -> None:
    """Raise TypeError or ValueError unless these are whole numbers, channels and classes at least 1, size at least `least`."""
    checks.whole("channels", channels, 1)
    checks.whole("classes", classes, 1)
    checks.whole("size", size, least)


def instance_norm(channels: int) -> nn.Module:
    """Instance norm with a learned scale and shift: a group norm of one channel a group."""
    return nn.GroupNorm(channels, channels)


class ConvNet(nn.Module):
    """depth × (conv 3×3, instance norm, ReLU, average pool 2), then one linear layer.

    Takes normalised images [N, channels, size, size], gives logits [N, classes]. ConvNet-D3 of width 128 has 320,010
    parameters at 32×32×3 and 10 classes. Raises ValueError where depth halvings leave nothing of size,
    or at a count below 1.
    """

    def __init__(self, channels: int, classes: int, size: int, width: int = 128, depth: int = 3) -> None:
        super().__init__()
        checks.whole("width", width, 1)
        check_shape(channels, classes, size, 2 ** checks.whole("depth", depth, 1, MOST_DEPTH))
        blocks: list[nn.Module] = []
        for block in range(depth):
            inputs = channels if block == 0 else width
            blocks += [nn.Conv2d(inputs, width, 3, padding=1), instance_norm(width), nn.ReLU(), nn.AvgPool2d(2)]
        self.body = nn.Sequential(*blocks, nn.Flatten())
        self.head = nn.Linear(width * (size // 2**depth) ** 2, classes)

    def features(self, images: Tensor) -> Tensor:
        """The embedding before the last layer, [N, width * (size / 2**depth)²]."""
        return self.body(images)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut; where the block halves the image, average pooling does it in place of a stride."""

    def __init__(self, inputs: int, outputs: int, halve: bool) -> None:
        super().__init__()
        pool = nn.AvgPool2d(2) if halve else nn.Identity()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            instance_norm(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            pool,
            instance_norm(outputs),
        )
        self.shortcut = nn.Identity()
        if inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), pool, instance_norm(outputs))
        self.relu = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        return self.relu(self.body(images) + self.shortcut(images))


class ResNetAP(nn.Module):
    """ResNet with average pooling in place of strides and instance norm; depth 10 has one block a stage.

    4,910,922 parameters at 10 classes and size 64 or more (7×7 stem, average pool 4, as at 224×224). Below 64 the stem is
    3×3 without a pool, as is usual at 32×32. Takes normalised images [N, channels, size, size], gives logits [N, classes].
    Raises ValueError at another depth, and where size is below 16: the last stage would have one pixel, which instance
    norm turns into 0, so that all images would have the same logits.
    """

    DEPTHS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2)}
    WIDTHS = (64, 128, 256, 512)

    def __init__(self, channels: int, classes: int, size: int, depth: int = 10) -> None:
        super().__init__()
        if checks.whole("depth", depth, 1) not in self.DEPTHS:
            raise ValueError(f"depth={depth} is unknown; allowed: {', '.join(map(str, self.DEPTHS))}")
        check_shape(channels, classes, size, 16)
        large = size >= 64
        kernel = 7 if large else 3
        layers: list[nn.Module] = [
            nn.Conv2d(channels, self.WIDTHS[0], kernel, padding=kernel // 2, bias=False),
            instance_norm(self.WIDTHS[0]),
            nn.ReLU(),
        ]
        layers += [nn.AvgPool2d(4)] if large else []
        inputs = self.WIDTHS[0]
        for stage, (outputs, count) in enumerate(zip(self.WIDTHS, self.DEPTHS[depth])):
            for block in range(count):
                layers.append(ResidualBlock(inputs, outputs, halve=stage > 0 and block == 0))
                inputs = outputs
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(inputs, classes)

    def features(self, images: Tensor) -> Tensor:
        """The embedding before the last layer, [N, 512]."""
        return self.body(images)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


class BatchNormNetwork(nn.Module):
    """What the two networks of the cross-architecture test share: `body` is torchvision's, whose last layer is taken out as `head`.

    Takes normalised images [N, channels, size, size], gives logits [N, classes]. Below 64 the stem is a 3×3 convolution
    without a pool, as is usual at 32×32, from 64 on torchvision's own. In training an image's logits depend on its batch.
    Raises ValueError where size is below 16: the last stage would have one pixel, and a batch of one image no variance.
    """

    body: nn.Module
    head: nn.Linear

    def __init__(self, channels: int, classes: int, size: int) -> None:
        super().__init__()
        check_shape(channels, classes, size, 16)
        self.large = size >= 64

    def stem(self, channels: int, outputs: int, fan: str) -> nn.Conv2d:
        """The first convolution, its weights drawn as torchvision's, which always takes 3 channels."""
        kernel, stride = (7, 2) if self.large else (3, 1)
        convolution = nn.Conv2d(channels, outputs, kernel, stride, padding=kernel // 2, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode=fan, nonlinearity="relu")
        return convolution

    def features(self, images: Tensor) -> Tensor:
        """The embedding before the last layer, [N, head.in_features]."""
        return self.body(images)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


class ResNet10(BatchNormNetwork):
    """torchvision's ResNet with one basic block a stage, of 64 to 512 channels; D is 512.

    4,903,242 parameters at 10 classes and 32×32×3. IDC's published code takes half of these channels on CIFAR.
    """

    def __init__(self, channels: int, classes: int, size: int) -> None:
        from torchvision.models import resnet  # takes a second, which is for those who use it

        super().__init__(channels, classes, size)
        self.body = resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=classes)
        self.body.conv1 = self.stem(channels, 64, "fan_out")
        if not self.large:
            self.body.maxpool = nn.Identity()
        self.head, self.body.fc = self.body.fc, nn.Identity()


class DenseNet(BatchNormNetwork):
    """torchvision's DenseNet-BC in the layout of DenseNet-121, with growth rate 12 and 24 initial features; D is 384.

    1,000,618 parameters at 10 classes and 32×32×3: below 64 the stem is the convolution alone, as in IDC's published code.
    """

    def __init__(self, channels: int, classes: int, size: int) -> None:
        from torchvision.models import densenet  # takes a second, which is for those who use it

        super().__init__(channels, classes, size)
        self.body = densenet.DenseNet(growth_rate=12, block_config=(6, 12, 24, 16), num_init_features=24, num_classes=classes)
        self.body.features.conv0 = self.stem(channels, 24, "fan_in")
        if not self.large:
            self.body.features.norm0 = self.body.features.relu0 = self.body.features.pool0 = nn.Identity()
        self.head, self.body.classifier = self.body.classifier, nn.Identity()


MODELS: dict[str, Callable[..., nn.Module]] = {"convnet": ConvNet, "resnet10ap": ResNetAP, "resnet10": ResNet10, "densenet": DenseNet}
_SHAPED = re.compile(r"convnet(-d(?P<depth>[1-9]\d*))?(-w(?P<width>[1-9]\d*))?")  # its depth and width in its name
MATCHABLE = ("convnet", "resnet10ap")  # what condensing takes: no batch norm, whose running statistics its checkpoints do not hold
SLOW_TO_COMPILE = ("densenet",)  # minutes for each of its graphs on a CPU


def factory(name: str) -> Callable[..., nn.Module]:
    """What builds the network of a name from (channels, classes, size).

    Args:
        name: a key of `MODELS`, or a ConvNet with its depth or width, as "convnet-d5-w64".

    Raises:
        ValueError: if there is no such network; the message suggests the nearest name.
    """
    shaped = _SHAPED.fullmatch(checks.instance("model", name, str))
    if shaped:
        return functools.partial(ConvNet, **{option: int(digits) for option, digits in shaped.groupdict().items() if digits})
    return MODELS[checks.one_of("model", name, MODELS)]


def check_matchable(name: str) -> str:
    """`name` if condensing can take this network; else raises ValueError."""
    factory(name)
    if name.split("-")[0] not in MATCHABLE:
        raise ValueError(f"model={name!r} has batch norm, which condensing cannot take; allowed: {', '.join(MATCHABLE)}")
    return name


def build(name: str, channels: int, classes: int, size: int, *, width: int | None = None) -> nn.Module:
    """A network by name (see `factory`), its weights drawn from torch's global generator.

    width: channels of the ConvNet's layers (None: the paper's 128). Raises ValueError at an unknown name, a size below the
    network's least, a count below 1, or a width for a network that has none to set; TypeError at what is no whole number.
    """
    if width is None:
        return factory(name)(channels, classes, size)
    if name.split("-")[0] != "convnet" or "-w" in name:
        raise ValueError(f"width={width} can be set for a ConvNet whose name has none, got model={name!r}")
    return factory(name)(channels, classes, size, width=width)


def build_seeded(seed: int, name: str, channels: int, classes: int, size: int, *, width: int | None = None) -> nn.Module:
    """As `build`, with the weights that `seed` gives, whatever ran before; torch's global generator stays as it was."""
    with seeds.torch_seeded(seed):
        return build(name, channels, classes, size, width=width)
