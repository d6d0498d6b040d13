"""Refuses arrays on which a measure of confidence would be a number without a meaning; top answers and their ties.

Legend: N items, C options.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

from trueprune._support.errors import AuditError

SUM_TOLERANCE = 1e-4
# Dividing a row by its sum moves a number by some 1e-16; that must neither make nor break a tie.
TIE_DECIMALS = 12


def check_probabilities(
    probabilities_NC: npt.ArrayLike, gold_N: npt.ArrayLike
) -> tuple[Float[np.ndarray, "N C"], Int[np.ndarray, " N"]]:
    """The probabilities of the options and the right option of each item, checked.

    **Arguments:**

    - `probabilities_NC`: of shape `(N, C)`, each row summing to one within 1e-4. Items with fewer options are padded
        with columns of zeros.
    - `gold_N`: of shape `(N,)`, the column of the right option.

    **Returns:** float64 rows that sum to one, and int64.

    **Raises:** `AuditError` naming the row, for anything else.
    """
    probabilities_NC = _floats(probabilities_NC, "the probabilities", "Give one row of numbers an item")
    if probabilities_NC.ndim != 2:
        raise AuditError(
            f"the probabilities have the shape {probabilities_NC.shape}",
            "Give shape (items, options): one row an item, padded with zeros where an item has fewer options",
        )
    if probabilities_NC.size == 0:
        raise AuditError(f"the probabilities of shape {probabilities_NC.shape} are empty", "Give at least one item")
    _refuse(~np.isfinite(probabilities_NC), probabilities_NC, "is not finite", "Leave the item out or mend its scores")
    _refuse(probabilities_NC < 0, probabilities_NC, "is negative", "Give probabilities, or scores through softmax")
    sum_N = probabilities_NC.sum(1)
    far_N = np.abs(sum_N - 1) > SUM_TOLERANCE
    if far_N.any():
        row = int(far_N.argmax())
        raise AuditError(
            f"row {row} of the probabilities sums to {sum_N[row]:.6g}, not to one",
            "Divide each row by its sum, or give scores through softmax",
        )
    return probabilities_NC / sum_N[:, None], _gold(gold_N, *probabilities_NC.shape)


def check_confidence(
    confidence_N: npt.ArrayLike, correct_N: npt.ArrayLike
) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Confidences and correctness, checked.

    **Arguments:**

    - `confidence_N`: of shape `(N,)`, in [0, 1].
    - `correct_N`: of shape `(N,)`, in [0, 1]: 1 right, 0 wrong, a fraction where answers are tied.

    **Returns:** both as float64.

    **Raises:** `AuditError` naming the item, for anything else.
    """
    arrays = []
    for name, values in (("confidence", confidence_N), ("correctness", correct_N)):
        values_N = _floats(values, f"the {name}", "Give one number an item")
        if values_N.ndim != 1 or values_N.size == 0:
            raise AuditError(f"the {name} has the shape {values_N.shape}", "Give one number an item, at least one item")
        wrong_N = ~((values_N >= 0) & (values_N <= 1))
        if wrong_N.any():
            row = int(wrong_N.argmax())
            raise AuditError(f"the {name} of item {row} is {values_N[row]:.6g}", "Give numbers from 0 to 1")
        arrays.append(values_N)
    if len(arrays[0]) != len(arrays[1]):
        raise AuditError(
            f"{len(arrays[0])} confidences for {len(arrays[1])} items with a correctness", "Give one of each an item"
        )
    return arrays[0], arrays[1]


def top_label(
    probabilities_NC: npt.ArrayLike, gold_N: npt.ArrayLike
) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """The probability of each item's top answer, and whether that answer is right.

    An item whose top probability is shared by k options, the right one among them, counts 1/k: what breaking the tie
    at random gives on average, and no position is preferred. Probabilities that agree to 12 decimals are tied.

    **Arguments:**

    - `probabilities_NC`, `gold_N`: as for `check_probabilities`.

    **Returns:** confidence and correctness, each of shape `(N,)` and in [0, 1].

    **Raises:** as `check_probabilities`.
    """
    probabilities_NC, gold_N = check_probabilities(probabilities_NC, gold_N)
    confidence_N = probabilities_NC.max(1)
    top_NC = probabilities_NC >= confidence_N[:, None] - 10.0**-TIE_DECIMALS
    correct_N = top_NC[np.arange(len(gold_N)), gold_N] / np.count_nonzero(top_NC, axis=1)
    return confidence_N.round(TIE_DECIMALS), correct_N


def softmax(scores_NC: npt.ArrayLike) -> Float[np.ndarray, "N C"]:
    """Probabilities from scores (logits or log-likelihoods).

    **Arguments:**

    - `scores_NC`: of shape `(N, C)`; `-inf` for an option that an item does not have.

    **Returns:** of shape `(N, C)`, float64.

    **Raises:** `AuditError` naming the row, for NaN, `+inf`, or a row without any option.
    """
    scores_NC = _floats(scores_NC, "the scores", "Give one row of numbers an item")
    if scores_NC.ndim != 2 or scores_NC.size == 0:
        raise AuditError(f"the scores have the shape {scores_NC.shape}", "Give shape (items, options), none of them 0")
    _refuse(np.isnan(scores_NC) | (scores_NC == np.inf), scores_NC, "is no score", "Give -inf for an absent option")
    top_N1 = scores_NC.max(1, keepdims=True)
    if np.isneginf(top_N1).any():
        raise AuditError(f"row {int(np.isneginf(top_N1).argmax())} has no option", "Give each item a finite score")
    exp_NC = np.exp(scores_NC - top_N1)
    return exp_NC / exp_NC.sum(1, keepdims=True)


def _floats(values: npt.ArrayLike, name: str, remedy: str) -> np.ndarray:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise AuditError(f"{name} are not an array of numbers", remedy) from None


def _refuse(wrong_NC: np.ndarray, values_NC: np.ndarray, what: str, remedy: str) -> None:
    if wrong_NC.any():
        row, column = np.unravel_index(int(wrong_NC.argmax()), wrong_NC.shape)
        raise AuditError(f"row {row}, option {column}: {values_NC[row, column]:.6g} {what}", remedy)


def _gold(gold_N: npt.ArrayLike, items: int, options: int) -> Int[np.ndarray, " N"]:
    remedy = f"Give the column of the right option, 0 to {options - 1}, for each item"
    try:
        gold = np.asarray(gold_N)
    except ValueError:
        raise AuditError("gold is not one number an item", remedy) from None
    if gold.shape != (items,):
        raise AuditError(f"gold has the shape {gold.shape} for {items} items", remedy)
    if gold.dtype.kind not in "iuf":
        values = gold.tolist()
        row = next((n for n, value in enumerate(values) if type(value) is not int), 0)
        raise AuditError(f"gold of row {row} is {values[row]!r}, not an integer", remedy)
    if gold.dtype.kind == "f" and (gold != np.floor(gold)).any():
        row = int((gold != np.floor(gold)).argmax())
        raise AuditError(f"gold of row {row} is {gold[row]}, not an integer", remedy)
    outside_N = (gold < 0) | (gold >= options)
    if outside_N.any():
        row = int(outside_N.argmax())
        raise AuditError(f"gold of row {row} is {gold[row]:g}, none of the {options} options", remedy)
    return gold.astype(np.int64)
