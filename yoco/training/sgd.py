"""SGD with momentum, the optimiser of every network except in NCFM's evaluation."""

from collections.abc import Iterable

import torch
from torch import Tensor

from yoco.training.optimizer import Optimizer


class MomentumSGD(Optimizer):
    """Takes the steps of `torch.optim.SGD(..., foreach=True)`, bit for bit.

    That class imports torch._dynamo when it is created, which takes 1.2 s of CPU in each training
    process. Its momenta are initially 0.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr)
        self.momentum, self.weight_decay = momentum, weight_decay
        self.momenta = [torch.zeros_like(parameter) for parameter in self.parameters]

    @property
    def memory(self) -> dict[str, list[Tensor]]:
        return {"momentum": self.momenta}

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
