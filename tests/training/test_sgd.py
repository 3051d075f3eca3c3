"""The optimiser against torch's."""

import pytest
import torch

from yoco.training.sgd import MomentumSGD

SHAPES = [(4, 3), (4,), (2, 2, 3, 3)]


def drawn(seed):
    source = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=source) for shape in SHAPES]


@pytest.mark.parametrize(
    "momentum, weight_decay", [(0.9, 5e-4), (0.5, 0.0), (0.0, 5e-4), (0.0, 0.0)]
)
def test_steps_have_the_bits_of_torch_s(momentum, weight_decay):
    ours, theirs = ([torch.nn.Parameter(values) for values in drawn(0)] for _ in range(2))
    own = MomentumSGD(iter(ours), 0.1, momentum, weight_decay)
    reference = torch.optim.SGD(theirs, 0.1, momentum, weight_decay=weight_decay, foreach=True)
    for number in range(6):
        own.lr = reference.param_groups[0]["lr"] = 0.1 / (1 + number)
        for parameter, other, gradient in zip(ours, theirs, drawn(1 + number)):
            parameter.grad, other.grad = gradient.clone(), gradient.clone()
        ours[1].grad = theirs[1].grad = None if number == 2 else ours[1].grad  # takes no part
        own.step()
        reference.step()
        assert all(map(torch.equal, ours, theirs))


def test_gradients_are_forgotten_and_none_moves_nothing():
    parameter = torch.nn.Parameter(torch.ones(3))
    own = MomentumSGD([parameter], 0.1, 0.9, 0.1)
    parameter.sum().backward()
    own.zero_grad()
    own.step()
    assert (
        parameter.grad is None
        and torch.equal(parameter, torch.ones(3))
        and not own.momenta[0].any()
    )
