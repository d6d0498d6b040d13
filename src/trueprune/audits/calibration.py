"""Does a model's confidence match how often it is right? The instrument over `confidence`, with the null beside it.

Legend: R resamples, N items, C options.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from trueprune._support.errors import AuditError
from trueprune.audits.confidence import (
    METRICS,
    murphy,
    null_classwise_ece,
    null_error,
    reliability_table,
    risk_coverage,
    top_label,
)
from trueprune.audits.measurement import Measurement
from trueprune.audits.predictions import Predictions

INSTRUMENT = "calibration"
HEADLINE = ("ece-15", "brier")
# Fewer items than this make an error of ten or fifteen bins mostly noise.
FEW = 50
CURVE_POINTS = 60


@dataclass(frozen=True)
class ConfidenceOptions:
    """Which metrics of confidence an audit reports.

    **Arguments:**

    - `metrics`: of calibration: `ece-10`, `ece-15`, `ace-15`, `mce-15`, `rmsce-15`, `debiased-15`, `classwise-15`,
        `smece`, `brier`, `nll`, `auroc`, `aurc`, `e-aurc`, `overconfidence`.
    """

    metrics: tuple[str, ...] = tuple(METRICS)

    def __post_init__(self):
        if not self.metrics:
            raise AuditError("there is no metric of calibration", f"Use some of {', '.join(METRICS)}")
        if unknown := [name for name in self.metrics if name not in METRICS]:
            raise AuditError(f"unknown metric {unknown[0]!r}", f"Use some of {', '.join(METRICS)}")


def calibration_of(predictions: Predictions, options: ConfidenceOptions = ConfidenceOptions()) -> list[Measurement]:
    """Metrics of confidence on one task.

    **Arguments:**

    - `predictions`: of one model.
    - `options`: which metrics.

    **Returns:** `METRIC/TASK` each. ECE and its kin bring in `details` what a perfectly calibrated model with these
    confidences would show on as many items (`null_mean`, `null_95`, `null_share`), the ECE of 15 bins its reliability
    table, Brier its decomposition, AURC its curve. Classwise ECE is given for label tasks only: elsewhere a class is
    but a position. What is undefined (AUROC where all answers are right, or all wrong) is left out, with a warning.

    **Raises:** `AuditError` for probabilities that are none.
    """
    if len(predictions) < FEW:
        warnings.warn(
            f"calibration of {predictions.task} on {len(predictions)} items: even a perfectly calibrated model would "
            "show a large error; compare it with its null, or give more items",
            stacklevel=2,
        )
    found = []
    for name in options.metrics:
        if name.startswith("classwise") and not predictions.labels:
            continue
        if name == "auroc" and len(np.unique(top_label(predictions.probabilities_NC, predictions.gold_N)[1])) < 2:
            warnings.warn(
                f"{predictions.task}: all answers are alike right or wrong, the AUROC of confidence is undefined",
                stacklevel=2,
            )
            continue
        found.append(_measurement(name, predictions))
    return found


def _measurement(name: str, predictions: Predictions) -> Measurement:
    metric = METRICS[name]
    given = (predictions.probabilities_NC, predictions.gold_N)
    return Measurement(
        INSTRUMENT,
        f"{name}/{predictions.task}",
        predictions.item_ids,
        metric.per_item(*given),
        clusters=predictions.clusters,
        higher_is_better=metric.higher_is_better,
        headline=name in HEADLINE,
        details=_details(name, predictions),
        statistic=partial(metric.resampled, *given),
    )


def _details(name: str, predictions: Predictions) -> dict[str, Any]:
    confidence_N, correct_N = top_label(predictions.probabilities_NC, predictions.gold_N)
    kind, _, bins = name.partition("-")
    details: dict[str, Any] = {}
    if kind in ("ece", "ace", "mce", "rmsce", "debiased", "smece"):
        null = null_error(confidence_N, correct_N, kind, int(bins or 15))
        details |= {"null_mean": null.mean, "null_95": null.percentile_95, "null_share": null.share}
    if kind == "classwise":
        null = null_classwise_ece(predictions.probabilities_NC, predictions.gold_N, int(bins))
        details |= {"null_mean": null.mean, "null_95": null.percentile_95, "null_share": null.share}
    if name == "ece-15":
        details["reliability"] = reliability_table(confidence_N, correct_N, 15).as_dict()
        details["accuracy"] = float(correct_N.mean())
        details["mean_confidence"] = float(confidence_N.mean())
        details["mean_option_mass"] = float(predictions.mass_N.mean())
    if name == "brier":
        parts = murphy(predictions.probabilities_NC, predictions.gold_N)
        details["murphy"] = {key: float(value) for key, value in vars(parts).items()}
    if name == "aurc":
        curve = risk_coverage(confidence_N, correct_N)
        points = np.unique(np.linspace(0, len(confidence_N) - 1, CURVE_POINTS).round().astype(int))
        details["risk_coverage"] = {
            "coverage": np.asarray(curve.coverage_N)[points].tolist(),
            "risk": np.asarray(curve.risk_N)[points].tolist(),
        }
    return details
