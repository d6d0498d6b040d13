"""Bring per-block densities to a target without leaving their bounds.

Legend: L blocks.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Real

from trueprune._support.errors import PlanError


def project_keep(
    keep_L: Float[np.ndarray, " L"],
    target: float,
    weights_L: Real[np.ndarray, " L"] | None = None,
    *,
    bounds: tuple[float, float] = (0.001, 1.0),
    fixed_L: Bool[np.ndarray, " L"] | None = None,
) -> Float[np.ndarray, " L"]:
    """The nearest densities whose parameter-weighted mean is the target: `clip(u_l + c, lo, hi)` for one `c`.

    Solves `min ||k - u||^2` subject to `lo <= k <= hi` and `sum w k = target * sum w`, in the metric in which that is
    one shift. With equal weights and inactive bounds `c = target - mean(u)`, which is the released TPLO and OWL code
    exactly; that code clamps afterwards and so misses its target.

    **Arguments:**

    - `keep_L`: wanted densities `u`, of shape `(L,)`.
    - `target`: wanted mean density.
    - `weights_L`: prunable weights of each block; equal by default.
    - `bounds`: the least and the greatest density of a block.
    - `fixed_L`: of shape `(L,)`, bool: blocks that keep their density and leave the correction to the others.

    **Returns:** densities of shape `(L,)`.

    **Raises:** `PlanError` when no densities within the bounds have that mean.
    """
    keep_L = np.asarray(keep_L, dtype=np.float64)
    weights_L = np.ones_like(keep_L) if weights_L is None else np.asarray(weights_L, dtype=np.float64)
    free_L = np.ones(len(keep_L), dtype=bool) if fixed_L is None else ~np.asarray(fixed_L, dtype=bool)
    if not free_L.any():
        raise PlanError("no block is free to take the correction", "Lower the pivot, or use correction='all'")
    low, high = bounds
    result_L = np.clip(keep_L, low, high)
    share = weights_L / weights_L.sum()
    wanted = target - float(share[~free_L] @ result_L[~free_L])
    u, w = keep_L[free_L], share[free_L]
    if not w.sum() * low - 1e-12 <= wanted <= w.sum() * high + 1e-12:
        raise PlanError(
            f"a mean density of {target:.4f} cannot be reached with densities in [{low}, {high}]",
            "Choose a sparsity further from 0 and 1, or wider bounds",
        )
    result_L[free_L] = np.clip(u + _shift(u, w, wanted, low, high), low, high)
    return result_L


def _shift(u: np.ndarray, w: np.ndarray, wanted: float, low: float, high: float) -> float:
    """The `c` with `sum w clip(u + c, low, high) = wanted`: in closed form if no bound is met, else by bisection."""
    shift = float((wanted - w @ u) / w.sum())
    if low <= (u + shift).min() and (u + shift).max() <= high:
        return shift
    left, right = low - u.max(), high - u.min()
    for _ in range(200):
        shift = (left + right) / 2
        if w @ np.clip(u + shift, low, high) < wanted:
            left = shift
        else:
            right = shift
    return (left + right) / 2
