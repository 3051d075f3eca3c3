"""AdamW, the optimiser of NCFM's published evaluation: torch's own."""

from collections.abc import Iterable

import torch
from torch import Tensor

from yoco.training.optimizer import Optimizer


class TorchAdamW(Optimizer):
    """Takes the steps of `torch.optim.AdamW`.

    Its memory is made here, as torch would in the first step, so that it can be restored before.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
    ) -> None:
        super().__init__(parameters, lr)
        captured = isinstance(self.lr, Tensor)  # in CUDA graphs
        self._torch = torch.optim.AdamW(
            self.parameters, self.lr, betas, weight_decay=weight_decay, capturable=captured
        )
        for parameter in self.parameters:
            self._torch.state[parameter] = {
                "step": torch.zeros((), device=parameter.device if captured else None),
                "exp_avg": torch.zeros_like(parameter, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
            }

    @property
    def memory(self) -> dict[str, list[Tensor]]:
        each = [self._torch.state[parameter] for parameter in self.parameters]
        return {name: [state[name] for state in each] for name in each[0]}

    def step(self) -> None:
        """Update each parameter that has a gradient."""
        self._torch.param_groups[0]["lr"] = self.lr
        self._torch.step()
