"""The networks: ConvNet-D3 and ResNet10-AP, both with instance norm and average pooling (design §6)."""

from collections.abc import Callable

from torch import Tensor, nn

from yoco import checks, seeds


def instance_norm(channels: int) -> nn.Module:
    """Instance norm with a learned scale and shift: a group norm of one channel a group."""
    return nn.GroupNorm(channels, channels)


class ConvNet(nn.Module):
    """depth × (conv 3×3, instance norm, ReLU, average pool 2), then one linear layer.

    Takes normalised images [N, channels, size, size], gives logits [N, classes]. ConvNet-D3 of width 128 has 320,010
    parameters at 32×32×3 and 10 classes. Raises ValueError where depth halvings leave nothing of size.
    """

    def __init__(self, channels: int, classes: int, size: int, width: int = 128, depth: int = 3) -> None:
        super().__init__()
        checks.whole("width", width, 1)
        checks.whole("size", size, 2 ** checks.whole("depth", depth, 1))
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
    """

    DEPTHS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2)}
    WIDTHS = (64, 128, 256, 512)

    def __init__(self, channels: int, classes: int, size: int, depth: int = 10) -> None:
        super().__init__()
        if depth not in self.DEPTHS:
            raise ValueError(f"depth={depth} is unknown; allowed: {', '.join(map(str, self.DEPTHS))}")
        checks.whole("size", size, 8)
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


MODELS: dict[str, Callable[..., nn.Module]] = {"convnet": ConvNet, "resnet10ap": ResNetAP}


def build(name: str, channels: int, classes: int, size: int, *, width: int | None = None) -> nn.Module:
    """A network by name ("convnet", "resnet10ap"), its weights drawn from torch's global generator.

    width: channels of the ConvNet's layers (None: the paper's 128). Raises ValueError at an unknown name, or a width
    for a network that has none to set.
    """
    checks.one_of("model", name, MODELS)
    if width is None:
        return MODELS[name](channels, classes, size)
    if name != "convnet":
        raise ValueError(f"width={width} can be set for 'convnet' only, got model={name!r}")
    return ConvNet(channels, classes, size, width=width)


def build_seeded(seed: int, name: str, channels: int, classes: int, size: int, *, width: int | None = None) -> nn.Module:
    """As `build`, with the weights that `seed` gives, whatever ran before; torch's global generator stays as it was."""
    with seeds.torch_seeded(seed):
        return build(name, channels, classes, size, width=width)
