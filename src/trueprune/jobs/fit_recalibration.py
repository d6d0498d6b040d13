"""Fit a recalibration to what a model answers on the fitting side of some tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from trueprune._support.errors import RepairError
from trueprune.audits.predict import predict, predict_at
from trueprune.audits.predictions import Predictions
from trueprune.models.load import LoadedModel
from trueprune.repairs.base import LEAST_ITEMS, check_items, log_probabilities
from trueprune.repairs.recalibration import fit_recalibration
from trueprune.repairs.temperature import Temperature, fit_temperature, fit_temperature_of
from trueprune.texts.tasks import ChoiceItem, find_task
from trueprune.texts.tasks.questions import TaskOptions

# ln T of the pass that sees options of several tokens; between them the likelihood is smooth.
LOWEST, HIGHEST, STEPS = 0.2, 10.0, 29


def fit_tasks(
    loaded: LoadedModel, items: Mapping[str, Sequence[ChoiceItem]], method: str, answering: TaskOptions
) -> dict[str, Any]:
    """Fit one temperature to all tasks, or any other recalibration to each.

    **Arguments:**

    - `loaded`: the model.
    - `items`: the held-out questions of each task.
    - `method`: a key of `RECALIBRATIONS`.
    - `answering`: how they are scored.

    **Returns:** plain data: `temperature` and `at_bound`, or `tasks` with one fit each.

    **Raises:** `RepairError` for too few items, or a method that does not suit a task.
    """
    for task, many in items.items():
        if len(many) < LEAST_ITEMS:
            raise RepairError(
                f"{task} has {len(many)} items to fit on, too few", f"Use a task with {LEAST_ITEMS} or more"
            )
    if method == "temperature":
        found = _temperature(loaded, items, answering)
        return {"temperature": found.temperature, "at_bound": found.at_bound}
    fits: dict[str, Any] = {}
    labels = {task.name: answering.by_labels(task) for task in map(find_task, answering.tasks)}
    for task, many in items.items():
        if method == "vector" and not labels[task]:
            raise RepairError(
                f"vector scaling needs the same classes in every item, {task} has an item's own options",
                "Use platt or temperature for it, or name label tasks only",
            )
        found = predict(loaded, many, task=task, scoring=answering.scoring, labels=labels[task])
        options = {} if method != "isotonic" or labels[task] else {"kind": "top-label"}
        fits[task] = fit_recalibration(method, found.logits_NC, found.gold_N, **options).to_json()
    return {"tasks": fits}


def _temperature(loaded: LoadedModel, items: Mapping[str, Sequence[ChoiceItem]], answering: TaskOptions) -> Temperature:
    """One temperature for the items of all tasks together."""
    plain = [predict(loaded, many, task=task, scoring=answering.scoring) for task, many in items.items()]
    if answering.scoring == "first" or all(found.tokens_NC.max() == 1 for found in plain):
        # Of one token each: the division by T is all that happens to a score.
        return fit_temperature(*_together(plain))
    check_items(*_together(plain))
    grid = np.linspace(np.log(LOWEST), np.log(HIGHEST), STEPS)
    temperatures = np.exp(grid).tolist()
    totals = np.zeros(STEPS)
    for task, many in items.items():
        tables = predict_at(loaded, many, temperatures, task=task, scoring=answering.scoring)
        totals += [_nll(found) for found in tables]
    return fit_temperature_of(between(grid, totals), bounds=(LOWEST, HIGHEST))


def _together(tables: Sequence[Predictions]) -> tuple[np.ndarray, np.ndarray]:
    """Logits and right options of all tasks, filled up to the most options."""
    most = max(found.logits_NC.shape[1] for found in tables)
    logits = [np.pad(t.logits_NC, ((0, 0), (0, most - t.logits_NC.shape[1])), constant_values=-np.inf) for t in tables]
    return np.concatenate(logits), np.concatenate([found.gold_N for found in tables])


def _nll(found: Predictions) -> float:
    """Summed over the items, so that each item counts the same, whatever its task."""
    return float(-log_probabilities(found.logits_NC)[np.arange(len(found)), found.gold_N].sum())


def between(grid: np.ndarray, values: np.ndarray) -> Callable[[float], float]:
    """The cubic through the four grid points around ln T, as a function of T."""

    def at(temperature: float) -> float:
        x = float(np.log(temperature))
        first = int(np.clip(np.searchsorted(grid, x) - 2, 0, len(grid) - 4))
        near, known = grid[first : first + 4], values[first : first + 4]
        weights = [np.prod([(x - b) / (a - b) for b in near if b != a]) for a in near]
        return float(np.dot(weights, known))

    return at
