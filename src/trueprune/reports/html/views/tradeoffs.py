"""Trade-offs: what was taken away, and the speed that it bought, against every headline metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trueprune.reports.html.charts import Point, scatter_figure
from trueprune.reports.html.figure import Figure
from trueprune.reports.html.numbers import is_number, number, percent
from trueprune.reports.html.views.table import Measured

COST = "efficiency"
# Fewer pruned models make no curve; models this alike in cost make no trade-off.
LEAST, ALIKE = 2, 0.005
# More panels are no overview: the first headline metrics of each property.
PER_PROPERTY, MOST = 2, 12


def tradeoffs(measured: Measured) -> list[Figure]:
    """A figure for weights and one for speed, where models differ in them."""
    if len(measured.names) <= LEAST:
        return []
    found = []
    for title, values, words, caption, write in _costs(measured):
        known = [value for value in values if value is not None]
        if len(known) > LEAST and max(known) - min(known) > ALIKE:
            panels = list(_panels(measured, values))[:MOST]
            found.append(scatter_figure(panels, title, caption, words, write))
    return [figure for figure in found if figure is not None]


def _costs(measured: Measured) -> Sequence[tuple[str, list[float | None], str, str, Any]]:
    nonzero = _of(measured, "nonzero-parameters")
    dense = nonzero[0] if nonzero else None
    if dense:
        shares = [None if value is None else 1 - value / dense for value in nonzero]
        title, words = "Against weights lost", "weights removed or zero"
        at = "the share of weights that a model lost"
    else:
        shares = [_number(model.get("measured_sparsity")) for model in measured.document["models"]]
        title, words = "Against zeros", "share of zeros"
        at = "the share of zeros among the weights that are left; layers that are gone do not count"
    end = "The first headline metrics of each property with their 95 % intervals; the dense model is the round mark."
    speeds = _of(measured, "decode-speedup")
    return [
        (
            title,
            shares,
            words,
            f"What metrics are at {at}. {end}",
            percent,
        ),
        ("Against speed", speeds, "speed-up of writing", f"The same against speed. {end}", _factor),
    ]


def _factor(value: float) -> str:
    return number(value, "factor")


def _of(measured: Measured, metric: str) -> list[float | None]:
    rows = measured.by_metric.get((COST, metric), {})
    return [_number(rows.get(name, {}).get("value")) for name in measured.names] if rows else []


def _panels(measured: Measured, costs: Sequence[float | None]) -> Any:
    for about in measured.instruments:
        if about["name"] == COST:
            continue
        for _, rows in list(measured.metrics(about["name"], headline=True))[:PER_PROPERTY]:
            points = [
                _point(place, name, costs[place], rows[name])
                for place, name in enumerate(measured.names)
                if name in rows and costs[place] is not None and is_number(rows[name]["value"])
            ]
            if len(points) > LEAST:
                first = next(iter(rows.values()))
                yield _words(about["title"], first["title"]), first["unit"], points


def _words(title: str, metric: str) -> str:
    """A metric with its property, said once."""
    said = metric.lower().startswith(title.lower())
    return metric[0].upper() + metric[1:] if said else f"{title}: {metric}"


def _point(place: int, name: str, cost: float | None, row: Mapping[str, Any]) -> Point:
    low, high = (_number(bound) for bound in row["interval"])
    return Point(place, name, cost or 0.0, row["value"], low, high)


def _number(value: Any) -> float | None:
    return float(value) if is_number(value) else None
