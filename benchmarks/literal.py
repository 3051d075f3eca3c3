"""The literal implementation: class by class, eager, float32, a data loader, one network at a time.

It follows the papers, with nothing done for speed. The benchmarks time yoco against it, and
tests/test_fast.py compares yoco's results with it. Networks, formation and augmentation are yoco's
own, eager: they are definitions, not optimisations.
"""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from yoco import augment, formation, models
from yoco.data import ImageData, to_floats
from yoco.data.normalise import normalise

LR, MOMENTUM, WEIGHT_DECAY, BATCH = 0.01, 0.9, 5e-4, 64
MOST_FORMED = 128  # synthetic images per class and image step


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(
        model.parameters(), LR, MOMENTUM, weight_decay=WEIGHT_DECAY, foreach=False
    )


def match(model: nn.Module, real: Tensor, synthetic: Tensor, label: int) -> Tensor:
    """Squared L2 distance of the convolution gradients of two batches of one class.

    It is differentiable in `synthetic`.
    """
    parameters = list(model.parameters())

    def gradients(images: Tensor, create_graph: bool) -> tuple[Tensor, ...]:
        loss = F.cross_entropy(
            model(images), torch.full((len(images),), label, device=images.device)
        )
        return torch.autograd.grad(loss, parameters, create_graph=create_graph)

    pairs = zip(gradients(real, False), gradients(synthetic, True), parameters)
    return sum(((r.detach() - s) ** 2).sum() for r, s, parameter in pairs if parameter.ndim == 4)


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: DataLoader,
    classes: int,
    strategy: tuple[str, ...],
    source: Generator,
):
    """Make one pass; yield the indices of each batch and its logits."""
    augmentation = augment.Augmentation(strategy)
    device = next(model.parameters()).device
    model.train()
    for index, images, labels in loader:
        batch, targets = augment.cutmix(
            augmentation(images.to(device), source), labels.to(device), classes, source
        )
        logits = model(batch)
        loss = F.cross_entropy(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield index, logits.detach()


def loader_of(images: Tensor, labels: Tensor) -> DataLoader:
    return DataLoader(
        TensorDataset(torch.arange(len(images)), images, labels), batch_size=BATCH, shuffle=True
    )


class InnerLoops:
    """IDC's inner loops on `data`.

    Classes are matched and their images moved one after another, then the network is trained.
    """

    def __init__(
        self,
        data: ImageData,
        images: Tensor,
        factor: int,
        *,
        lr: float,
        device: torch.device,
        source: Generator,
    ) -> None:
        self.data, self.factor, self.source, self.device = data, factor, source, device
        self.images = images.clone().to(device).requires_grad_()
        self.image_optimizer = torch.optim.SGD([self.images], lr, momentum=0.5)
        self.model = models.ConvNet(data.channels, len(data.classes), data.size).to(device)
        self.optimizer = sgd(self.model)
        self.members = [
            torch.nonzero(data.train_labels == label).flatten()
            for label in range(len(data.classes))
        ]

    def real_images(self, chosen: Tensor) -> Tensor:
        return normalise(to_floats(self.data.train_images[chosen]), self.data.mean, self.data.std)

    def step(self, real_batch: int, network_images: int) -> None:
        ipc = len(self.images) // len(self.members)
        for label, members in enumerate(self.members):
            real = self.real_images(
                members[torch.randperm(len(members), generator=self.source)[:real_batch]]
            ).to(self.device)
            formed = formation.form(self.images[label * ipc : (label + 1) * ipc], self.factor)
            formed = formed[torch.randperm(len(formed), generator=self.source)[:MOST_FORMED]]
            both = torch.cat([real, normalise(formed, self.data.mean, self.data.std)])
            both = augment.Augmentation(augment.MATCHING, shared=True)(both, self.source)
            distance = match(self.model, both[: len(real)], both[len(real) :], label)
            self.image_optimizer.zero_grad()
            distance.backward()
            self.image_optimizer.step()
            self.images.data.clamp_(0, 1)
        chosen = torch.randperm(len(self.data.train_images), generator=self.source)[:network_images]
        loader = loader_of(self.real_images(chosen), self.data.train_labels[chosen])
        for _ in train_epoch(
            self.model, self.optimizer, loader, len(self.members), augment.NETWORK, self.source
        ):
            pass


def fit(
    images: Tensor,
    labels: Tensor,
    classes: int,
    epochs: int,
    source: Generator,
    device: torch.device,
    history: list[Tensor] | None = None,
    seed: int = 0,
) -> nn.Module:
    """Train a ConvNet-D3 on normalised images by the paper's schedule.

    The logits of every epoch are appended to `history`.
    """
    torch.manual_seed(seed)
    model = models.ConvNet(images.shape[1], classes, images.shape[2]).to(device)
    optimizer = sgd(model)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(
        optimizer, [2 * epochs // 3, 5 * epochs // 6], gamma=0.2
    )
    loader = loader_of(images, labels)
    for _ in range(epochs):
        logits = torch.zeros(len(images), classes)
        for index, batch in train_epoch(
            model, optimizer, loader, classes, augment.EVALUATION, source
        ):
            logits[index] = batch.cpu()
        scheduler.step()
        if history is not None:
            history.append(logits)
    return model


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the test accuracy in % on normalised images."""
    device = next(model.parameters()).device
    model.eval()
    right = sum(
        (model(x.to(device)).argmax(1).cpu() == y).sum().item()
        for x, y in DataLoader(TensorDataset(images, labels), batch_size=500)
    )
    return 100 * right / len(images)
