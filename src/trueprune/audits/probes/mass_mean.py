"""Mass-mean: the difference of the class means as the truth direction (arXiv 2310.06824)."""

from __future__ import annotations

from trueprune.audits.probes.base import LinearProbe, ProbeData, ProbeOptions, require_both_classes
from trueprune.audits.probes.logistic import SMALL_PENALTY, solve


def fit(data: ProbeData, options: ProbeOptions) -> LinearProbe:
    """Mass-mean probe: d = mean(a | true) - mean(a | false), then a one-dimensional logistic regression on a · d.

    **Arguments:**

    - `data`: the training rows.
    - `options`: with `reference=True` the one-dimensional regression has no penalty; otherwise a ridge of
        `SMALL_PENALTY` keeps it finite on separable data.

    **Returns:**

    The probe; its weight is parallel to d.
    """
    require_both_classes(data.labels_N)
    acts_ND, true_N = data.acts_ND.double(), data.labels_N == 1
    direction_D = acts_ND[true_N].mean(0) - acts_ND[~true_N].mean(0)
    slope_1, bias = solve((acts_ND @ direction_D)[:, None], data.labels_N, SMALL_PENALTY, options.reference)
    return LinearProbe(slope_1 * direction_D, bias)
