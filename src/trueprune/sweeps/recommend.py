"""Under a gate: the sparsest model that passes, or which came nearest and what it broke."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from trueprune.reports.gates.contract import Outcome
from trueprune.reports.usable import NEGLIGIBLE
from trueprune.sweeps.commands import commands
from trueprune.sweeps.configs import NONE
from trueprune.sweeps.fronts import by_configuration
from trueprune.sweeps.grid import Grid
from trueprune.sweeps.results import COMPLETE, ModelResults, Result


def recommend(grid: Grid, model: ModelResults) -> dict[str, Any] | None:
    """The configuration to use.

    A configuration passes if all its seeds are complete and pass. Of those that pass the one is recommended of which
    most is removed, the mean over its seeds. Of those that are as small, to half a percent of the weights, one without
    a repair comes first, then the one whose bounds are kept by the widest margin. If none passes, the nearest is the
    one that breaks fewest bounds, then the one whose worst shortfall is least. Margin and shortfall are distances of
    the value from the bound over the size of the bound. This order is ours.

    **Arguments:**

    - `grid`: what the sweep went through.
    - `model`: the cells of one dense model.

    **Returns:** plain data, or `None` without a gate or a complete configuration: `passed`, `name`, `removed`, `cells`,
    `commands` (of the first seed), `plan`, and `broken`: for each seed the bounds that it breaks.
    """
    if model.report is None or model.report.verdict is None:
        return None
    whole = {
        label: cells
        for label, cells in by_configuration(model.cells).items()
        if all(cell.status == COMPLETE for cell in cells)
    }
    if not whole:
        return None
    passing = [label for label, cells in whole.items() if all(cell.passed for cell in cells)]
    if passing:
        most = max(_removed(whole[label]) for label in passing)
        small = [label for label in passing if _removed(whole[label]) >= most - NEGLIGIBLE]
        label = min(small, key=lambda name: (whole[name][0].config.repair != NONE, _worst(model, whole[name])))
    else:
        label = min(whole, key=lambda name: _distance(model, whole[name]))
    cells = whole[label]
    return {
        "model": model.name,
        "passed": bool(passing),
        "name": label,
        "removed": _removed(cells),
        "cells": [cell.cell for cell in cells],
        "seeds": [cell.config.seed for cell in cells],
        "commands": commands(grid, cells[0].config),
        "plan": cells[0].data["plan"],
        "broken": [
            {"seed": cell.config.seed, **_spoken(outcome)} for cell in cells for outcome in _broken(model, cell)
        ],
    }


def _removed(cells: Sequence[Result]) -> float:
    return sum(cell.data["removed"] for cell in cells) / len(cells)


def _broken(model: ModelResults, cell: Result) -> list[Outcome]:
    assert model.report is not None and model.report.verdict is not None
    return [outcome for outcome in model.report.verdict.of(cell.name) if not outcome.passed]


def _distance(model: ModelResults, cells: Sequence[Result]) -> tuple[int, float, float]:
    return max(len(_broken(model, cell)) for cell in cells), _worst(model, cells), -_removed(cells)


def _worst(model: ModelResults, cells: Sequence[Result]) -> float:
    assert model.report is not None and model.report.verdict is not None
    return max(beyond(outcome) for cell in cells for outcome in model.report.verdict.of(cell.name))


def beyond(outcome: Outcome) -> float:
    """How far a value lies beyond its bound, over the size of the bound; negative within it."""
    if not math.isfinite(outcome.value):
        return math.inf
    check = outcome.check
    over = -math.inf if check.at_most is None else (outcome.value - check.at_most) / (abs(check.at_most) or 1)
    under = -math.inf if check.at_least is None else (check.at_least - outcome.value) / (abs(check.at_least) or 1)
    return max(over, under)


def _spoken(outcome: Outcome) -> dict[str, Any]:
    check = outcome.check
    low, high = outcome.interval
    return {
        "instrument": check.instrument,
        "metric": outcome.metric,
        "quantity": check.quantity,
        "at_least": check.at_least,
        "at_most": check.at_most,
        "status": outcome.status,
        "value": _finite(outcome.value),
        "interval": [_finite(low), _finite(high)],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
