"""Calibration and selective prediction: pure functions on the probabilities of a user's own items.

`check_probabilities` and `softmax` prepare arrays, `top_label` gives confidence and correctness, which the errors, the
reliability table and the risk-coverage curve take. `METRICS` has each metric by name with its value on resampled items.
"""

from trueprune.audits.confidence.binned import ace, classwise_ece, debiased_squared_ce, ece, mce, rmsce
from trueprune.audits.confidence.check import check_confidence, check_probabilities, softmax, top_label
from trueprune.audits.confidence.null import NullError, null_classwise_ece, null_error
from trueprune.audits.confidence.reliability import ReliabilityTable, reliability_table
from trueprune.audits.confidence.resample import METRICS, Metric
from trueprune.audits.confidence.scores import MurphyDecomposition, brier, murphy, nll
from trueprune.audits.confidence.selective import RiskCoverage, aurc, auroc, e_aurc, overconfidence, risk_coverage
from trueprune.audits.confidence.smooth import smece

__all__ = [
    "METRICS",
    "Metric",
    "MurphyDecomposition",
    "NullError",
    "ReliabilityTable",
    "RiskCoverage",
    "ace",
    "aurc",
    "auroc",
    "brier",
    "check_confidence",
    "check_probabilities",
    "classwise_ece",
    "debiased_squared_ce",
    "e_aurc",
    "ece",
    "mce",
    "murphy",
    "nll",
    "null_classwise_ece",
    "null_error",
    "overconfidence",
    "reliability_table",
    "risk_coverage",
    "rmsce",
    "smece",
    "softmax",
    "top_label",
]
