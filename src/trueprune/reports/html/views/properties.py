"""A section for each property: a sentence, the numbers with a forest plot of the changes, pictures, all metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trueprune.reports.html.charts import Axis, axis_of, axis_picture, interval_picture
from trueprune.reports.html.views.overview import CHANGES
from trueprune.reports.html.views.pictures import pictures
from trueprune.reports.html.views.table import READINGS, Measured, better_words, cell


def property_view(measured: Measured, about: Mapping[str, Any], anchor: str) -> dict[str, Any]:
    """One property.

    **Arguments:**

    - `measured`: the document.
    - `about`: the instrument, as in the document.
    - `anchor`: of its heading.
    """
    instrument = about["name"]
    headline = list(measured.metrics(instrument, headline=True))
    axes = _axes([rows for _, rows in headline])
    return {
        "anchor": anchor,
        "title": about["title"],
        "name": instrument,
        "what": about["what"],
        "why": about["why"],
        "said": _said(measured.document["summary"], instrument),
        "metrics": [_metric(measured, metric, rows, axes) for metric, rows in headline],
        "figures": pictures(measured, instrument),
        "all": [_full(measured, metric, rows) for metric, rows in measured.metrics(instrument)],
    }


def _said(summary: Mapping[str, Any], instrument: str) -> list[dict[str, Any]]:
    found = []
    for key, (sign, words, kind) in CHANGES.items():
        names = [name for name, groups in summary["models"].items() if instrument in groups.get(key, ())]
        if names:
            found.append({"words": words, "names": names, "kind": kind, "sign": sign})
    return found


def _axes(metrics: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, Axis | None]:
    """One axis a unit, so that metrics of a unit can be compared by eye."""
    changes: dict[str, list[dict[str, Any] | None]] = {}
    for rows in metrics:
        for row in rows.values():
            if row["n"] > 1:
                changes.setdefault(row["unit"], []).append(row["change"])
    return {unit: axis_of(found) for unit, found in changes.items()}


def _metric(
    measured: Measured, metric: str, rows: Mapping[str, Mapping[str, Any]], axes: Mapping[str, Axis | None]
) -> dict[str, Any]:
    first = next(iter(rows.values()))
    axis = axes.get(first["unit"]) if first["n"] > 1 else None
    lines = []
    for place, name in enumerate(measured.names):
        if (row := rows.get(name)) is not None:
            lines.append({"name": name, "place": place, "cell": cell(row), "plot": _plot(axis, row)})
    chance = first["details"].get("chance")
    return {
        "title": first["title"],
        "code": metric,
        "better": better_words(first),
        "chance": chance if isinstance(chance, float) else None,
        "axis": axis_picture(axis) if axis and any(line["plot"] for line in lines) else None,
        "lines": lines,
    }


def _plot(axis: Axis | None, row: Mapping[str, Any]) -> Any:
    change, shown = row["change"], cell(row)
    if axis is None or change is None or shown is None:
        return None
    words = f"{shown.change}, 95 % interval {shown.change_interval}: {shown.words}"
    return interval_picture(axis, change, READINGS.get(change.get("reading"), READINGS[None])[2], words)


def _full(measured: Measured, metric: str, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    cells = [(name, cell(rows[name])) for name in measured.names if name in rows]
    return {"code": metric, "better": better_words(next(iter(rows.values()))), "cells": cells}
