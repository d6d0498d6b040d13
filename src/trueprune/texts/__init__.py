"""Texts: calibration corpora, true/false statements, and one loader for hub, mirror and local files."""

from trueprune.texts.calibration import CalibrationOptions, calibration_tokens
from trueprune.texts.collections import load_statements
from trueprune.texts.enrich import enrich
from trueprune.texts.selection import select
from trueprune.texts.sources import SOURCES
from trueprune.texts.statements import Statement, StatementSet
from trueprune.texts.tasks import ChoiceItem, PromptOptions, TaskItem, TaskOptions, questions
from trueprune.texts.tokens import TokenBatch

__all__ = [
    "SOURCES",
    "CalibrationOptions",
    "ChoiceItem",
    "PromptOptions",
    "Statement",
    "StatementSet",
    "TaskItem",
    "TaskOptions",
    "TokenBatch",
    "calibration_tokens",
    "enrich",
    "load_statements",
    "questions",
    "select",
]
