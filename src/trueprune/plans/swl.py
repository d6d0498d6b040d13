"""SWL: blocks in which true and false statements lie further apart keep more (arXiv 2509.00096, `wanda_option1`).

Legend: L blocks, S datasets.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from trueprune._support.errors import PlanError
from trueprune.plans.evidence import AllocationOptions, Evidence, Wanted


def separation_share(evidence: Evidence) -> np.ndarray:
    """`p_l`, each block's share of the separation averaged over datasets; of shape `(L,)`, summing to 1.

    **Raises:** `PlanError` if separation was not observed or is nowhere.
    """
    if not evidence.separation:
        raise PlanError("SWL and TPLO need true/false separation ratios", "Observe them on statements")
    ratios_SL = np.array(list(evidence.separation.values()), dtype=np.float64)
    totals_S1 = ratios_SL.sum(1, keepdims=True)
    if not (totals_S1 > 0).all():
        raise PlanError("true and false statements coincide in every block", "Give statements whose labels differ")
    return (ratios_SL / totals_S1).mean(0)


def swl_keep(share_L: Float[np.ndarray, " L"], sparsity: float, scale: float = 0.04) -> Float[np.ndarray, " L"]:
    """Densities `(1 - S) + k (L p_l - 1)`.

    **Arguments:**

    - `share_L`: `p`, of shape `(L,)`, summing to 1.
    - `sparsity`: target `S`.
    - `scale`: `k`; 0.04 in the released code, 0.08 in the notebook that draws the paper's density figure.

    **Returns:** of shape `(L,)`, with mean `1 - S`, not clipped.
    """
    share_L = np.asarray(share_L, dtype=np.float64)
    return (1 - sparsity) + scale * (len(share_L) * share_L - 1)


def want_swl(evidence: Evidence, sparsity: float, options: AllocationOptions) -> Wanted:
    """`swl_keep` of the observed separation."""
    share_L = separation_share(evidence)
    return Wanted(swl_keep(share_L, sparsity, options.scale), found={"separation_share": share_L.tolist()})
