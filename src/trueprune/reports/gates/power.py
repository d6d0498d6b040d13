"""How many items would decide a bound that an interval straddles.

A change of value d with standard error s is shown to keep (or break) a bound b, at 95 % and in 80 of 100
repetitions, if |d - b| >= (z_0.975 + z_0.8) s. The error falls with the root of the items, so n items call for
n ((z_0.975 + z_0.8) s / |d - b|)^2: the textbook calculation of a sample's size (Cohen 1988, chapter 2), with the
standard error of the bootstrap in the place of a formula's. It takes the value that was measured for the true one.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from trueprune.reports.gates.contract import Check

CONFIDENCE, POWER = 0.975, 0.8
REACH = NormalDist().inv_cdf(CONFIDENCE) + NormalDist().inv_cdf(POWER)
# What the items of an instrument are, and the option that gives more of them.
ITEMS = {
    "perplexity": ("windows of text", "--max-tokens, --text"),
    "lie-detection": ("statements", "--per-dataset, --statements"),
    "separation": ("statements", "--per-dataset, --statements"),
    "efficiency": ("rounds", "--timing-rounds"),
    "accuracy": ("questions", "--items"),
    "calibration": ("questions", "--items"),
    "faithfulness": ("explained answers", "--explained, --items"),
    "open-qa": ("questions", "--qa-items, --qa"),
    "truthfulness": ("questions", "--qa-items, --qa"),
    "truthful-generation": ("questions", "--qa-items, --qa"),
}


def items_needed(value: float, error: float, n: int, check: Check) -> int | None:
    """About how many items, in clusters like those measured, would decide a bound if the value stays.

    **Arguments:**

    - `value`, `error`, `n`: of the bounded quantity: its value, standard error and items.
    - `check`: the bound; of two sides the nearer one counts.

    **Returns:** rounded up to two digits; `None` where the value lies on the bound, which no number of items decides.
    """
    distance = min(abs(value - bound) for bound in (check.at_least, check.at_most) if bound is not None)
    # Differences of shares come with rounding.
    if not math.isfinite(error) or distance <= 1e-9 * max(1.0, abs(value)):
        return None
    return two_digits(max(n + 1.0, n * (REACH * error / distance) ** 2))


def two_digits(number: float) -> int:
    """Rounded up to two digits: 1234 becomes 1300."""
    step = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return math.ceil(number / step) * step
