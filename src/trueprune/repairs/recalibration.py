"""Fit a recalibration by name and read a saved one back, so that callers need not know the methods.

Legend: N items, C options.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from trueprune._support.errors import RepairError
from trueprune.repairs.base import REFIT, Recalibration
from trueprune.repairs.registry import RECALIBRATIONS


def fit_recalibration(
    method: str, scores_NC: Float[np.ndarray, "N C"], gold_N: Int[np.ndarray, " M"], **options: Any
) -> Recalibration:
    """Fit the recalibration called `method` on held-out items, never on those that it will be judged by.

    **Arguments:**

    - `method`: a key of `RECALIBRATIONS`.
    - `scores_NC`: log-scores of the options; -inf for options that an item lacks.
    - `gold_N`: the right options, counted from 0.
    - `options`: of the method, e.g. `kind="top-label"` for isotonic.

    **Returns:** the fit.

    **Raises:** `RepairError` for an unknown method, or items on which the fit is undefined.
    """
    return RECALIBRATIONS[_check_method(method)].fit(scores_NC, gold_N, **options)


def recalibration_from_json(data: Any) -> Recalibration:
    """Read back what the `to_json` of any recalibration gave.

    **Arguments:**

    - `data`: plain data, with `method` and `schema`.

    **Returns:** an equal object.

    **Raises:** `RepairError` that names what is missing or wrong.
    """
    if not isinstance(data, Mapping) or "method" not in data:
        raise RepairError("a saved recalibration names no 'method'", REFIT)
    method = _check_method(data["method"])
    if data.get("schema") != 1:
        raise RepairError(f"a saved recalibration has the schema {data.get('schema')!r}, not 1", REFIT)
    return RECALIBRATIONS[method].read(data)


def read_recalibration(path: str | Path) -> dict[str, Recalibration]:
    """The recalibrations beside a checkpoint, by task.

    **Arguments:**

    - `path`: a folder that `trueprune repair` wrote, or its `recalibration.json`.

    **Returns:** for each task an object whose `probabilities(scores_NC)` turns log-scores of the options into
    recalibrated probabilities.

    **Raises:** `RepairError` if there is none, or it cannot be read. A folded temperature is part of the weights and
    has no such file.
    """
    file = Path(path)
    file = file / "recalibration.json" if file.is_dir() else file
    if not file.is_file():
        raise RepairError(
            f"there is no {file}", "Give a folder made by trueprune repair --with vector, platt or isotonic"
        )
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RepairError(f"{file} is not JSON ({error})", "Restore it from the run that wrote it") from error
    tasks = data.get("tasks") if isinstance(data, Mapping) else None
    if not isinstance(tasks, Mapping):
        raise RepairError(f"{file} names no tasks", "Restore it from the run that wrote it")
    return {task: recalibration_from_json(fit) for task, fit in tasks.items()}


def _check_method(method: Any) -> str:
    if not isinstance(method, str) or method not in RECALIBRATIONS:
        raise RepairError(f"there is no recalibration {method!r}", f"Choose from {', '.join(RECALIBRATIONS)}")
    return method
