"""The reliability table: what a calibration error sums up, bin by bin, with the uncertainty of each bin.

Legend: N items, M bins.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from trueprune.audits.confidence.binned import DEFAULT_BINS
from trueprune.audits.confidence.bins import check_bins, equal_width
from trueprune.audits.confidence.check import check_confidence

NORMAL_95 = 1.959963984540054


@dataclass(frozen=True, eq=False)
class ReliabilityTable:
    """Confidence against accuracy in bins of equal width; NaN in an empty bin.

    **Arguments:**

    - `lower_M`, `upper_M`: edges; a bin is `(lower, upper]`.
    - `count_M`: items.
    - `confidence_M`, `accuracy_M`: means.
    - `low_M`, `high_M`: Wilson's interval of the accuracy at 95 %.
    """

    lower_M: Float[np.ndarray, " M"]
    upper_M: Float[np.ndarray, " M"]
    count_M: Float[np.ndarray, " M"]
    confidence_M: Float[np.ndarray, " M"]
    accuracy_M: Float[np.ndarray, " M"]
    low_M: Float[np.ndarray, " M"]
    high_M: Float[np.ndarray, " M"]

    def as_dict(self) -> dict[str, list[float | None]]:
        """Plain lists by name (`lower`, `upper`, `count`, ...), `None` in an empty bin."""
        columns = {field.name.removesuffix("_M"): getattr(self, field.name) for field in fields(self)}
        return {name: [None if np.isnan(v) else float(v) for v in values] for name, values in columns.items()}


def reliability_table(
    confidence_N: npt.ArrayLike, correct_N: npt.ArrayLike, bins: int = DEFAULT_BINS
) -> ReliabilityTable:
    """Confidence against accuracy, bin by bin (Guo et al. 2017, arXiv 1706.04599, section 2).

    **Arguments:**

    - `confidence_N`: of shape `(N,)`, in [0, 1].
    - `correct_N`: of shape `(N,)`, in [0, 1].
    - `bins`: M.

    **Raises:** `AuditError` for arrays that `check_confidence` refuses.
    """
    confidence_N, correct_N = check_confidence(confidence_N, correct_N)
    sums = equal_width(confidence_N, np.ones((1, len(correct_N))), correct_N[None], check_bins(bins))
    count_M = sums.count_RM[0]
    number_M = np.where(count_M > 0, count_M, np.nan)
    low_M, high_M = wilson_interval(sums.right_RM[0], number_M)
    edges = np.arange(bins + 1) / bins
    confidence_M, accuracy_M = sums.confidence_RM[0] / number_M, sums.right_RM[0] / number_M
    return ReliabilityTable(edges[:-1], edges[1:], count_M, confidence_M, accuracy_M, low_M, high_M)


def wilson_interval(
    right_M: Float[np.ndarray, " M"], count_M: Float[np.ndarray, " M"]
) -> tuple[Float[np.ndarray, " M"], Float[np.ndarray, " M"]]:
    """Wilson's score interval of a proportion at 95 % (Wilson 1927, JASA 22:209).

    **Arguments:**

    - `right_M`: successes, which may be fractions.
    - `count_M`: trials, above zero or NaN.

    **Returns:** lower and upper bounds, within [0, 1].
    """
    share_M, z2_M = right_M / count_M, NORMAL_95**2 / count_M
    centre_M = (share_M + z2_M / 2) / (1 + z2_M)
    half_M = np.sqrt(z2_M * (share_M * (1 - share_M) + z2_M / 4)) / (1 + z2_M)
    return np.clip(centre_M - half_M, 0, 1), np.clip(centre_M + half_M, 0, 1)
