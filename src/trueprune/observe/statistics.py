"""What calibration leaves behind of a Linear's inputs: small sums that add up over batches and workers.

Legend: N tokens, C input columns.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Statistic(Protocol):
    """A sum over tokens: `add` takes tokens, `merge` takes another worker's sum.

    Methods only, so that a class can be checked against it.
    """

    def __init__(self, width: int, device: torch.device): ...

    def add(self, x_NC: Float[Tensor, "N C"]) -> None:
        """Add tokens, of shape `(N, C)`, any float dtype."""
        ...

    def merge(self, other: Any) -> None:
        """Add what another instance has seen."""
        ...

    def is_finite(self) -> bool:
        """Whether all inputs seen were finite."""
        ...


class ColumnNorms:
    """Squared L2 norm of each input column, `square_sum_C = sum_n x_nc^2` (Wanda, arXiv 2306.11695, eq. 1).

    Summed in float64, so that the result does not depend on how the tokens were batched.
    """

    def __init__(self, width: int, device: torch.device):
        self.square_sum_C = torch.zeros(width, dtype=torch.float64, device=device)
        self.tokens = 0

    def is_finite(self) -> bool:
        """Whether all inputs seen were finite."""
        return bool(torch.isfinite(self.square_sum_C).all())

    def add(self, x_NC: Float[Tensor, "N C"]) -> None:
        """Add tokens, of shape `(N, C)`."""
        self.square_sum_C += x_NC.float().square().sum(0, dtype=torch.float64)
        self.tokens += x_NC.shape[0]

    def merge(self, other: ColumnNorms) -> None:
        """Add what another instance has seen."""
        self.square_sum_C += other.square_sum_C.to(self.square_sum_C.device)
        self.tokens += other.tokens

    @property
    def norm_C(self) -> Float[Tensor, " C"]:
        """L2 norm of each column, of shape `(C,)`, float32."""
        return self.square_sum_C.sqrt().float()


class Gram:
    """Gram matrix of the inputs, `gram_CC = sum_n x_n x_n^T`, in float32 (SparseGPT, arXiv 2301.00774, eq. 4)."""

    def __init__(self, width: int, device: torch.device):
        self.gram_CC = torch.zeros(width, width, device=device)
        self.tokens = 0

    def is_finite(self) -> bool:
        """Whether all inputs seen were finite."""
        return bool(torch.isfinite(self.gram_CC).all())

    def add(self, x_NC: Float[Tensor, "N C"]) -> None:
        """Add tokens, of shape `(N, C)`."""
        x_NC = x_NC.float()
        self.gram_CC.addmm_(x_NC.t(), x_NC)
        self.tokens += x_NC.shape[0]

    def merge(self, other: Gram) -> None:
        """Add what another instance has seen."""
        self.gram_CC += other.gram_CC.to(self.gram_CC.device)
        self.tokens += other.tokens
