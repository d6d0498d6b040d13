"""Paired comparison of two models on the same items: cluster bootstrap intervals.

Legend: n items, G clusters, R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trueprune._support.errors import AuditError
from trueprune.audits.draws import paired_resamples, resampled
from trueprune.audits.measurement import Measurement

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number and its interval.

    **Arguments:**

    - `value`: the number on all items.
    - `interval`: percentile bootstrap bounds at 95 %, the bootstrap's own bias taken off.
    - `n`: items.
    - `error`: the standard error, from the same resamples.
    """

    value: float
    interval: tuple[float, float]
    n: int
    error: float = float("nan")


def estimate(measurement: Measurement, *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """The metric of one model with its interval.

    Whole clusters are drawn with replacement (variants of one fact are not independent). The interval tells how far
    the value would move on other items; a retrained probe's own variation is not in it.

    **Arguments:**

    - `measurement`: what was measured.
    - `resamples`: R.
    - `seed`: of the draws; the same items and seed give the same draws, whatever the metric.
    """
    return _estimate(resampled(measurement, resamples, seed), measurement.value, measurement.n)


def paired_change(before: Measurement, after: Measurement, *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """`after - before` of one metric on the same items, each resample drawn for both at once.

    **Arguments:**

    - `before`, `after`: the metric of the dense and of the pruned model.
    - `resamples`, `seed`: as for `estimate`.

    **Raises:** `AuditError` if the two were measured on different items.
    """
    _refuse_other_items(before, after)
    before_R, after_R = paired_resamples(before, after, resamples, seed)
    return _estimate(after_R - before_R, after.value - before.value, before.n)


def paired_ratio(before: Measurement, after: Measurement, *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """`after / before` of one metric on the same items, each resample drawn for both at once.

    The bootstrap's own bias is taken off as a factor, so that a ratio of positive numbers has positive bounds; that is
    ours.

    **Arguments:**

    - `before`, `after`: the metric of the dense and of the pruned model.
    - `resamples`, `seed`: as for `estimate`.

    **Raises:** `AuditError` as `paired_change`; `UndefinedRatioError` if the dense value is zero, or so near to
    it that some resamples are.
    """
    _refuse_other_items(before, after)
    (before_R, after_R), value = paired_resamples(before, after, resamples, seed), before.value
    defined_R = np.isfinite(before_R) & np.isfinite(after_R)
    if value <= 0 or (before_R[defined_R] <= 0).any():
        raise UndefinedRatioError(
            f"{before.instrument} {before.metric} of the dense model is {value:.4g}: too near to zero for a ratio",
            "Bound the change instead",
        )
    ratio_R, ratio = after_R[defined_R] / before_R[defined_R], after.value / value
    if not len(ratio_R):
        raise AuditError("no resample of the items leaves the metric defined", "Give more items")
    mean = ratio_R.mean()
    return _estimate(ratio_R * (ratio / mean if mean > 0 else 1.0), ratio, before.n)


class UndefinedRatioError(AuditError):
    """A ratio to a dense value that may be zero."""


def _refuse_other_items(before: Measurement, after: Measurement) -> None:
    if list(before.item_ids) == list(after.item_ids):
        return
    first, second = set(before.item_ids), set(after.item_ids)
    differ = first ^ second
    how = f"(the same {before.n} in another order)"
    if differ:
        only = {"first": first - second, "second": second - first}
        sides = [f"{len(items)} only in the {name}{_examples(items)}" for name, items in only.items()]
        how = f"({len(differ)} differ, e.g. {min(differ)}): {', '.join(sides)}, {len(first & second)} in both"
    raise AuditError(
        f"{before.instrument} {before.metric}: the two models were measured on different items {how}",
        "Audit both in one run, or with the same options",
    )


def _examples(items: set[str]) -> str:
    few = sorted(items)[:3]
    return f" ({' '.join(few)}{' ...' if len(items) > len(few) else ''})" if few else ""


def _estimate(values_R: np.ndarray, value: float, n: int) -> Estimate:
    values_R = values_R[np.isfinite(values_R)]
    if not len(values_R):
        raise AuditError("no resample of the items leaves the metric defined", "Give more items")
    return Estimate(value, _bounds(values_R, value), n, float(values_R.std()))


def _bounds(values_R: np.ndarray, value: float) -> tuple[float, float]:
    """Percentiles centred on the value: a ratio of variances grows when items repeat, which is no news about it."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values_R - values_R.mean() + value, [tail, 1 - tail])
    return float(low), float(high)
