"""Uniform: every block loses the same share."""

from __future__ import annotations

import numpy as np

from trueprune.plans.evidence import AllocationOptions, Evidence, Wanted


def want_uniform(evidence: Evidence, sparsity: float, options: AllocationOptions) -> Wanted:
    """`1 - sparsity` for every block."""
    return Wanted(np.full(len(evidence.weights), 1 - sparsity))
