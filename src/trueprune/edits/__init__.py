"""Edits: from a plan to pruned weights."""

from trueprune.edits.drop import apply_drop
from trueprune.edits.masks import cumulative_mass, lowest_in_group, lowest_in_matrix, lowest_in_row
from trueprune.edits.prune import apply_plan, measured_sparsity
from trueprune.edits.registry import EDITS
from trueprune.edits.rule import EditOptions, EditRule, Target
from trueprune.edits.score_masking import magnitude_score, wanda_score
from trueprune.edits.sparsegpt import sparsegpt_solve

__all__ = [
    "EDITS",
    "EditOptions",
    "EditRule",
    "Target",
    "apply_drop",
    "apply_plan",
    "cumulative_mass",
    "lowest_in_group",
    "lowest_in_matrix",
    "lowest_in_row",
    "magnitude_score",
    "measured_sparsity",
    "sparsegpt_solve",
    "wanda_score",
]
