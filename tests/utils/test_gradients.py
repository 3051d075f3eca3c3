import torch

from yoco.utils.gradients import gradients


def cubes(at):
    return sum((x**3).sum() for x in at)


def test_gradients_can_be_differentiated():
    at = torch.tensor([1.0, -2.0]), torch.tensor([[3.0]])
    scale = torch.tensor(2.0, requires_grad=True)
    made = gradients(lambda x: scale * cubes(x), at)
    assert [g.tolist() for g in made] == [[6.0, 24.0], [[54.0]]]
    assert torch.autograd.grad(sum(g.sum() for g in made), scale)[0] == 42.0


def test_gradients_are_differentiable_in_their_leaf():
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    (made,) = gradients(cubes, (x,))
    assert torch.autograd.grad(made.sum(), x)[0].tolist() == [6.0, -12.0]


def test_without_recording_they_have_no_history():
    with torch.no_grad():
        (made,) = gradients(cubes, (torch.ones(2, requires_grad=True),))
    assert not made.requires_grad and made.tolist() == [3.0, 3.0]
