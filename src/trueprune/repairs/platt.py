"""A logistic curve for how often the answer is right, because confidence may need a shift too (Platt 1999).

Legend: N items, C options.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from trueprune._support.errors import RepairError
from trueprune.repairs.base import around_top, check_items, check_scores, read_number, top_logit


@dataclass(frozen=True)
class Platt:
    """The predicted option gets σ(a s + b), s the logit of its probability; the others share the rest as they did.

    Platt 1999 fits one binary classifier. We fit, as one, the event that the predicted option is right, so that items
    may have options of their own; a = 1, b = 0 is the model itself. The order of the items by confidence is kept, since
    a > 0. The predicted option stays the most probable one: the others share the rest in proportion, none with as much
    as it has, and a confidence below 1/C, which no most probable option can have, is raised to that.

    **Arguments:**

    - `slope`: a, above 0.
    - `intercept`: b.
    """

    slope: float
    intercept: float

    def __post_init__(self):
        if not self.slope > 0:
            raise RepairError(
                f"Platt scaling has a slope of {self.slope:.3g}: the surer the model, the less often it is right",
                "Confidence says nothing to be rescaled on these items; hold out more, or repair the model",
            )

    def probabilities(self, scores_NC: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "N C"]:
        """σ(a s + b) for the predicted option, the rest as `around_top` shares it; see `Recalibration`."""
        is_top_NC, s_N, share_NC = top_logit(check_scores(scores_NC))
        return around_top(_sigmoid(self.slope * s_N + self.intercept), is_top_NC, share_NC)

    def to_json(self) -> dict[str, Any]:
        """Plain data; see `Recalibration`."""
        return {"schema": 1, "method": "platt", "slope": self.slope, "intercept": self.intercept}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Platt:
        """Read `to_json` back.

        **Raises:** `RepairError`.
        """
        return cls(read_number(data, "slope"), read_number(data, "intercept"))


def fit_platt(
    scores_NC: Float[np.ndarray, "N C"], gold_N: Int[np.ndarray, " M"], *, smooth_targets: bool = True
) -> Platt:
    """Platt scaling of the confidence in the predicted option, by Newton's method with a line search.

    The targets are Platt's (1999): (N₊ + 1) / (N₊ + 2) where the model is right and 1 / (N₋ + 2) where it
    is wrong, which keeps the curve finite when confidence tells the two apart. With targets of 0 and 1 the likelihood
    of the items is never below the model's own; with Platt's it may be, by the little that they are drawn in.

    **Arguments:**

    - `scores_NC`: log-scores of the options on held-out items; -inf for options that an item lacks.
    - `gold_N`: the right options, counted from 0.
    - `smooth_targets`: Platt's targets, or 0 and 1.

    **Returns:** the fit.

    **Raises:** `RepairError` for bad items (see `check_items`); if all predictions are right, or all wrong; if all have
    the same confidence; if a ≤ 0; or, with targets of 0 and 1, if confidence tells right from wrong without fault, for
    which the best curve is a step.
    """
    scores_NC = check_items(scores_NC, gold_N)
    is_top_NC, s_N, _ = top_logit(scores_NC)
    right_N = is_top_NC[np.arange(len(gold_N)), gold_N]
    n_right, n_wrong = int(right_N.sum()), int((~right_N).sum())
    if not (n_right and n_wrong):
        raise RepairError(
            f"all {len(gold_N)} predictions are {'right' if n_right else 'wrong'}, which a curve of the share of right "
            "ones cannot be fitted to",
            "Hold out more items",
        )
    if np.ptp(s_N) <= 1e-12 * np.abs(s_N).max():
        raise RepairError("all predictions have the same confidence", "Look at how the options are scored")
    if smooth_targets:
        target_N = np.where(right_N, (n_right + 1) / (n_right + 2), 1 / (n_wrong + 2))
    else:
        if s_N[right_N].min() >= s_N[~right_N].max() or s_N[right_N].max() <= s_N[~right_N].min():
            raise RepairError(
                "confidence tells right from wrong predictions without fault, so that the best curve is a step",
                "Use Platt's targets (smooth_targets=True), or hold out more items",
            )
        target_N = right_N.astype(np.float64)
    return Platt(*_logistic_curve(s_N, target_N))


def _logistic_curve(s_N: Float[np.ndarray, " N"], target_N: Float[np.ndarray, " N"]) -> tuple[float, float]:
    """Slope and intercept of least cross entropy to targets between 0 and 1."""
    mean, scale = float(s_N.mean()), float(s_N.std())
    x_N2 = np.stack([(s_N - mean) / scale, np.ones_like(s_N)], 1)

    def objective(u_2: np.ndarray) -> float:
        f_N = x_N2 @ u_2
        return float((np.logaddexp(0, f_N) - target_N * f_N).sum())

    u_2 = np.array([0.0, np.log(target_N.mean() / (1 - target_N.mean()))])
    value = objective(u_2)
    for _ in range(100):
        p_N = _sigmoid(x_N2 @ u_2)
        gradient_2 = x_N2.T @ (p_N - target_N)
        step_2 = -np.linalg.solve(x_N2.T @ (x_N2 * (p_N * (1 - p_N))[:, None]) + 1e-12 * np.eye(2), gradient_2)
        slope, size = float(gradient_2 @ step_2), 1.0
        while size > 1e-10 and not objective(u_2 + size * step_2) <= value + 1e-4 * size * slope:
            size /= 2
        if size <= 1e-10 or -slope <= 1e-20:
            break
        u_2 = u_2 + size * step_2
        value = objective(u_2)
    return float(u_2[0] / scale), float(u_2[1] - u_2[0] * mean / scale)


def _sigmoid(x_N: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    return np.exp(-np.logaddexp(0, -x_N))
