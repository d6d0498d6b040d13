"""The edits by the name of their score: one line each."""

from __future__ import annotations

from trueprune._support.errors import PlanError
from trueprune.edits.rule import EditRule
from trueprune.edits.score_masking import MAGNITUDE, WANDA
from trueprune.edits.sparsegpt import SPARSEGPT

EDITS: dict[str, EditRule] = {
    "magnitude": MAGNITUDE,
    "wanda": WANDA,
    "sparsegpt": SPARSEGPT,
}


def find_edit(score: str) -> EditRule:
    """The edit of a score.

    **Raises:** `PlanError` that names the known ones.
    """
    if score not in EDITS:
        raise PlanError(f"unknown score {score!r}", f"Use one of {', '.join(EDITS)}")
    return EDITS[score]
