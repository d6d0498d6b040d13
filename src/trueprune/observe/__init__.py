"""Observe: one streaming engine and the small statistics that it gathers."""

from trueprune.observe.activations import last_token_activations
from trueprune.observe.answers import AnswerProfile, observe_answers
from trueprune.observe.dense import observe_blocks, observe_outliers, observe_separation
from trueprune.observe.engine import BlockStream
from trueprune.observe.moments import LayerMoments, NearZero
from trueprune.observe.outliers import outlier_percentage
from trueprune.observe.profile import LayerProfile
from trueprune.observe.separation import separation_ratio
from trueprune.observe.statistics import ColumnNorms, Gram

__all__ = [
    "AnswerProfile",
    "BlockStream",
    "ColumnNorms",
    "Gram",
    "LayerMoments",
    "LayerProfile",
    "NearZero",
    "last_token_activations",
    "observe_answers",
    "observe_blocks",
    "observe_outliers",
    "observe_separation",
    "outlier_percentage",
    "separation_ratio",
]
