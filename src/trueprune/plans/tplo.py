"""TPLO: OWL's densities before the pivot, separation-driven ones from it on (arXiv 2509.00096, `owl_option2`).

Legend: L blocks.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from trueprune._support.errors import PlanError
from trueprune.plans.evidence import AllocationOptions, Evidence, Wanted
from trueprune.plans.owl import owl_keep, want_owl
from trueprune.plans.swl import separation_share, swl_keep


def auto_pivot(owl_L: Float[np.ndarray, " L"], swl_L: Float[np.ndarray, " L"]) -> int:
    """One after the first block in which SWL's density exceeds OWL's.

    The released code holds three pivots for three model names. With SWL at `k = 0.08` this rule gives each of them
    (Llama-3-8B 10, Llama-2-13B 12; both are tested), so it is used for every model. Where the curves never cross, the
    pivot is two blocks before the peak of SWL's curve, which also lies near the released values.

    **Arguments:**

    - `owl_L`: OWL's densities, of shape `(L,)`.
    - `swl_L`: SWL's densities, of shape `(L,)`.

    **Returns:** a block index in `[0, L)`.
    """
    crossing = np.flatnonzero(np.asarray(swl_L) > np.asarray(owl_L))
    pivot = crossing[0] + 1 if len(crossing) else int(np.argmax(swl_L)) - 2
    return int(np.clip(pivot, 0, len(swl_L) - 1))


def tplo_wanted(owl_L: Float[np.ndarray, " L"], swl_L: Float[np.ndarray, " L"], pivot: int) -> Float[np.ndarray, " L"]:
    """`u_l`: OWL's density for `l < pivot`, SWL's for `l >= pivot`; the target is not yet restored.

    **Arguments:** densities of shape `(L,)` and a block index.
    """
    return np.where(np.arange(len(owl_L)) < pivot, owl_L, swl_L)


def tplo_keep(
    outliers_L: Float[np.ndarray, " L"],
    share_L: Float[np.ndarray, " L"],
    sparsity: float,
    *,
    lam: float = 0.08,
    scale: float = 0.04,
    pivot: int | None = None,
    pivot_scale: float = 0.08,
) -> np.ndarray:
    """TPLO's densities for blocks of equal size and inactive bounds: `u - (mean(u) - (1 - S))`.

    **Arguments:**

    - `outliers_L`: outlier percentages, of shape `(L,)`.
    - `share_L`: separation shares `p`, of shape `(L,)`.
    - `sparsity`, `lam`, `scale`: as for OWL and SWL.
    - `pivot`: block index, or `None` to find it with `pivot_scale`.

    **Returns:** of shape `(L,)`, with mean `1 - S`, not clipped.
    """
    owl_L = owl_keep(outliers_L, sparsity, lam)
    if pivot is None:
        pivot = auto_pivot(owl_L, swl_keep(share_L, sparsity, pivot_scale))
    u_L = tplo_wanted(owl_L, swl_keep(share_L, sparsity, scale), pivot)
    return u_L - (u_L.mean() - (1 - sparsity))


def check_pivot(options: AllocationOptions, n_blocks: int) -> None:
    """Refuse a pivot that is no block.

    **Raises:** `PlanError`.
    """
    if options.pivot != "auto" and not 0 <= options.pivot < n_blocks:
        raise PlanError(f"the pivot {options.pivot} is no block of {n_blocks}", f"Use 0 to {n_blocks - 1}, or auto")


def want_tplo(evidence: Evidence, sparsity: float, options: AllocationOptions) -> Wanted:
    """The joined densities of the observed outliers and separation, and the pivot.

    **Raises:** `PlanError` if either was not observed, or the pivot is no block.
    """
    owl_L = want_owl(evidence, sparsity, options).keep_L
    share_L = separation_share(evidence)
    n_blocks = len(owl_L)
    check_pivot(options, n_blocks)
    if options.pivot == "auto":
        pivot = auto_pivot(owl_L, swl_keep(share_L, sparsity, options.pivot_scale))
    else:
        pivot = options.pivot
    keep_L = tplo_wanted(owl_L, swl_keep(share_L, sparsity, options.scale), pivot)
    fixed_L = np.arange(n_blocks) < pivot if options.correction == "tail" else None
    return Wanted(keep_L, fixed_L, {"separation_share": share_L.tolist(), "pivot": pivot})
