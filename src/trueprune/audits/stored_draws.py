"""A metric that is no mean of items, read back: what it was on the draws that it was stored with, and on no others.

Legend: n items, R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from trueprune._support.errors import AuditError
from trueprune.audits.draws import fingerprint


@dataclass(frozen=True, eq=False)
class StoredDraws:
    """The `statistic` of a measurement that was read back.

    **Arguments:**

    - `value`: on the items as they are.
    - `draws_R`: on each resample.
    - `counts`: the fingerprint of these resamples.
    - `origin`: with which flags they were drawn, and where they lie.
    """

    value: float
    draws_R: Float[np.ndarray, " R"]
    counts: str
    origin: str

    def __call__(self, counts_Rn: Float[np.ndarray, "R n"]) -> Float[np.ndarray, " R"]:
        """The metric on the stored draws.

        **Raises:** `AuditError` for any others: the answers that the metric is made of are not kept here.
        """
        if len(counts_Rn) == 1 and (counts_Rn == 1).all():
            return np.array([self.value])
        if len(counts_Rn) == len(self.draws_R) and fingerprint(counts_Rn) == self.counts:
            return self.draws_R.copy()
        raise AuditError(
            f"a metric that is no mean of items was stored for {self.origin}, and is asked for other resamples",
            "Give that --resamples and --seed and audit the same items, or audit the model again",
        )
