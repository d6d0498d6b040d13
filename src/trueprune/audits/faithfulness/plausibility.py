"""Plausibility: whether an explanation points at the words that people marked (DeYoung et al. 2020, ERASER).

It is no faithfulness: an explanation can please people and be wrong about the model.

Legend: D words, T thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from trueprune._support.errors import AuditError
from trueprune.audits.faithfulness.removal import order_words
from trueprune.audits.faithfulness.value import check_scores


@dataclass(frozen=True)
class Plausibility:
    """Agreement of one explanation with one human rationale, each in [0, 1].

    **Arguments:**

    - `precision`, `recall`, `f1`, `iou`: of the top K words against the marked ones (ERASER's macro scores are means of
        these over instances).
    - `auprc`: average precision of the scores, without a K.
    """

    precision: float
    recall: float
    f1: float
    iou: float
    auprc: float


def measure_plausibility(
    scores_D: Float[np.ndarray, " D"], rationale_D: Bool[np.ndarray, " D"], *, k: int | None = None, seed: int = 0
) -> Plausibility:
    """Compare an explanation with a human rationale.

    **Arguments:**

    - `scores_D`: attributions, of shape `(D,)`.
    - `rationale_D`: True where people marked the word, of shape `(D,)`.
    - `k`: how many top words make the explanation; as many as were marked by default. More than D means all.
    - `seed`: breaks ties at the K-th word, see `order_words`.

    **Returns:**

    The five scores.

    **Raises:**

    - `AuditError`: no word, a rationale that marks none or all of the words, one of another length, or K below 1.
    """
    check_rationale(scores_D, rationale_D)
    marked = int(rationale_D.sum())
    k = marked if k is None else min(k, len(scores_D))
    if k < 1:
        raise AuditError(f"an explanation of {k} words was asked for", "Give a K of at least 1")
    hits = int(rationale_D[order_words(scores_D, seed=seed)[:k]].sum())
    return Plausibility(
        precision=hits / k,
        recall=hits / marked,
        f1=2 * hits / (k + marked),
        iou=hits / (k + marked - hits),
        auprc=average_precision(scores_D, rationale_D),
    )


def average_precision(scores_D: Float[np.ndarray, " D"], rationale_D: Bool[np.ndarray, " D"]) -> float:
    """Area under the precision-recall curve as a sum of steps: sum_t (R_t - R_{t-1}) P_t, equal scores in one step.

    **Arguments:**

    - `scores_D`: attributions, of shape `(D,)`.
    - `rationale_D`: of shape `(D,)`.

    **Returns:**

    In (0, 1]; the share of marked words if all scores are equal.

    **Raises:**

    - `AuditError`: as for `measure_plausibility`.
    """
    check_rationale(scores_D, rationale_D)
    _, step_D = np.unique(-scores_D, return_inverse=True)
    taken_T = np.cumsum(np.bincount(step_D))
    hits_T = np.cumsum(np.bincount(step_D, weights=rationale_D))
    gained_T = np.diff(hits_T, prepend=0.0)
    return float((gained_T * hits_T / taken_T).sum() / hits_T[-1])


def check_rationale(scores_D: np.ndarray, rationale_D: np.ndarray) -> None:
    """Raise `AuditError` unless a rationale fits the scores and marks some of the words, but not all."""
    check_scores(scores_D)
    if len(scores_D) != len(rationale_D):
        raise AuditError(f"a rationale is of {len(rationale_D)} words, the text of {len(scores_D)}")
    marked = int(rationale_D.sum())
    if marked in (0, len(rationale_D)):
        raise AuditError(
            f"a human rationale marks {'none' if marked == 0 else 'all'} of {len(rationale_D)} words",
            "Leave such items out: every explanation would score the same",
        )
