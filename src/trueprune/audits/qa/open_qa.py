"""Open question answering: right, hallucinated or declined, and whether the model's confidence tells which.

Legend: N questions, R resamples.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from trueprune.audits.calibration import CURVE_POINTS
from trueprune.audits.confidence import null_error, reliability_table, risk_coverage
from trueprune.audits.confidence.kinds import TOP_LABEL_ERRORS
from trueprune.audits.confidence.selective import auroc_of
from trueprune.audits.measurement import Measurement
from trueprune.audits.qa.answers import Answers

INSTRUMENT = "open-qa"
BINS = 15
# Of each grade whether more is better. Declining is neither: a rate of abstentions is to be read beside the other two.
GRADES = {"correct": True, "exact": True, "f1": True, "hallucinated": False, "abstained": False}
NAMES = {"hallucinated": "hallucination", "abstained": "abstention"}
HEADLINE = ("correct", "hallucinated")


def open_qa_of(answers: Answers) -> list[Measurement]:
    """Metrics of one model's answers to one set.

    **Arguments:**

    - `answers`: of one model.

    **Returns:** as shares of all questions `correct/SET`, `exact/SET`, `f1/SET` (the mean), `hallucination/SET`
    (answered and wrong) and `abstention/SET`. Of the questions that were answered: `auroc-sum/SET`, whether right
    answers have a higher sequence log-probability (the sum over the answer's tokens, with what ended it) than wrong
    ones; `auroc-mean/SET`, the same of the mean a token; and `ece/SET`, the expected calibration error in 15 bins of
    the sequence probability, which brings its null, reliability table and risk-coverage curve in `details`. What is
    undefined (all answers right, all wrong, or none given) is left out, with a warning.
    """
    details = {"questions": len(answers), "answered": int(answers.answered_N.sum())}
    details["correct"] = int(answers.column("correct").sum())
    found = [
        Measurement(
            INSTRUMENT,
            f"{NAMES.get(name, name)}/{answers.set_name}",
            answers.item_ids,
            answers.column(name),
            clusters=answers.clusters,
            higher_is_better=higher,
            headline=name in HEADLINE,
            details=details,
        )
        for name, higher in GRADES.items()
    ]
    return found + _confidence(answers)


def _confidence(answers: Answers) -> list[Measurement]:
    answered_N, correct_N = answers.answered_N, answers.column("correct")
    if not answered_N.any():
        _warn(answers, "no question was answered, confidence is undefined")
        return []
    summed_N, mean_N = np.exp(answers.sum_N), np.exp(answers.mean_N)
    found = []
    if len(np.unique(correct_N[answered_N])) == 2:
        # Logarithms keep apart what is zero as a probability.
        for name, log_N, values_N in (("sum", answers.sum_N, summed_N), ("mean", answers.mean_N, mean_N)):
            found.append(_measurement(answers, f"auroc-{name}", values_N, _auroc(log_N, correct_N), True))
    else:
        _warn(answers, "all answers are alike right or wrong, the AUROC of confidence is undefined")
    details = _details(summed_N[answered_N], correct_N[answered_N])
    return [*found, _measurement(answers, "ece", summed_N, _ece(summed_N, correct_N), False, details)]


def _auroc(score_N: np.ndarray, correct_N: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return lambda counts_RN: auroc_of(score_N, correct_N, counts_RN)


def _ece(confidence_N: np.ndarray, correct_N: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return lambda counts_RN: TOP_LABEL_ERRORS["ece"](confidence_N, counts_RN, counts_RN * correct_N, BINS)


def _measurement(
    answers: Answers,
    name: str,
    values_N: np.ndarray,
    of_answered: Callable[[np.ndarray], np.ndarray],
    higher: bool,
    details: dict[str, Any] | None = None,
) -> Measurement:
    """Models are paired on all questions, of which each has answered its own: those weigh, the others do not."""

    def statistic(counts_RN: Float[np.ndarray, "R N"]) -> Float[np.ndarray, " R"]:
        counts_RN = counts_RN * answers.answered_N
        # A resample without a question that was answered.
        with np.errstate(invalid="ignore"):
            return of_answered(counts_RN)

    return Measurement(
        INSTRUMENT,
        f"{name}/{answers.set_name}",
        answers.item_ids,
        values_N,
        clusters=answers.clusters,
        higher_is_better=higher,
        details={"answered": int(answers.answered_N.sum()), **(details or {})},
        statistic=statistic,
    )


def _details(confidence_N: np.ndarray, correct_N: np.ndarray) -> dict[str, Any]:
    null = null_error(confidence_N, correct_N, "ece", BINS)
    curve = risk_coverage(confidence_N, correct_N)
    points = np.unique(np.linspace(0, len(confidence_N) - 1, CURVE_POINTS).round().astype(int))
    return {
        "null_mean": null.mean,
        "null_95": null.percentile_95,
        "null_share": null.share,
        "mean_confidence": float(confidence_N.mean()),
        "reliability": reliability_table(confidence_N, correct_N, BINS).as_dict(),
        "risk_coverage": {"coverage": curve.coverage_N[points].tolist(), "risk": curve.risk_N[points].tolist()},
    }


def _warn(answers: Answers, what: str) -> None:
    warnings.warn(f"{answers.set_name}: {what}", stacklevel=2)
