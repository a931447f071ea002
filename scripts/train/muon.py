"""Muon, the optimizer of the convolutions and the linear layer: momentum whose matrix is made orthogonal.

Keller Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024); the update's size and the weight decay after
Liu et al., "Muon is Scalable for LLM Training" (2025). torch's own Muon takes matrices alone; here a convolution's filters are one.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

#: Coefficients of the Newton-Schulz iteration, and how often it is done (Jordan et al.).
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
#: The update of a matrix has about the size that AdamW's has (Liu et al., section 2.2).
_SIZE = 0.2


class Muon(torch.optim.Optimizer):
    """Nesterov momentum made orthogonal, with decoupled weight decay, for parameters of two dimensions and more."""

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float = 1.2e-2, momentum: float = 0.95, weight_decay: float = 0.02
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move the parameters against their gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum: Tensor = state["momentum"]
                momentum.lerp_(parameter.grad, 1.0 - group["momentum"])
                ahead = parameter.grad.lerp(momentum, group["momentum"])
                matrix = orthogonal(ahead.reshape(len(ahead), -1))
                size = _SIZE * max(matrix.shape) ** 0.5
                parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
                parameter.add_(matrix.reshape(parameter.shape).to(parameter.dtype), alpha=-group["lr"] * size)


def orthogonal(matrix: Tensor) -> Tensor:
    """Return a matrix (rows, columns) with the same singular vectors and singular values of about 1, in bfloat16.

    Newton-Schulz: an odd polynomial of the matrix, applied five times, draws the singular values to between 0.7 and 1.2.
    """
    a, b, c = _COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x: Tensor = (matrix.T if tall else matrix).bfloat16()
    x = x / (x.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x
