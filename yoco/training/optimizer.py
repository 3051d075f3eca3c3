"""What every optimiser of a network has: its parameters, and a learning rate that can change."""

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from yoco.utils.device import is_gpu


class Optimizer(ABC):
    """Updates parameters in place from their gradients.

    On a GPU the learning rate is a tensor there, so that a CUDA graph of the step reads its current
    value.

    Attributes:
        parameters: the trained parameters, in order.
        lr: may be set before any step.
        momenta: of SGD, one per parameter in the same order.
    """

    momenta: list[Tensor]

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        self.parameters = list(parameters)
        gpu = next((p.device for p in self.parameters if is_gpu(p.device)), None)
        self._lr = lr if gpu is None else torch.full((), lr, device=gpu)

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

    @property
    @abstractmethod
    def memory(self) -> dict[str, list[Tensor]]:
        """All that it remembers, by name, one tensor per parameter; to be changed in place."""

    @abstractmethod
    def step(self) -> None:
        """Update each parameter that has a gradient."""
