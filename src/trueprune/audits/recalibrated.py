"""What a model's record says of repairs: recalibrations applied, and no judging by items that it was fitted on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trueprune._support.errors import AuditError
from trueprune.audits.predictions import Predictions
from trueprune.repairs.recalibration import recalibration_from_json
from trueprune.texts.sides import Row
from trueprune.texts.tasks.questions import TaskOptions

KEY = "recalibration"
# Under these keys steps say what items they used, and for what.
FITTING = {KEY: "recalibrate", "healing": "train"}
# Asked in another way, other numbers come out of the model than those that the curve was fitted to.
WAYS = ("scoring", "answers", "correct", "chat", "shots")


def recalibrated(predictions: Predictions, record: Mapping[str, Any] | None, answering: TaskOptions) -> Predictions:
    """The answers as the model's own recalibration turns them; as they are where it has none.

    A temperature that is folded into the weights has done its work already.

    **Arguments:**

    - `predictions`: of the model.
    - `record`: its `trueprune.json`.
    - `answering`: how it was asked.

    **Raises:** `AuditError` if it was fitted to answers to questions put in another way.
    """
    found = (record or {}).get(KEY)
    if not found or found.get("folded"):
        return predictions
    fitted = found["tasks"].get(predictions.task)
    if fitted is None:
        warnings.warn(
            f"the model was recalibrated on {', '.join(found['tasks'])}, not on {predictions.task}: "
            "its answers there are as they were",
            stacklevel=2,
        )
        return predictions
    if way := other_way(found, answering):
        ours, theirs = (_flag(way, value) for value in (getattr(answering, way), found[way]))
        raise AuditError(
            f"the recalibration was fitted with {theirs}, not {ours}", f"Audit with {theirs}, or fit it again"
        )
    return predictions.with_probabilities(recalibration_from_json(fitted).probabilities(predictions.logits_NC))


def other_way(found: Mapping[str, Any], answering: TaskOptions) -> str | None:
    """The first option by which questions are put in another way than a recalibration was fitted to, if there is one.

    **Arguments:**

    - `found`: what the record says of the recalibration.
    - `answering`: how questions are put now.
    """
    return next((way for way in WAYS if found.get(way, getattr(answering, way)) != getattr(answering, way)), None)


def _flag(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    return f"--{name} {value}"


def refuse_fitted(name: str, record: Mapping[str, Any] | None, task: str, items: Sequence[Row]) -> None:
    """Refuse to judge a model by items that it was fitted on, now or in an earlier step.

    **Arguments:**

    - `name`: how the model is called.
    - `record`: its `trueprune.json`.
    - `task`, `items`: what it is asked: a task or question set, and its items.

    **Raises:** `AuditError` that says how many.
    """
    record = record or {}
    steps = [*record.get("history", []), record]
    for key, use in FITTING.items():
        used = [(step.get(key) or {}).get("fitted_on", {}) for step in steps]
        fitted = {sha for sets in used for shas in sets.values() for sha in shas}
        shared = [item.id for item in items if item.sha256 in fitted]
        if shared:
            raise AuditError(
                f"{len(shared)} of the {len(items)} items of {task} were used to {use} {name} (e.g. {shared[0]})",
                "Audit items that it was not fitted on, or fit it on others",
            )


def warn_of_fitted(name: str, record: Mapping[str, Any] | None, tasks: Sequence[str]) -> None:
    """Say so where lm-eval may ask what a model was fitted on: its documents cannot be told from our items.

    **Arguments:**

    - `name`, `record`: as for `refuse_fitted`.
    - `tasks`: of lm-evaluation-harness; those called like a set of ours have its questions (`truthfulqa_mc1`).
    """
    steps = [*(record or {}).get("history", []), record or {}]
    used = {source for step in steps for key in FITTING for source in (step.get(key) or {}).get("fitted_on", {})}
    for task in tasks:
        if sources := sorted(source for source in used if Path(task).name.startswith(source)):
            warnings.warn(
                f"{name} was fitted on questions of {sources[0]}, and lm-eval:{task} does not leave these out: "
                "its value may be too good",
                stacklevel=2,
            )
