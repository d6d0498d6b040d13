"""Intervals where the bootstrap has none, since all resamples say the same: a dozen answers alike are no proof.

That no answer in n changed says that at most 1 - 0.025^(1/n) do, at 97.5 % (Clopper and Pearson 1934; 3.7 / n, the
"rule of three" of Hanley and Lippman-Hand 1983 at the confidence of our intervals). That this stands in the place of a
bootstrap without width is ours.

Legend: G independent items.
"""

from __future__ import annotations

import math
from dataclasses import replace

from trueprune.audits.measurement import Measurement
from trueprune.audits.metrics import metrics_meant
from trueprune.reports.gates.contract import Check
from trueprune.reports.gates.power import two_digits
from trueprune.reports.paired import Estimate

MISSED = 0.025
NO_REACH = (math.inf, math.inf)


def counted(measurement: Measurement) -> bool:
    """Whether a number is exact, as bytes and parameters are, and not of a sample that happens to have one item."""
    return measurement.instrument == "efficiency" and measurement.n == 1


def independent(measurement: Measurement) -> int:
    """G: the clusters of a measurement, or its items where they have none."""
    return len(set(measurement.item_ids if measurement.clusters is None else measurement.clusters))


def unseen(items: int) -> float:
    """The largest share that may differ where none of so many independent items did, at 97.5 %."""
    return 1 - MISSED ** (1 / items)


def widened(found: Estimate, own: Measurement, check: Check) -> tuple[Estimate, str]:
    """An estimate whose interval has a width, and a note where that is not the bootstrap's.

    **Arguments:**

    - `found`: of the bounded quantity, as the bootstrap has it.
    - `own`: what was measured on the model.
    - `check`: the bound.
    """
    items = independent(own)
    if counted(own) or found.error > 1e-12 * max(1.0, abs(found.value)):
        return found, ""
    reach = _reach(own, found, check)
    if reach is None and items > 1:
        return found, ""
    low, high = reach or NO_REACH
    share, few = unseen(items), f"all {items} independent items say the same, and others may not"
    interval = (found.value - share * low, found.value + share * high)
    return replace(found, interval=interval), few if items > 1 else "one independent item says nothing of others"


def items_to_see(found: Estimate, own: Measurement, check: Check) -> int | None:
    """About how many items would decide a bound if all of them said the same, too; `None` if none could, or unknown.

    **Arguments:**

    - `found`, `own`, `check`: as for `widened`.
    """
    reach = _reach(own, found, check)
    if reach is None:
        return None
    low, high = reach
    needed = 0.0
    for bound in (check.at_least, check.at_most):
        if bound is None:
            continue
        towards, distance = (low if bound < found.value else high), abs(found.value - bound)
        if distance <= 1e-9 * max(1.0, abs(found.value)):
            return None
        if distance < towards:
            needed = max(needed, math.log(MISSED) / math.log1p(-distance / towards))
    return two_digits(max(own.n + 1.0, needed * own.n / independent(own)))


def _reach(own: Measurement, found: Estimate, check: Check) -> tuple[float, float] | None:
    """How far below and above its value a mean of items would lie if all others were as far off as they can be."""
    forms = metrics_meant(own.instrument, own.metric)
    low = min((form.low for form in forms), default=-math.inf)
    high = max((form.high for form in forms), default=math.inf)
    of_items = own.statistic is None and own.reduction == "mean" and type(own).resample is Measurement.resample
    if not of_items or not math.isfinite(high - low):
        return None
    if check.quantity == "value":
        return found.value - low, high - found.value
    # A ratio is one and the change in parts of the dense value.
    dense = own.value / found.value if check.quantity == "ratio" and found.value else 1.0
    change = own.value - dense if check.quantity == "ratio" else found.value
    return (change + high - low) / dense, (high - low - change) / dense
