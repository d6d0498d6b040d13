"""Token ids that a model is calibrated on, packed or padded.

Legend: N sequences, T tokens a sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from trueprune._support.errors import TextError
from trueprune._support.hashing import hash_tensors


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """Sequences of token ids.

    **Arguments:**

    - `ids_NT`: of shape `(N, T)`, int64.
    - `mask_NT`: of shape `(N, T)`, bool, `True` for a real token; `None` when nothing is padded. Padding of a row lies
        on one side, and takes no part in any statistic.
    - `origin`: plain data about where the tokens came from.
    """

    ids_NT: Tensor
    mask_NT: Tensor | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if self.ids_NT.dim() != 2 or self.ids_NT.numel() == 0:
            raise TextError(f"calibration tokens have the shape {tuple(self.ids_NT.shape)}", "Give (samples, tokens)")
        if self.mask_NT is not None and not self.mask_NT.any(1).all():
            raise TextError("a calibration row is all padding", "Remove empty texts")

    @property
    def lengths(self) -> list[int]:
        """Real tokens of each sequence."""
        if self.mask_NT is None:
            return [self.ids_NT.shape[1]] * self.ids_NT.shape[0]
        return self.mask_NT.sum(1).tolist()

    @property
    def hash(self) -> str:
        """SHA-256 of ids and mask."""
        mask = torch.ones_like(self.ids_NT, dtype=torch.bool) if self.mask_NT is None else self.mask_NT
        return hash_tensors({"ids": self.ids_NT, "mask": mask})
