"""Size and speed against trust: for every pair of such metrics, which configurations nothing beats in both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trueprune.sweeps.pareto import Point, pareto_front
from trueprune.sweeps.results import COMPLETE, ModelResults, Result

REMOVED = "removed"
SPEEDS = ("prefill-speedup", "decode-speedup")
EFFICIENCY = "efficiency"


def fronts(model: ModelResults) -> list[dict[str, Any]]:
    """The Pareto front of each size or speed against each headline metric of trust.

    A configuration is one point: means over its seeds, where all of them are complete. The dense model is a point, too.
    `x` is the share of prunable weights that are zero or gone (`removed`), or a speed-up where efficiency was measured.

    **Arguments:**

    - `model`: the cells of one dense model.

    **Returns:** plain data: `x`, `instrument`, `y`, `higher_is_better`, `points` (`name`, `x`, `y`, `front`).
    """
    if model.report is None:
        return []
    values = _values(model)
    headlines = {
        (row.instrument, row.metric): row.higher_is_better
        for row in model.report.rows
        if row.headline and row.instrument != EFFICIENCY
    }
    xs = [REMOVED, *(name for name in SPEEDS if any(name in found for found in values.values()))]
    return [
        _front(values, x, instrument, metric, higher) for x in xs for (instrument, metric), higher in headlines.items()
    ]


def _front(
    values: Mapping[str, Mapping[str, float]], x: str, instrument: str, metric: str, higher: bool
) -> dict[str, Any]:
    sign = 1 if higher else -1
    points = [
        Point(name, found[x], sign * found[metric]) for name, found in values.items() if x in found and metric in found
    ]
    front = {point.name for point in pareto_front(points)}
    return {
        "x": x,
        "instrument": instrument,
        "y": metric,
        "higher_is_better": higher,
        "points": [{"name": p.name, "x": p.x, "y": sign * p.y, "front": p.name in front} for p in points],
    }


def _values(model: ModelResults) -> dict[str, dict[str, float]]:
    """The metrics of the dense model and of each complete configuration, and how much is removed."""
    assert model.report is not None
    metrics: dict[str, dict[str, float]] = {}
    for row in model.report.rows:
        metrics.setdefault(row.model, {})[row.metric] = row.estimate.value
    dense = model.report.models[0]
    found = {dense.name: {REMOVED: dense.about.get("measured_sparsity", 0.0), **metrics.get(dense.name, {})}}
    # What a model is beside itself.
    found[dense.name] |= {name: 1.0 for name in SPEEDS if name in found[dense.name]}
    for label, cells in by_configuration(model.cells).items():
        if all(cell.status == COMPLETE for cell in cells):
            each = [{REMOVED: cell.data["removed"], **metrics.get(cell.name, {})} for cell in cells]
            shared = [key for key in each[0] if all(key in one for one in each)]
            found[label] = {key: sum(one[key] for one in each) / len(each) for key in shared}
    return found


def by_configuration(cells: Sequence[Result]) -> dict[str, list[Result]]:
    """Cells that differ in the seed alone, together, under a name without the seed."""
    found: dict[str, list[Result]] = {}
    for cell in cells:
        # Two drops by files of one name are told apart by the number in the name of the cell.
        label = cell.name.replace(f" (seed {cell.config.seed})", "")
        found.setdefault(label, []).append(cell)
    return found
