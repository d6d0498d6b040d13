"""Which changes are more than chance, counting how many were looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trueprune.audits.measurement import Measurement
from trueprune.reports.paired import Estimate

LEVEL = 0.05
# With fewer independent items the standard error of a bootstrap is itself a guess.
LEAST_ITEMS = 10


@dataclass(frozen=True)
class ChangeTest:
    """A test of no change.

    **Arguments:**

    - `name`: `mcnemar` (exact, for right and wrong answers) or `bootstrap`.
    - `p`: two-sided.
    - `p_adjusted`: after Holm's correction, of a headline metric for all headline tests of the report, of any other for
        all tests.
    """

    name: str
    p: float
    p_adjusted: float

    @property
    def significant(self) -> bool:
        """Whether the change stands at 5 % among all that were tested."""
        return self.p_adjusted < LEVEL


def p_value(before: Measurement, after: Measurement, change: Estimate) -> tuple[str, float] | None:
    """The p-value of no change between two models.

    Right and wrong answers to independent items: McNemar's exact test. Anything else: the change over its standard
    error from the paired bootstrap, against the normal distribution; the share of resamples beyond zero itself could
    not get below 1/R, which a correction for many tests would turn into nothing.

    **Arguments:**

    - `before`, `after`: the metric of both models.
    - `change`: its paired change.

    **Returns:** the test's name and p, or `None` for what is counted, not sampled, and for fewer than ten clusters.
    """
    if len(set(before.item_ids if before.clusters is None else before.clusters)) < LEAST_ITEMS:
        return None
    if _binary(before) and _binary(after):
        return "mcnemar", mcnemar(before.values, after.values)
    if not np.isfinite(change.error) or change.error == 0:
        return None if change.value else ("bootstrap", 1.0)
    return "bootstrap", math.erfc(abs(change.value) / change.error / math.sqrt(2))


def _binary(measurement: Measurement) -> bool:
    plain = measurement.statistic is None and measurement.weights is None and measurement.reduction == "mean"
    clusters = measurement.clusters
    independent = clusters is None or len(set(clusters)) == measurement.n
    return plain and independent and bool(np.isin(measurement.values, (0.0, 1.0)).all())


def mcnemar(before_n: np.ndarray, after_n: np.ndarray) -> float:
    """The exact two-sided p-value of McNemar (1947): of the items that one model alone has right, half are either's.

    **Arguments:**

    - `before_n`, `after_n`: 1 right, 0 wrong, of the same items.
    """
    lost = int(((before_n == 1) & (after_n == 0)).sum())
    won = int(((before_n == 0) & (after_n == 1)).sum())
    total, fewer = lost + won, min(lost, won)
    # In logarithms: binomials of a thousand items are beyond floating point.
    tail = [math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) for k in range(fewer + 1)]
    return min(1.0, 2 * sum(math.exp(term - total * math.log(2)) for term in tail))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p-values, in the order given: they bound the chance of one false alarm among all."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted.tolist()
