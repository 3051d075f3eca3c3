import pytest
import torch

from yoco import models
from yoco.experiments import lemma1


def test_lemma_1_holds_to_rounding():
    network = models.build_seeded(0, "convnet", 1, 3, 8, width=4)
    images, labels = torch.randn(7, 1, 8, 8), torch.arange(7) % 3
    for j in range(7):
        definition, formula = lemma1.change_without(network, images, labels, j)
        assert (definition - formula).norm() / definition.norm() < 1e-12


def test_sample_gradients_are_one_backward_pass_each():
    network = models.build_seeded(0, "convnet", 1, 3, 8, width=4).double()
    images, labels = torch.randn(3, 1, 8, 8, dtype=torch.double), torch.tensor([0, 1, 2])
    each = lemma1.sample_gradients(network, images, labels)
    for i in range(3):
        loss = torch.nn.functional.cross_entropy(network(images[i : i + 1]), labels[i : i + 1])
        by_hand = torch.cat(
            [g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))]
        )
        assert torch.allclose(each[i], by_hand, atol=1e-10)


def test_errors_by_hand_and_bad_input():
    class Constant(torch.nn.Module):
        def forward(self, images):
            return torch.zeros(len(images), 2)

    assert lemma1.errors(
        Constant(), torch.zeros(1, 1, 8, 8), torch.tensor([0])
    ).item() == pytest.approx(0.5**0.5)
    network = models.build_seeded(0, "convnet", 1, 3, 8, width=4)
    with pytest.raises(ValueError, match="left_out must be between 0 and 1"):
        lemma1.change_without(network, torch.randn(2, 1, 8, 8), torch.tensor([0, 1]), 2)
