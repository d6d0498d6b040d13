"""Audits: instruments that measure one property of one model item by item."""

from trueprune.audits.accuracy import AccuracyOptions, measure_accuracy
from trueprune.audits.efficiency import EfficiencyOptions, measure_efficiency
from trueprune.audits.instruments import INSTRUMENTS, AuditOptions
from trueprune.audits.lie_detection import measure_lie_detection
from trueprune.audits.measurement import Measurement
from trueprune.audits.perplexity import measure_perplexity
from trueprune.audits.separation import measure_separation

__all__ = [
    "INSTRUMENTS",
    "AccuracyOptions",
    "AuditOptions",
    "EfficiencyOptions",
    "Measurement",
    "measure_accuracy",
    "measure_efficiency",
    "measure_lie_detection",
    "measure_perplexity",
    "measure_separation",
]
