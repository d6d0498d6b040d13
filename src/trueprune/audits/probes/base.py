"""What every truth probe is given and gives back, so that a new probe is one file and one registration line.

Legend: N rows (statements), D width of the residual stream, K features of a small regression.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from trueprune._support.errors import AuditError


@dataclass(frozen=True)
class ProbeOptions:
    """How the regressions inside the probes are solved.

    **Arguments:**

    - `penalty`: L2 penalty of the logistic regressions in D dimensions, on standardised features: the objective is the
        *sum* of the losses + penalty/2 · ‖w‖². The default was chosen on a 135M-parameter Llama-shaped model (30
        blocks, D = 576, about 1,260 training statements of six "Truth is Universal" topics, grouped 70/30 splits) as
        the middle of the flat region: at the blocks where the probe works best, accuracy stays within about one
        point of its best from 10 to 100 (.692 at 30 in block 14), and falls on either side (.643 at 0.01, .601 at
        10,000). TTPD's accuracy moves by less than one point over the whole range.
    - `reference`: solve every regression as the papers' code does, without a penalty, on raw activations, by
        scikit-learn's lbfgs stopped after 100 iterations. Slow; the outcome depends on where the solver stops.
    - `seed`: seed of random initial weights (CCS only; the other probes are deterministic).
    """

    penalty: float = 30.0
    reference: bool = False
    seed: int = 0

    def __post_init__(self):
        if not (isfinite(self.penalty) and self.penalty > 0):
            raise AuditError(
                f"the probe penalty is {self.penalty}",
                "Give a finite penalty above 0, or `reference=True` for regressions without one",
            )


@dataclass(frozen=True, eq=False)
class ProbeData:
    """Training rows of a probe.

    **Arguments:**

    - `acts_ND`: residual stream at the last token, one layer, of shape `(N, D)`, float32.
    - `labels_N`: 1 true, 0 false, of shape `(N,)`, int64.
    - `polarity_N`: +1 affirmative, -1 negated, 0 anything else, of shape `(N,)`.
    - `topics`: of shape `(N,)`, strings; a *dataset*, within which activations are centred, is topic x polarity.
    - `groups`: of shape `(N,)`, strings; the statements of one fact share a group.
    """

    acts_ND: torch.Tensor
    labels_N: torch.Tensor
    polarity_N: torch.Tensor
    topics: np.ndarray
    groups: np.ndarray

    def __post_init__(self):
        n = len(self.acts_ND)
        for name in ("labels_N", "polarity_N", "topics", "groups"):
            if len(getattr(self, name)) != n:
                raise AuditError(f"probe data has {n} rows of activations and {len(getattr(self, name))} {name}")


@runtime_checkable
class Probe(Protocol):
    """A fitted probe: it says "true" where its logit is above 0."""

    def logits(self, acts_ND: torch.Tensor, polarity_N: torch.Tensor | None = None) -> torch.Tensor:
        """Log-odds of "true".

        **Arguments:**

        - `acts_ND`: of shape `(N, D)`.
        - `polarity_N`: +1, -1 or 0 (as in `ProbeData`), of shape `(N,)`; all 0 by default. Only CCS reads it.

        **Returns:**

        Of shape `(N,)`.
        """
        ...


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """An affine probe: logit = a · w + b.

    **Arguments:**

    - `weight_D`: of shape `(D,)`, on raw activations, float64.
    - `bias`: the intercept.
    """

    weight_D: torch.Tensor
    bias: float

    def logits(self, acts_ND: torch.Tensor, polarity_N: torch.Tensor | None = None) -> torch.Tensor:
        """Log-odds of "true", of shape `(N,)`; `polarity_N` is not read."""
        return acts_ND.double() @ self.weight_D + self.bias


def require_both_classes(labels_N: torch.Tensor, what: str = "labels") -> None:
    """Raise `AuditError` unless both 0 and 1 occur in `labels_N`, of shape `(N,)`."""
    ones = int(labels_N.sum())
    if ones in (0, len(labels_N)):
        raise AuditError(
            f"all {len(labels_N)} {what} in a training set of a probe are of one class",
            "Give more statements, both true and false in every topic",
        )
