"""The frequencies of NCFM: standard normal, or from a learned mixture of Gaussians (design §5).

The mixture is trained to maximise the loss.
"""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from yoco.training.state import State

BETAS, EPSILON, RATE = (0.9, 0.999), 1e-8, 0.01  # of Adam on the mixture
Frequencies = Float[Tensor, "frequencies features"]
SPREAD = 0.1  # standard deviation of initial parameters: equal components would stay equal


class Normal:
    """Draw frequencies from N(0, I) in `width` dimensions; nothing is learned."""

    def __init__(self, width: int) -> None:
        self.width = width

    def draw(self, count: int, source: Generator) -> Frequencies:
        """Draw `count` frequencies on the generator's device."""
        return torch.randn(count, self.width, generator=source, device=source.device)

    def ascend(self, frequencies: Frequencies, gradient: Frequencies) -> None:
        """Do nothing: there is nothing to train."""

    def state(self) -> State:
        """Return no tensors."""
        return {}

    def restore(self, state: State) -> None:
        """Do nothing: there is nothing to restore."""


class Mixture(Normal):
    """Draw frequencies from a mixture of equally weighted Gaussians.

    Adam trains it to maximise the loss, and it stands for the sampling network ψ of NCFM's paper.
    Means lie in -1..1 and standard deviations in 1/2..2, as tanh(raw) and 2**tanh(raw). Without
    bounds, the loss is largest at frequencies that show only the noise of two small samples and
    nothing of the images (the published network ends in tanh for the same reason). At raw = 0 this
    is the standard normal.

    Args:
        width: dimensions D of a feature.
        components: number of Gaussians, at least 1.
        source: generator of the initial parameters.
        device: holds the parameters.
    """

    def __init__(
        self, width: int, components: int, source: Generator, device: torch.device
    ) -> None:
        super().__init__(width)
        # of means and deviations
        self.raw = SPREAD * torch.randn(2, components, width, generator=source).to(device)
        self.mean, self.square = torch.zeros_like(self.raw), torch.zeros_like(self.raw)
        self.steps = torch.zeros((), device=device)

    def draw(self, count: int, source: Generator) -> Frequencies:
        """Draw `count` frequencies, differentiable in the parameters."""
        self.raw.requires_grad_()
        component = torch.randint(
            self.raw.shape[1], (count,), generator=source, device=source.device
        ).to(self.raw.device)
        means, exponents = self.raw.tanh().unbind()
        noise = super().draw(count, source).to(self.raw.device)
        return means[component] + noise * torch.exp2(exponents)[component]

    @torch.no_grad()
    def ascend(self, frequencies: Frequencies, gradient: Frequencies) -> None:
        """Take a step of Adam that raises the loss.

        frequencies: the last ones drawn. gradient: of the loss with respect to them.
        """
        (slope,) = torch.autograd.grad(frequencies, self.raw, gradient)
        self.steps += 1
        for moment, values, beta in zip((self.mean, self.square), (slope, slope**2), BETAS):
            moment.copy_(torch.lerp(values, moment, beta))
        mean, square = (
            moment / (1 - beta**self.steps) for moment, beta in zip((self.mean, self.square), BETAS)
        )
        self.raw += RATE * mean / (square.sqrt() + EPSILON)

    def state(self) -> State:
        """Return copies of the parameters, and of Adam's moments and number of steps."""
        values = {
            "raw": self.raw.detach(),
            "mean": self.mean,
            "square": self.square,
            "steps": self.steps,
        }
        return {f"sampler.{name}": tensor.clone() for name, tensor in values.items()}

    @torch.no_grad()
    def restore(self, state: State) -> None:
        for name in ("raw", "mean", "square", "steps"):
            getattr(self, name).copy_(state[f"sampler.{name}"])
