"""One temperature for all scores, because it mends overconfidence without changing any answer (Guo et al. 2017).

Legend: N items, C options.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import exp, isfinite, log, sqrt
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from trueprune._support.errors import RepairError
from trueprune.repairs.base import REFIT, check_items, check_scores, log_probabilities, mean_nll, read_number

# Between these lies every temperature that is worth dividing by; beyond them the items say "always" or "never".
LOWEST, HIGHEST = 0.05, 20.0
Bound = Literal["lower", "upper"]


@dataclass(frozen=True)
class Temperature:
    """softmax(z / T): Guo et al. 2017 (arXiv 1706.04599), section 4.2. The order of the options is kept.

    **Arguments:**

    - `temperature`: T, above 0. Above 1 it takes confidence away.
    - `at_bound`: `"lower"` or `"upper"` where the best T lies at or beyond that end of [0.05, 20].
    """

    temperature: float
    at_bound: Bound | None = None

    def __post_init__(self):
        if not (isfinite(self.temperature) and self.temperature > 0):
            raise RepairError(f"a temperature of {self.temperature} is not above 0 and finite", REFIT)

    def probabilities(self, scores_NC: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "N C"]:
        """softmax(z / T); see `Recalibration`."""
        return np.exp(log_probabilities(check_scores(scores_NC) / self.temperature))

    def to_json(self) -> dict[str, Any]:
        """Plain data; see `Recalibration`."""
        return {"schema": 1, "method": "temperature", "temperature": self.temperature, "at_bound": self.at_bound}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Temperature:
        """Read `to_json` back.

        **Raises:** `RepairError`.
        """
        if (at_bound := data.get("at_bound")) not in (None, "lower", "upper"):
            raise RepairError(f"'at_bound' of a saved recalibration is {at_bound!r}", REFIT)
        return cls(read_number(data, "temperature"), at_bound)


def fit_temperature(scores_NC: Float[np.ndarray, "N C"], gold_N: Int[np.ndarray, " M"]) -> Temperature:
    """The T in [0.05, 20] of least negative log-likelihood: Guo et al. 2017, section 4.2.

    The likelihood is convex in 1/T, so the root of its derivative is bracketed and halved to the last bit. Where all
    items are answered right (or wrong enough) there is no root: the bound is taken, with a `UserWarning` and
    `at_bound`.

    **Arguments:**

    - `scores_NC`: log-scores of the options on held-out items; -inf for options that an item lacks.
    - `gold_N`: the right options, counted from 0.

    **Returns:** the fit; its likelihood on these items is never below that of T = 1.

    **Raises:** `RepairError` for bad items (see `check_items`), or if no item prefers any option.
    """
    scores_NC = check_items(scores_NC, gold_N)
    z_NC = scores_NC - scores_NC.max(1, keepdims=True)
    finite_NC = np.where(np.isfinite(z_NC), z_NC, 0.0)
    if not finite_NC.any():
        raise RepairError(
            "every item scores all its options the same, so that no temperature changes anything",
            "Look at how the options are scored",
        )
    gold_score_N = z_NC[np.arange(len(z_NC)), gold_N]

    def slope(log_temperature: float) -> float:
        p_NC = np.exp(log_probabilities(z_NC / exp(log_temperature)))
        return float(((p_NC * finite_NC).sum(1) - gold_score_N).mean())

    low, high = log(LOWEST), log(HIGHEST)
    if slope(low) <= 0:
        return _at_bound("lower")
    if slope(high) >= 0:
        return _at_bound("upper")
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    # Rounding can leave a model that needs nothing an ulp worse than it was.
    return Temperature(min((exp(low), 1.0), key=lambda t: mean_nll(z_NC / t, gold_N)))


def fit_temperature_of(
    nll: Callable[[float], float], *, tolerance: float = 1e-5, grid: int = 17, bounds: tuple[float, float] | None = None
) -> Temperature:
    """The T of least `nll(T)`, for scores that are not linear in 1/T: options of several tokens, each with a softmax.

    Such a likelihood need not be convex. A grid over ln T finds the valley, golden-section search its bottom; of all
    values seen, T = 1 among them, the least is taken.

    **Arguments:**

    - `nll`: negative log-likelihood of held-out answers at a temperature; called about 40 times.
    - `tolerance`: width in ln T at which the search ends.
    - `grid`: points of the grid.
    - `bounds`: lowest and highest T; 0.05 and 20 by default.

    **Returns:** the fit, with `at_bound` and a `UserWarning` where the least value is at a bound.

    **Raises:** `RepairError` if `nll` gives NaN or is the same everywhere.
    """
    lowest, highest = bounds or (LOWEST, HIGHEST)
    if not (0 < lowest < 1 < highest and isfinite(highest)):
        raise RepairError(f"the bounds of the temperature are {lowest} and {highest}", "Give two with 1 between them")
    seen: dict[float, float] = {}

    def at(log_temperature: float) -> float:
        if log_temperature not in seen:
            # The exponential of a logarithm misses 1, and the bounds, by an ulp.
            temperature = {log(lowest): lowest, log(highest): highest}.get(log_temperature, exp(log_temperature))
            seen[log_temperature] = float(nll(temperature))
            if not isfinite(seen[log_temperature]):
                raise RepairError(f"the likelihood at temperature {temperature:.4g} is not finite", "Mend the scores")
        return seen[log_temperature]

    points = sorted({0.0, *np.linspace(log(lowest), log(highest), grid).tolist()[1:-1], log(lowest), log(highest)})
    values = [at(point) for point in points]
    if max(values) == min(values):
        raise RepairError("the likelihood is the same at every temperature", "Look at how the options are scored")
    best = int(np.argmin(values))
    left, right = points[max(best - 1, 0)], points[min(best + 1, len(points) - 1)]
    ratio = (sqrt(5) - 1) / 2
    inner, outer = right - ratio * (right - left), left + ratio * (right - left)
    while right - left > tolerance:
        if at(inner) <= at(outer):
            right, outer, inner = outer, inner, outer - ratio * (outer - left)
        else:
            left, inner, outer = inner, outer, inner + ratio * (right - inner)
    found = min(seen, key=lambda point: (seen[point], abs(point)))
    if found - log(lowest) <= tolerance:
        return _at_bound("lower", lowest)
    if log(highest) - found <= tolerance:
        return _at_bound("upper", highest)
    return Temperature(exp(found))


def _at_bound(bound: Bound, temperature: float | None = None) -> Temperature:
    temperature = temperature or {"lower": LOWEST, "upper": HIGHEST}[bound]
    warnings.warn(
        f"the best temperature lies at or beyond {temperature:g}, the {bound} bound: the held-out items are answered "
        + ("right too often" if bound == "lower" else "too much as by chance")
        + " to say where",
        UserWarning,
        stacklevel=3,
    )
    return Temperature(temperature, bound)
