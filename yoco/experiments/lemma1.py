"""Lemma 1 of the paper, as numbers: how the gradient of a set changes when one sample leaves it
(appendix A.1).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from yoco.utils import checks


def sample_gradients(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Gradient of each sample's own cross-entropy with respect to all weights, flattened: float64
    [N, weights].

    images: normalised [N, C, S, S]; labels: int64 [N]. The network's weights are read in float64.
    """
    weights = {name: p.detach().double() for name, p in network.named_parameters()}

    def loss(weights: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(network, weights, (image[None],)), label[None])

    gradients = vmap(grad(loss), in_dims=(None, 0, 0))(weights, images.double(), labels)
    return torch.cat([g.flatten(1) for g in gradients.values()], 1)


def set_gradient(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Gradient of the mean cross-entropy of a whole set, as equation (1) has it, by one backward
    pass: float64 [weights].
    """
    weights = {name: p.detach().double().requires_grad_() for name, p in network.named_parameters()}
    loss = F.cross_entropy(functional_call(network, weights, (images.double(),)), labels)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(weights.values()))])


def change_without(
    network: nn.Module, images: Tensor, labels: Tensor, left_out: int
) -> tuple[Tensor, Tensor]:
    """How the set's gradient changes when sample `left_out` leaves: by the definition (3), and by
    the formula (5).

    Both float64 [weights]; Lemma 1 says that they are equal. Raises ValueError if fewer than 2
    samples are given.
    """
    count = checks.whole("len(images)", len(images), 2)
    rest = torch.arange(count) != checks.whole("left_out", left_out, 0, count - 1)
    definition = set_gradient(network, images, labels) - set_gradient(
        network, images[rest], labels[rest]
    )
    each = sample_gradients(network, images, labels)
    formula = each[left_out] / count - each[rest].sum(0) / (count * (count - 1))
    return definition, formula


@torch.no_grad()
def errors(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Prediction error of each sample, ‖softmax - onehot(y)‖₂, [N]: what LBPE averages over the
    epochs.
    """
    logits = network(images)
    return (logits.softmax(1) - F.one_hot(labels, logits.shape[1])).norm(dim=1)
