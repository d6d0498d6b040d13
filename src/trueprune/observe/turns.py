"""How far the residual stream turns: cosines at every token, angles at last tokens.

Legend: N tokens that are not padding, S sequences, L blocks, D residual width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(eq=False)
class TurnSum:
    """Sums over tokens of the cosine between a vector and what it becomes, over last tokens of the angle."""

    cosine: float = 0.0
    angle: float = 0.0
    tokens: int = 0
    sequences: int = 0

    def add(self, before_NN: Tensor, dot_N: Tensor, change_NN: Tensor, ends_S: Tensor) -> None:
        """Add tokens whose vector `x` became `x + u`.

        **Arguments:**

        - `before_NN`: `|x|^2`, of shape `(N,)`, float64, as the rest.
        - `dot_N`: `x u`.
        - `change_NN`: `|u|^2`.
        - `ends_S`: which tokens are the last of their sequence.
        """
        along_N = before_NN + dot_N
        # |x|^2 |x + u|^2 = (x (x + u))^2 + (|x|^2 |u|^2 - (x u)^2): exact also where the angle is small.
        across_N = (before_NN * change_NN - dot_N.square()).clamp_min(0).sqrt()
        self.cosine += float((along_N / torch.hypot(along_N, across_N).clamp_min(1e-300)).sum())
        self.angle += float(torch.atan2(across_N[ends_S], along_N[ends_S]).sum()) / math.pi
        self.tokens += len(before_NN)
        self.sequences += len(ends_S)


def angles_by_gap(last_LSD: Float[Tensor, "M S D"]) -> np.ndarray:
    """Angular distance of the residual stream between any two depths, at last tokens (arXiv 2403.17887, eq. 8).

    `d(l, l + n) = mean_s arccos(cos(x_l, x_{l+n})) / pi`.

    **Arguments:**

    - `last_LSD`: the stream before block 0 to L - 1 and after the last, of shape `(M, S, D)` with `M = L + 1`.

    **Returns:** of shape `(L, L)`, entry `[l, n - 1]`; NaN where `l + n > L`.
    """
    unit_SLD = torch.nn.functional.normalize(last_LSD.double(), dim=-1).transpose(0, 1)
    angles = (torch.bmm(unit_SLD, unit_SLD.mT).clamp(-1, 1).arccos() / math.pi).mean(0).numpy()
    n_blocks = len(last_LSD) - 1
    result = np.full((n_blocks, n_blocks), math.nan)
    for gap in range(1, n_blocks + 1):
        result[: n_blocks + 1 - gap, gap - 1] = np.diagonal(angles, gap)
    return result


def pick(x_BTD: Tensor, mask_BT: Tensor | None) -> Tensor:
    """The real tokens, of shape `(N, D)`."""
    return x_BTD.reshape(-1, x_BTD.shape[-1]) if mask_BT is None else x_BTD[mask_BT]


def dot_of(x_BTD: Tensor, y_BTD: Tensor, mask_BT: Tensor | None) -> Tensor:
    """Products of each real token, of shape `(N,)`, float64."""
    dot_BT = (x_BTD * y_BTD).sum(-1).double()
    return dot_BT.reshape(-1) if mask_BT is None else dot_BT[mask_BT]


def last_positions(x_BTD: Tensor, mask_BT: Tensor | None) -> tuple[Tensor, Tensor]:
    """Row and column of each sequence's last real token."""
    rows, width = x_BTD.shape[:2]
    rows_B = torch.arange(rows, device=x_BTD.device)
    if mask_BT is None:
        return rows_B, torch.full_like(rows_B, width - 1)
    return rows_B, width - 1 - mask_BT.flip(1).long().argmax(1)


def ends_of(x_BTD: Tensor, mask_BT: Tensor | None) -> Tensor:
    """The last real token of each sequence, as an index into the real tokens."""
    rows, width = x_BTD.shape[:2]
    if mask_BT is None:
        return torch.arange(1, rows + 1, device=x_BTD.device) * width - 1
    return mask_BT.sum(1).cumsum(0) - 1
