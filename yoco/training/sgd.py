"""Momentum SGD, the optimiser of every network, without the imports of torch.optim."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from yoco.utils.device import is_gpu


class MomentumSGD:
    """Takes the steps of `torch.optim.SGD(..., foreach=True)`, bit for bit.

    That class imports torch._dynamo when it is created, which takes 1.2 s of CPU in each training
    process. On a GPU the learning rate is a tensor there, so that a CUDA graph of the step reads
    its current value.

    Attributes:
        parameters: the trained parameters, in order.
        lr: may be set before any step.
        momenta: one per parameter, in the same order, initially 0.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        self.parameters = list(parameters)
        gpu = next((p.device for p in self.parameters if is_gpu(p.device)), None)
        self._lr = lr if gpu is None else torch.full((), lr, device=gpu)
        self.momentum, self.weight_decay = momentum, weight_decay
        self.momenta = [torch.zeros_like(parameter) for parameter in self.parameters]

    @property
    def lr(self) -> float | Float[Tensor, ""]:
        """The learning rate of the next step."""
        return self._lr

    @lr.setter
    def lr(self, lr: float) -> None:
        if isinstance(self._lr, Tensor):
            self._lr.fill_(lr)
        else:
            self._lr = lr

    def zero_grad(self) -> None:
        """Clear the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update each parameter that has a gradient."""
        moved = [
            (p, p.grad, m) for p, m in zip(self.parameters, self.momenta) if p.grad is not None
        ]
        if not moved:
            return
        parameters, gradients, momenta = map(list, zip(*moved))
        torch._foreach_mul_(momenta, self.momentum)
        torch._foreach_add_(
            momenta, torch._foreach_add(gradients, parameters, alpha=self.weight_decay)
        )
        if isinstance(self._lr, Tensor):
            torch._foreach_sub_(parameters, torch._foreach_mul(momenta, self._lr))
        else:
            torch._foreach_add_(parameters, momenta, alpha=-self._lr)
