"""AdamW, the optimiser of NCFM's published evaluation: torch's own."""

from collections.abc import Iterable

import torch
from torch import Tensor

from yoco.training.optimizer import Optimizer


class TorchAdamW(Optimizer):
    """Takes the steps of `torch.optim.AdamW`, which keeps its moments to itself.

    So a run by it cannot be resumed.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
    ) -> None:
        super().__init__(parameters, lr)
        self._torch = torch.optim.AdamW(
            self.parameters,
            self.lr,
            betas,
            weight_decay=weight_decay,
            capturable=isinstance(self.lr, Tensor),  # for CUDA graphs
        )

    def step(self) -> None:
        """Update each parameter that has a gradient."""
        self._torch.param_groups[0]["lr"] = self.lr
        self._torch.step()
