"""Variance and sparsity of activations, as sums that give every estimator of AVSS (arXiv 2411.02117).

Legend: B sequences, T tokens, N tokens that are not padding, C units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from trueprune._support.errors import AuditError

Estimator = Literal["official", "aifeducation", "token", "neuron"]
ESTIMATORS: tuple[str, ...] = get_args(Estimator)


@dataclass(frozen=True)
class NearZero:
    """When an activation counts as zero.

    **Arguments:**

    - `near_zero`: epsilon: an activation below it in absolute value counts as zero.
    - `relative`: take epsilon times the root mean square over the units of the token, instead of epsilon itself.
    """

    near_zero: float = 1e-5
    relative: bool = False

    def __post_init__(self):
        if not self.near_zero > 0:
            raise AuditError(
                f"--near-zero {self.near_zero} is not positive", "Use e.g. 1e-5, or 0.01 with --near-zero-relative"
            )


class LayerMoments:
    """What the estimators of variance and sparsity need of one place in one block, summed over tokens.

    Sums are float64 between micro-batches; within one they are float32.

    - `tokens`, `sequences`: how many were seen.
    - `near_zero`: entries that counted as zero.
    - `token_variance`: sum over tokens of the unbiased variance over units.
    - `pooled_variance`: sum over sequences of the unbiased variance over units of the sequence's mean activation.
    - `sum_C`, `square_sum_C`: of each unit.
    """

    def __init__(self, width: int, device: torch.device, zero: NearZero | None = None):
        self.zero = zero or NearZero()
        self.tokens = self.sequences = 0
        self.near_zero = torch.zeros((), dtype=torch.int64, device=device)
        self.token_variance = torch.zeros((), dtype=torch.float64, device=device)
        self.pooled_variance = torch.zeros((), dtype=torch.float64, device=device)
        self.sum_C = torch.zeros(width, dtype=torch.float64, device=device)
        self.square_sum_C = torch.zeros_like(self.sum_C)

    @property
    def width(self) -> int:
        """The number of units, C."""
        return len(self.sum_C)

    def add(self, x_BTC: Float[Tensor, "B T C"], mask_BT: Bool[Tensor, "B T"] | None = None) -> Tensor:
        """Add sequences.

        **Arguments:**

        - `x_BTC`: activations, any float dtype.
        - `mask_BT`: which tokens are real; padding takes no part.

        **Returns:** the squared norm of each real token, of shape `(N,)`, float32, in row order.
        """
        x_BTC = x_BTC.float()
        if mask_BT is None:
            x_NC = x_BTC.reshape(-1, x_BTC.shape[-1])
            lengths_B = torch.full((x_BTC.shape[0],), x_BTC.shape[1], device=x_BTC.device)
            sum_BC = x_BTC.sum(1)
        else:
            x_NC = x_BTC[mask_BT]
            lengths_B = mask_BT.sum(1)
            sum_BC = torch.where(mask_BT[..., None], x_BTC, 0.0).sum(1)
        square_NC = x_NC * x_NC
        square_sum_N = square_NC.sum(1)
        sum_N = x_NC.sum(1).double()
        self.token_variance += ((square_sum_N.double() - sum_N.square() / self.width) / (self.width - 1)).sum()
        self.pooled_variance += (sum_BC.double() / lengths_B[:, None]).var(1).sum()
        self.sum_C += sum_BC.sum(0, dtype=torch.float64)
        self.square_sum_C += square_NC.sum(0)
        self.near_zero += self._count(square_NC, square_sum_N)
        self.tokens += len(x_NC)
        self.sequences += x_BTC.shape[0]
        return square_sum_N

    def _count(self, square_NC: Tensor, square_sum_N: Tensor) -> Tensor:
        epsilon = self.zero.near_zero**2
        if self.zero.relative:
            return torch.count_nonzero(square_NC < epsilon * square_sum_N[:, None] / self.width)
        # Few tokens have an entry so near zero: finding them first is half the work.
        return torch.count_nonzero(square_NC[square_NC.amin(1) < epsilon] < epsilon)

    def merge(self, other: LayerMoments) -> None:
        """Add what another instance has seen."""
        device = self.sum_C.device
        self.tokens += other.tokens
        self.sequences += other.sequences
        for name in ("near_zero", "token_variance", "pooled_variance", "sum_C", "square_sum_C"):
            getattr(self, name).add_(getattr(other, name).to(device))

    def is_finite(self) -> bool:
        """Whether all activations seen were finite."""
        return bool(torch.isfinite(self.square_sum_C).all())

    def variance(self, estimator: str) -> float:
        """Activation variance AV (arXiv 2411.02117).

        **Arguments:**

        - `estimator`: `"official"` (variance over units of each sequence's mean activation, mean over sequences: the
            authors' scripts), `"aifeducation"` (variance over units of the mean activation of all tokens, biased: the R
            port), `"token"` (variance over units of each token, mean over tokens), `"neuron"` (variance over tokens of
            each unit, biased, mean over units).
        """
        if estimator == "official":
            return float(self.pooled_variance / self.sequences)
        if estimator == "token":
            return float(self.token_variance / self.tokens)
        mean_C = self.sum_C / self.tokens
        if estimator == "aifeducation":
            return float(mean_C.var(correction=0))
        if estimator == "neuron":
            return float((self.square_sum_C / self.tokens - mean_C.square()).clamp_min(0).mean())
        raise AuditError(f"unknown estimator {estimator!r}", f"Use one of {', '.join(ESTIMATORS)}")

    def zeros(self, estimator: str) -> tuple[int, int]:
        """How many entries count as zero, and of how many: entries of all tokens, units of the mean for the R port."""
        if estimator != "aifeducation":
            return int(self.near_zero), self.tokens * self.width
        mean_C = self.sum_C / self.tokens
        cut = self.zero.near_zero * (float(mean_C.square().mean().sqrt()) if self.zero.relative else 1.0)
        return int((mean_C.abs() < cut).sum()), self.width
