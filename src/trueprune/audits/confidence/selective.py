"""Whether confidence tells right answers from wrong ones: what a model that may abstain would gain.

Legend: N items, R resamples, K distinct confidences.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from trueprune._support.errors import AuditError
from trueprune.audits.confidence.bins import tied
from trueprune.audits.confidence.check import check_confidence


class RiskCoverage(NamedTuple):
    """The error rate among the k most confident answers, for each k."""

    coverage_N: Float[np.ndarray, " N"]
    risk_N: Float[np.ndarray, " N"]


def auroc(confidence_N: npt.ArrayLike, correct_N: npt.ArrayLike) -> float:
    """The probability that a right answer is more confident than a wrong one, ties counting half.

    Hendrycks and Gimpel 2017 (arXiv 1610.02136). An item of correctness a counts as a right and 1 - a wrong answers.

    **Arguments:**

    - `confidence_N`: of shape `(N,)`, in [0, 1].
    - `correct_N`: of shape `(N,)`, in [0, 1].

    **Returns:** from 0 to 1; 0.5 when confidence tells nothing.

    **Raises:** `AuditError` when all answers are right or all wrong, or for arrays that `check_confidence` refuses.
    """
    confidence_N, correct_N = check_confidence(confidence_N, correct_N)
    if not 0 < correct_N.sum() < len(correct_N):
        every = "right" if correct_N[0] else "wrong"
        raise AuditError(
            f"AUROC is undefined: all {len(correct_N)} answers are {every}", "Give items of both kinds, or leave it out"
        )
    return float(auroc_of(confidence_N, correct_N, np.ones((1, len(correct_N))))[0])


def risk_coverage(confidence_N: npt.ArrayLike, correct_N: npt.ArrayLike) -> RiskCoverage:
    """The risk-coverage curve (El-Yaniv and Wiener 2010; Geifman and El-Yaniv 2017, arXiv 1705.08500).

    Among items of equal confidence each order is equally likely: the risk is its expectation over these orders.
    Arguments and errors as for `auroc`, except that it is defined when all answers are right or wrong.

    **Returns:** `coverage_N`, k/n for k = 1 ... n, and `risk_N`, the share of errors in the first k.
    """
    confidence_N, correct_N = check_confidence(confidence_N, correct_N)
    order_N, start_K = tied(-confidence_N)
    mass_K = np.diff(np.append(start_K, len(order_N)))
    wrong_K = np.add.reduceat(1 - correct_N[order_N], start_K)
    rank_N = np.arange(1, len(order_N) + 1)
    wrong_N = np.interp(rank_N, np.append(0, np.cumsum(mass_K)), np.append(0, np.cumsum(wrong_K)))
    return RiskCoverage(rank_N / len(rank_N), wrong_N / rank_N)


def aurc(confidence_N: npt.ArrayLike, correct_N: npt.ArrayLike, *, trapezoid: bool = False) -> float:
    """The area under the risk-coverage curve.

    **Arguments:**

    - `confidence_N`, `correct_N`: as for `risk_coverage`.
    - `trapezoid`: `False` for the mean of the risks (Geifman et al. 2019, arXiv 1805.08206), `True` for the
        trapezoidal area over coverages 1/n to 1, divided by 1 - 1/n (torch-uncertainty; one item has its own risk).

    **Returns:** from 0 to 1; lower is better.
    """
    return _area(risk_coverage(confidence_N, correct_N).risk_N, trapezoid)


def e_aurc(confidence_N: npt.ArrayLike, correct_N: npt.ArrayLike, *, trapezoid: bool = False) -> float:
    """Excess area: `aurc` less that of the best order of the same answers (Geifman et al. 2019, arXiv 1805.08206).

    The best order has right answers first; it is computed exactly, not by the paper's approximation. Arguments as for
    `aurc`.

    **Returns:** from 0 to 1; lower is better.
    """
    best = aurc(correct_N, correct_N, trapezoid=trapezoid)
    return aurc(confidence_N, correct_N, trapezoid=trapezoid) - best


def overconfidence(confidence_N: npt.ArrayLike, correct_N: npt.ArrayLike) -> float:
    """Mean confidence less accuracy: above zero overconfident, below zero underconfident, 0 is best.

    Arguments and errors as for `risk_coverage`.
    """
    confidence_N, correct_N = check_confidence(confidence_N, correct_N)
    return float(confidence_N.mean() - correct_N.mean())


def auroc_of(
    confidence_N: Float[np.ndarray, " N"], correct_N: Float[np.ndarray, " N"], counts_RN: Float[np.ndarray, "R N"]
) -> Float[np.ndarray, " R"]:
    """`auroc` of each resample, NaN where it is undefined."""
    order_N, start_K = tied(confidence_N)
    counts_RN = counts_RN[:, order_N]
    right_RK = np.add.reduceat(counts_RN * correct_N[order_N], start_K, axis=1)
    wrong_RK = np.add.reduceat(counts_RN * (1 - correct_N[order_N]), start_K, axis=1)
    won_R = (right_RK * (np.cumsum(wrong_RK, axis=1) - wrong_RK / 2)).sum(1)
    pairs_R = right_RK.sum(1) * wrong_RK.sum(1)
    return np.divide(won_R, pairs_R, out=np.full(len(pairs_R), np.nan), where=pairs_R > 0)


def aurc_of(
    confidence_N: Float[np.ndarray, " N"], correct_N: Float[np.ndarray, " N"], counts_RN: Float[np.ndarray, "R N"]
) -> Float[np.ndarray, " R"]:
    """`aurc` (mean of risks) of each resample; the counts are whole numbers.

    After B items with E errors, a group of g tied items with e errors has the risks (E + je/g) / (B + j), j = 1 ... g.
    They add up to e + (E - B e/g) (H[B+g] - H[B]) with the harmonic numbers H, so no resample is written out.
    """
    order_N, start_K = tied(-confidence_N)
    counts_RN = counts_RN[:, order_N]
    mass_RK = np.add.reduceat(counts_RN, start_K, axis=1)
    wrong_RK = np.add.reduceat(counts_RN * (1 - correct_N[order_N]), start_K, axis=1)
    upto_RK = np.cumsum(mass_RK, axis=1)
    before_RK = upto_RK - mass_RK
    total_R = upto_RK[:, -1]
    harmonic = np.append(0.0, np.cumsum(1 / np.arange(1, total_R.max() + 1)))
    steps_RK = harmonic[upto_RK.astype(np.int64)] - harmonic[before_RK.astype(np.int64)]
    rate_RK = wrong_RK / np.maximum(mass_RK, 1)
    errors_RK = np.cumsum(wrong_RK, axis=1) - wrong_RK
    return (wrong_RK + (errors_RK - before_RK * rate_RK) * steps_RK).sum(1) / total_R


def _area(risk_N: np.ndarray, trapezoid: bool) -> float:
    if not trapezoid or len(risk_N) == 1:
        return float(risk_N.mean())
    return float((risk_N.sum() - (risk_N[0] + risk_N[-1]) / 2) / (len(risk_N) - 1))
