"""Fit a recalibration by name and read a saved one back, so that callers need not know the methods.

Legend: N items, C options.
"""

from __future__ import annotations

from collections.abc import Mapping
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


def _check_method(method: Any) -> str:
    if not isinstance(method, str) or method not in RECALIBRATIONS:
        raise RepairError(f"there is no recalibration {method!r}", f"Choose from {', '.join(RECALIBRATIONS)}")
    return method
