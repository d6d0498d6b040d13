"""OWL: blocks with more outliers keep more (arXiv 2310.05175).

Legend: L blocks.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from trueprune._support.errors import PlanError
from trueprune.plans.evidence import AllocationOptions, Evidence, Wanted


def owl_keep(outliers_L: Float[np.ndarray, " L"], sparsity: float, lam: float = 0.08) -> Float[np.ndarray, " L"]:
    """Densities `r - mean(r) + (1 - S)` with `r = 2 lam (D - min D) / (max D - min D)`.

    Their range is `2 lam` wide, though not centred on the target unless `mean(r) = lam`, as the paper's text has it.
    If all blocks have equally many outliers, all get the target (the released code divides zero by zero).

    **Arguments:**

    - `outliers_L`: outlier percentages `D`, of shape `(L,)`.
    - `sparsity`: target `S`.
    - `lam`: half the range of densities.

    **Returns:** of shape `(L,)`, with mean `1 - S`, not clipped.
    """
    outliers_L = np.asarray(outliers_L, dtype=np.float64)
    spread = outliers_L.max() - outliers_L.min()
    if spread == 0:
        return np.full(len(outliers_L), 1 - sparsity)
    r_L = 2 * lam * (outliers_L - outliers_L.min()) / spread
    return r_L - r_L.mean() + (1 - sparsity)


def want_owl(evidence: Evidence, sparsity: float, options: AllocationOptions) -> Wanted:
    """`owl_keep` of the observed outliers.

    **Raises:** `PlanError` if outliers were not observed.
    """
    if evidence.outliers is None:
        raise PlanError("OWL needs the outlier percentage of each block", "Observe it with calibration tokens")
    return Wanted(owl_keep(np.array(evidence.outliers), sparsity, options.lam))
