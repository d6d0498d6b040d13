"""Audits: instruments that measure one property of one model item by item."""

from trueprune.audits.instruments import INSTRUMENTS, AuditOptions
from trueprune.audits.lie_detection import measure_lie_detection
from trueprune.audits.measurement import Measurement
from trueprune.audits.perplexity import measure_perplexity
from trueprune.audits.separation import measure_separation

__all__ = [
    "INSTRUMENTS",
    "AuditOptions",
    "Measurement",
    "measure_lie_detection",
    "measure_perplexity",
    "measure_separation",
]
