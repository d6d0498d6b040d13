"""What every recalibration is given and gives back, so that a new one is one file and one registration line.

Legend: N items, C options (classes, where every item has the same ones).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from trueprune._support.errors import RepairError

# Fewer items than this say nothing about a curve, whatever the method.
LEAST_ITEMS = 10


@runtime_checkable
class Recalibration(Protocol):
    """A fitted map from the scores of the options to probabilities."""

    def probabilities(self, scores_NC: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "N C"]:
        """Recalibrated probabilities; the rows sum to 1.

        **Arguments:**

        - `scores_NC`: log-scores of the options, in any additive normalisation of a row; -inf for options that an item
            lacks, which get probability 0.

        **Returns:** of shape `(N, C)`, float64.

        **Raises:** `RepairError` for NaN or +inf, or an item with fewer than two options.
        """
        ...

    def to_json(self) -> dict[str, Any]:
        """Plain data that `recalibration_from_json` reads back to an equal object."""
        ...


def check_scores(scores_NC: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "N C"]:
    """The scores as float64.

    **Raises:** `RepairError` for NaN or +inf, or an item with fewer than two options.
    """
    scores_NC = scores_NC.astype(np.float64)
    if (bad_N := (np.isnan(scores_NC) | np.isposinf(scores_NC)).any(1)).any():
        raise RepairError(
            f"the scores of item {bad_N.argmax()} are NaN or infinite", "Score the items again, in float32 or wider"
        )
    if (few_N := np.isfinite(scores_NC).sum(1) < 2).any():
        raise RepairError(
            f"item {few_N.argmax()} has fewer than two options with a score above -inf",
            "Leave out items that offer no choice",
        )
    return scores_NC


def check_items(scores_NC: Float[np.ndarray, "N C"], gold_N: Int[np.ndarray, " M"]) -> Float[np.ndarray, "N C"]:
    """What every fit asks of held-out items; the scores as float64.

    **Raises:** `RepairError` for what `check_scores` refuses, fewer than 10 items, or a gold answer that is none of an
    item's options.
    """
    n, c = scores_NC.shape
    if len(gold_N) != n:
        raise RepairError(f"there are scores of {n} items and gold answers of {len(gold_N)}", "Give one each")
    if n < LEAST_ITEMS:
        raise RepairError(f"{n} items are too few to recalibrate on", f"Hold out at least {LEAST_ITEMS}, better 200")
    scores_NC = check_scores(scores_NC)
    inside_N = (gold_N >= 0) & (gold_N < c)
    known_N = inside_N & np.isfinite(scores_NC[np.arange(n), np.where(inside_N, gold_N, 0)])
    if not known_N.all():
        i = int((~known_N).argmax())
        raise RepairError(
            f"the gold answer {gold_N[i]} of item {i} is none of its options", "Count options from 0, as in the scores"
        )
    return scores_NC


def log_probabilities(scores_NC: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "N C"]:
    """Log-softmax over the options; -inf stays."""
    shifted_NC = scores_NC - scores_NC.max(1, keepdims=True)
    return shifted_NC - np.log(np.exp(shifted_NC).sum(1, keepdims=True))


def mean_nll(scores_NC: Float[np.ndarray, "N C"], gold_N: Int[np.ndarray, " N"]) -> float:
    """Mean negative log-likelihood (nats) of the gold answers under softmax(scores)."""
    return float(-log_probabilities(scores_NC)[np.arange(len(gold_N)), gold_N].mean())


def top_logit(
    scores_NC: Float[np.ndarray, "N C"],
) -> tuple[Bool[np.ndarray, "N C"], Float[np.ndarray, " N"], Float[np.ndarray, "N C"]]:
    """The predicted option, the logit of its probability, and how the others share what it leaves.

    All in logarithms: a probability that rounds to 1 still has an exact logit.

    **Returns:** a one-hot of the (first) option of highest score, ln p / (1 - p), and probabilities among the others
    alone.
    """
    is_top_NC = np.arange(scores_NC.shape[1]) == scores_NC.argmax(1)[:, None]
    log_p_others_NC = log_probabilities(rest_NC := np.where(is_top_NC, -np.inf, scores_NC))
    best_N = rest_NC.max(1)
    log_rest_N = best_N + np.log(np.exp(rest_NC - best_N[:, None]).sum(1))
    return is_top_NC, scores_NC.max(1) - log_rest_N, np.exp(log_p_others_NC)


def around_top(
    confidence_N: Float[np.ndarray, " N"], is_top_NC: Bool[np.ndarray, "N C"], share_NC: Float[np.ndarray, "N C"]
) -> Float[np.ndarray, "N C"]:
    """Probabilities with a new confidence of the predicted option, which stays the most probable.

    The others share what it leaves in proportion, but none gets as much as the predicted one: what is over goes to the
    rest. A confidence under 1/C cannot be that of the most probable option, and is raised to it.

    **Arguments:**

    - `confidence_N`: of the predicted options.
    - `is_top_NC`: which these are.
    - `share_NC`: how the others share; 0 for options that an item lacks.
    """
    # An option of probability 0 that the item does have may still be given something.
    others_NC = ~is_top_NC & (share_NC > 0)
    count_N = others_NC.sum(1)
    confidence_N = np.maximum(confidence_N, (1 + 1e-9) / (count_N + 1))
    cap_N1 = confidence_N[:, None] * (1 - 1e-10)
    rest_N1 = 1 - confidence_N[:, None]
    result_NC = np.where(others_NC, rest_N1 * share_NC, 0.0)
    for _ in range(result_NC.shape[1]):
        over_NC = others_NC & (result_NC >= cap_N1)
        free_NC = others_NC & ~over_NC
        left_N1 = rest_N1 - (over_NC * cap_N1).sum(1, keepdims=True)
        free_N1 = (free_NC * share_NC).sum(1, keepdims=True)
        scale_N1 = np.divide(left_N1, free_N1, out=np.zeros_like(left_N1), where=free_N1 > 0)
        result_NC = np.where(over_NC, cap_N1, np.where(free_NC, scale_N1 * share_NC, 0.0))
    result_NC = np.where(is_top_NC, confidence_N[:, None], result_NC)
    return result_NC / result_NC.sum(1, keepdims=True)


def read_number(data: Mapping[str, Any], key: str) -> float:
    """A finite number of saved data.

    **Raises:** `RepairError`.
    """
    return read_numbers({key: [data.get(key)]}, key)[0]


def read_numbers(data: Mapping[str, Any], key: str) -> tuple[float, ...]:
    """A list of finite numbers of saved data.

    **Raises:** `RepairError`.
    """
    values = data.get(key)
    if not isinstance(values, list | tuple):
        raise RepairError(f"a saved recalibration has no {key!r}", REFIT)
    for value in values:
        if not isinstance(value, int | float) or isinstance(value, bool) or not isfinite(value):
            raise RepairError(f"{key!r} of a saved recalibration is {value!r}, not a finite number", REFIT)
    return tuple(float(value) for value in values)


REFIT = "Fit it again on held-out items"
