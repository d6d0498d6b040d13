"""Any rising curve, because a model can be sure too often here and too seldom there (Zadrozny & Elkan 2002).

Legend: N items, C options, K knots.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from trueprune._support.errors import RepairError
from trueprune.repairs.base import (
    REFIT,
    around_top,
    check_items,
    check_scores,
    log_probabilities,
    read_numbers,
    top_logit,
)

# Below this the steps follow the noise of the items (Niculescu-Mizil & Caruana 2005, learning curves).
ENOUGH_ITEMS = 1000
Kind = Literal["one-vs-rest", "top-label"]


@dataclass(frozen=True)
class Curve:
    """A rising curve through knots: linear between them, constant outside.

    **Arguments:**

    - `x`: probabilities of the model, rising strictly.
    - `y`: how often they come true, never falling, in [0, 1].
    """

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __post_init__(self):
        fits = 0 < len(self.x) == len(self.y) and min(self.y) >= 0 and max(self.y) <= 1
        if not fits or (np.diff(self.x) <= 0).any() or (np.diff(self.y) < 0).any():
            raise RepairError("a curve of a saved recalibration does not rise within [0, 1]", REFIT)

    def at(self, p_N: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
        """The curve's values."""
        return np.interp(p_N, self.x, self.y)


@dataclass(frozen=True)
class Isotonic:
    """A rising curve for each class, or one for the confidence of the predicted option.

    - `"one-vs-rest"`: p of each class through its own curve, then rows to sum 1 (Zadrozny & Elkan 2002).
        A row that all curves send to 0 keeps the model's own probabilities.
    - `"top-label"`: p of the predicted option through one curve; the others share the rest, and the predicted option
        stays the most probable one, as for `Platt`.

    Curves reach 0 and 1, so that a single surprise in new items makes their log-likelihood infinite: judge this method
    by the Brier score, or clip.

    **Arguments:**

    - `kind`: one of the two.
    - `curves`: one a class, or a single one.
    """

    kind: Kind
    curves: tuple[Curve, ...]

    def __post_init__(self):
        if self.kind not in get_args(Kind) or not (len(self.curves) == 1) == (self.kind == "top-label"):
            raise RepairError(f"a saved recalibration has {len(self.curves)} curves for {self.kind!r}", REFIT)

    def probabilities(self, scores_NC: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "N C"]:
        """Probabilities through the curves; see `Recalibration`."""
        scores_NC = check_scores(scores_NC)
        p_NC = np.exp(log_probabilities(scores_NC))
        if self.kind == "top-label":
            is_top_NC, _, share_NC = top_logit(scores_NC)
            return around_top(self.curves[0].at(p_NC.max(1)), is_top_NC, share_NC)
        if p_NC.shape[1] != len(self.curves):
            raise RepairError(
                f"isotonic regression was fitted on {len(self.curves)} classes, the items have {p_NC.shape[1]}", REFIT
            )
        _refuse_lacking(scores_NC)
        mapped_NC = np.stack([curve.at(p_NC[:, c]) for c, curve in enumerate(self.curves)], 1)
        total_N1 = mapped_NC.sum(1, keepdims=True)
        return np.where(total_N1 > 0, mapped_NC / np.where(total_N1 > 0, total_N1, 1), p_NC)

    def to_json(self) -> dict[str, Any]:
        """Plain data; see `Recalibration`."""
        curves = [{"x": list(curve.x), "y": list(curve.y)} for curve in self.curves]
        return {"schema": 1, "method": "isotonic", "kind": self.kind, "curves": curves}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Isotonic:
        """Read `to_json` back.

        **Raises:** `RepairError`.
        """
        kind: Any = data.get("kind")
        if kind not in get_args(Kind):
            raise RepairError(f"'kind' of a saved recalibration is {kind!r}", REFIT)
        curves = data.get("curves")
        if not isinstance(curves, list) or not all(isinstance(curve, Mapping) for curve in curves):
            raise RepairError("a saved recalibration has no 'curves'", REFIT)
        return cls(kind, tuple(Curve(read_numbers(curve, "x"), read_numbers(curve, "y")) for curve in curves))


def fit_isotonic(
    scores_NC: Float[np.ndarray, "N C"], gold_N: Int[np.ndarray, " M"], *, kind: Kind | None = None
) -> Isotonic:
    """Isotonic regression of what comes true on the model's probabilities: Zadrozny & Elkan 2002.

    **Arguments:**

    - `scores_NC`: log-scores of the options on held-out items; -inf for options that an item lacks.
    - `gold_N`: the right options, counted from 0.
    - `kind`: `"one-vs-rest"` where column c means the same class in every item, `"top-label"` where items have options
        of their own; by default the former if no item lacks an option. Answers to multiple choice have options of
        their own even where there are always four.

    **Returns:** the fit. With a `UserWarning` on fewer than 1000 items, which it overfits.

    **Raises:** `RepairError` for bad items (see `check_items`); for `"one-vs-rest"` if items lack an option or a class
    is never gold, and would be ruled out for ever; for `"top-label"` if all predictions are right, or all wrong.
    """
    scores_NC = check_items(scores_NC, gold_N)
    if kind is None:
        kind = "one-vs-rest" if np.isfinite(scores_NC).all() else "top-label"
    p_NC = np.exp(log_probabilities(scores_NC))
    is_gold_NC = (np.arange(scores_NC.shape[1]) == gold_N[:, None]).astype(np.float64)
    if kind == "top-label":
        right_N = is_gold_NC[np.arange(len(gold_N)), scores_NC.argmax(1)]
        if right_N.min() == right_N.max():
            raise RepairError(
                f"all {len(gold_N)} predictions are {'right' if right_N[0] else 'wrong'}, which leaves no curve to fit",
                "Hold out more items",
            )
        curves = (rising_curve(p_NC.max(1), right_N),)
    else:
        _refuse_lacking(scores_NC)
        if (never_C := ~is_gold_NC.any(0)).any():
            raise RepairError(
                f"class {never_C.argmax()} is never gold in {len(gold_N)} items, and would be ruled out for ever",
                "Hold out items of every class, or use kind='top-label'",
            )
        curves = tuple(rising_curve(p_N, is_gold_N) for p_N, is_gold_N in zip(p_NC.T, is_gold_NC.T, strict=True))
    if len(gold_N) < ENOUGH_ITEMS:
        warnings.warn(
            f"isotonic regression overfits {len(gold_N)} items; below {ENOUGH_ITEMS} prefer a temperature",
            UserWarning,
            stacklevel=2,
        )
    return Isotonic(kind, curves)


def rising_curve(x_N: Float[np.ndarray, " N"], y_N: Float[np.ndarray, " N"]) -> Curve:
    """The never falling curve of least squared error, by pooling adjacent violators.

    Of all rising curves it is also the one of least cross entropy for y of 0 and 1. Linear in N after sorting. Equal x
    are averaged first; only the ends of level stretches become knots.

    **Arguments:**

    - `x_N`: where.
    - `y_N`: what, in [0, 1].

    **Returns:** the curve.
    """
    x_K, index_N = np.unique(x_N, return_inverse=True)
    weight_K = np.bincount(index_N).astype(np.float64)
    sums_K = np.bincount(index_N, weights=y_N)
    # Of each level stretch so far: sum of y, weight, first and last knot.
    levels: list[tuple[float, float, int, int]] = []
    for k, (total, weight) in enumerate(zip(sums_K.tolist(), weight_K.tolist(), strict=True)):
        first = k
        while levels and levels[-1][0] * weight >= total * levels[-1][1]:
            earlier_total, earlier_weight, first, _ = levels.pop()
            total, weight = total + earlier_total, weight + earlier_weight
        levels.append((total, weight, first, k))
    knots = {float(x_K[k]): total / weight for total, weight, first, last in levels for k in (first, last)}
    return Curve(tuple(knots), tuple(knots.values()))


def _refuse_lacking(scores_NC: Float[np.ndarray, "N C"]) -> None:
    if (lacking_N := ~np.isfinite(scores_NC).all(1)).any():
        raise RepairError(
            f"item {lacking_N.argmax()} lacks an option that others have, and one-vs-rest has one curve a class",
            "Use kind='top-label' for items with options of their own",
        )
