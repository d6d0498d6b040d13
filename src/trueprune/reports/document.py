"""The document of an audit: all that its report says, as plain data, of which both the JSON and the page are made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from trueprune.audits.instruments import INSTRUMENTS
from trueprune.reports.glossary import PROPERTIES, item_value, metric_words, property_of, unit_of
from trueprune.reports.items import worst_items
from trueprune.reports.plain import plain, thinned
from trueprune.reports.summary import reading, summary

if TYPE_CHECKING:
    from trueprune.reports.audit import AuditReport, Row

SCHEMA = 2
# Longer curves are thinned: a screen shows no more.
CURVE_POINTS = 200
CURVES = ("risk_coverage", "reliability")


def document(report: AuditReport) -> dict[str, Any]:
    """An audit as plain data, schema 2; `schema()` says what is in it.

    **Arguments:**

    - `report`: the audit.
    """
    found = {
        "schema": SCHEMA,
        "dense": report.models[0].name,
        "models": [
            {"name": m.name, **m.about, "curves": {name: _curve(values) for name, values in m.curves.items()}}
            for m in report.models
        ],
        "summary": summary(report),
        "verdict": None if report.verdict is None else report.verdict.to_json(),
        "instruments": _instruments(report),
        "measurements": [_measurement(row) for row in report.rows],
        "worst_items": worst_items(report, report.items),
        "settings": report.settings,
    }
    return plain(found)


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the document."""
    file = resources.files("trueprune.reports") / "schema" / "audit.schema.json"
    return json.loads(file.read_text(encoding="utf-8"))


def _instruments(report: AuditReport) -> list[dict[str, Any]]:
    """What each instrument is: those that measured, what concerns trust first, then those that did not."""
    known = {name: place for place, name in enumerate(PROPERTIES)}
    ran = sorted(dict.fromkeys(row.instrument for row in report.rows), key=lambda name: known.get(name, len(known)))
    found = []
    for name in (*ran, *(name for name in INSTRUMENTS if name not in ran)):
        about = property_of(name)
        words = {"name": name, "title": about.title, "what": about.what, "why": about.why, "item": item_value(name)}
        found.append({**words, "measured": name in ran})
    return found


def _measurement(row: Row) -> dict[str, Any]:
    found = row.to_json()
    words = {"title": metric_words(row.instrument, row.metric), "unit": unit_of(row.instrument, row.metric)}
    if found["change"] is not None:
        significant = row.test is not None and row.test.significant
        found["change"] = {**found["change"], "significant": significant, "reading": reading(row)}
    return {**found, "details": _details(row.details), **words}


def _details(details: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: thinned(value, CURVE_POINTS) if key in CURVES and isinstance(value, Mapping) else value
        for key, value in details.items()
    }


def _curve(values: Sequence[float]) -> list[float]:
    return thinned({"y": values}, CURVE_POINTS)["y"]
