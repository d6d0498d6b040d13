"""Audits: instruments that measure one property of one model item by item."""

from trueprune.audits.accuracy import accuracy_of
from trueprune.audits.calibration import ConfidenceOptions, calibration_of
from trueprune.audits.context import AuditOptions, AuditSettings
from trueprune.audits.efficiency import EfficiencyOptions, measure_efficiency
from trueprune.audits.faithfulness.explain import Explanation, ExplanationOptions, explain, read_explanations
from trueprune.audits.faithfulness.measures import agreement_of, faithfulness_of
from trueprune.audits.faithfulness.question import Question
from trueprune.audits.instruments import INSTRUMENTS
from trueprune.audits.lie_detection import measure_lie_detection
from trueprune.audits.measurement import Measurement
from trueprune.audits.perplexity import measure_perplexity
from trueprune.audits.predict import predict
from trueprune.audits.predictions import Predictions, read_predictions, write_predictions
from trueprune.audits.separation import measure_separation

__all__ = [
    "INSTRUMENTS",
    "AuditOptions",
    "AuditSettings",
    "ConfidenceOptions",
    "EfficiencyOptions",
    "Explanation",
    "ExplanationOptions",
    "Measurement",
    "Predictions",
    "Question",
    "accuracy_of",
    "agreement_of",
    "calibration_of",
    "explain",
    "faithfulness_of",
    "measure_efficiency",
    "measure_lie_detection",
    "measure_perplexity",
    "measure_separation",
    "predict",
    "read_explanations",
    "read_predictions",
    "write_predictions",
]
