"""A file that says what to drop: a plan, lists of blocks, or scores of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trueprune._support.errors import PlanError
from trueprune.plans.plan import plan_in
from trueprune.plans.rankings import LayerEvidence, Ranking

_REMEDY = 'Write {"drop": {"attention": [21, 22]}}, or {"scores": [0.3, 0.1, ...]} with one number a block'


@dataclass(frozen=True, eq=False)
class DropFile:
    """What a file says.

    **Arguments:**

    - `listed`: what goes, by kind, or `None`.
    - `scores`: importance of each block's unit, by kind (`""` for whatever is asked for), or `None`.
    - `source_sha256`: hash of the weights that it was made for; may be empty.
    """

    listed: Mapping[str, Any] | None = None
    scores: Mapping[str, tuple[float, ...]] | None = None
    source_sha256: str = ""

    def ranking(self) -> Ranking:
        """A ranking by the scores of the file."""
        return Ranking(self._importance, observes=False)

    def _importance(self, evidence: LayerEvidence, unit: str) -> np.ndarray:
        scores = self.scores or {}
        found = scores.get(unit, scores.get(""))
        if found is None:
            raise PlanError(f"the file has no scores for {unit}", _REMEDY)
        if len(found) != evidence.n_blocks:
            raise PlanError(
                f"the file has {len(found)} scores, the model {evidence.n_blocks} blocks", "Give one a block"
            )
        return np.array(found, dtype=float)


def read_drop_file(path: str | Path) -> DropFile:
    """Read a plan with a `drop`, a checkpoint's `trueprune.json`, lists of blocks, or scores.

    **Raises:** `PlanError`.
    """
    file, body = Path(path), plan_in(path, "file", _REMEDY)
    source = str(body.get("source_sha256") or "")
    if "scores" in body:
        return DropFile(scores=_scores(body["scores"], file), source_sha256=source)
    listed = body.get("drop", body)
    if not isinstance(listed, dict) or not {"blocks", "attention", "mlp"} & set(listed) or "method" in listed:
        raise PlanError(f"{file} does not say what to drop", _REMEDY)
    return DropFile(listed=listed, source_sha256=source)


def _scores(found: Any, file: Path) -> dict[str, tuple[float, ...]]:
    by_unit = found if isinstance(found, dict) else {"": found}
    try:
        scores = {str(unit): tuple(float(v) for v in values) for unit, values in by_unit.items()}
    except (TypeError, ValueError) as error:
        raise PlanError(f"the scores of {file} cannot be read ({error})", _REMEDY) from error
    if not all(np.isfinite(values).all() for values in scores.values()):
        raise PlanError(f"a score of {file} is not finite", "Give numbers; the lowest go first")
    return scores
