"""Lemma 1 of the paper in numbers: a set's gradient without one sample (appendix A.1)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from yoco.utils import checks

Images = Float[Tensor, "images channels size size"]
Labels = Int[Tensor, "images"]


def sample_gradients(
    network: nn.Module, images: Images, labels: Labels
) -> Float64[Tensor, "images weights"]:
    """Return each sample's gradient of the cross-entropy.

    images: normalised. The network's weights are read in float64.
    """
    weights = {name: p.detach().double() for name, p in network.named_parameters()}

    def loss(weights: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(network, weights, (image[None],)), label[None])

    gradients = vmap(grad(loss), in_dims=(None, 0, 0))(weights, images.double(), labels)
    return torch.cat([g.flatten(1) for g in gradients.values()], 1)


def set_gradient(network: nn.Module, images: Images, labels: Labels) -> Float64[Tensor, "weights"]:
    """Return the gradient of the mean cross-entropy of a set (equation 1), by one backward pass."""
    weights = {name: p.detach().double().requires_grad_() for name, p in network.named_parameters()}
    loss = F.cross_entropy(functional_call(network, weights, (images.double(),)), labels)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(weights.values()))])


def change_without(
    network: nn.Module, images: Images, labels: Labels, left_out: int
) -> tuple[Float64[Tensor, "weights"], Float64[Tensor, "weights"]]:
    """Return how the set's gradient changes without sample `left_out`, in two ways.

    They are the definition (3) and the formula (5); Lemma 1 says that they are equal. Raises
    ValueError if there are fewer than 2 samples.
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
def errors(network: nn.Module, images: Images, labels: Labels) -> Float[Tensor, "images"]:
    """Return the prediction error of each sample, ‖softmax - onehot(y)‖₂.

    This is what LBPE averages over the epochs.
    """
    logits = network(images)
    return (logits.softmax(1) - F.one_hot(labels, logits.shape[1])).norm(dim=1)
