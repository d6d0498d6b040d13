"""The verdict and the overview: first what it comes to, then every headline metric of every model in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trueprune.reports.glossary import metric_words, property_of, unit_of
from trueprune.reports.html.numbers import bound, interval, is_number, number, signed
from trueprune.reports.html.views.table import Measured, better_words, cell

STATUS = {"pass": ("✓", "pass"), "fail": ("✕", "fail"), "inconclusive": ("?", "inconclusive")}
# Of each group of a summary its sign, its words and its class.
CHANGES = {
    "worse": ("▼", "Worse", "worse"),
    "mixed": ("▼▲", "Worse in part, better in part", "worse"),
    "better": ("▲", "Better", "better"),
    "maybe worse": ("▽", "Maybe worse", "maybe-worse"),
    "maybe better": ("△", "Maybe better", "maybe-better"),
    "not found": ("≈", "Not found to change", "unclear"),
}
QUANTITIES = {"value": "value", "change": "change against the dense model", "ratio": "ratio to the dense model"}


def verdict_view(document: Mapping[str, Any]) -> dict[str, Any]:
    """What the page says first: a gate's verdict, or what changed beyond chance."""
    verdict, summary = document.get("verdict"), document["summary"]
    said = [{"name": name, "groups": _groups(one)} for name, one in summary["models"].items()]
    if not verdict:
        return {"gate": None, "sentence": summary["sentence"], "models": said}
    models = [
        {"name": name, "passed": one["passed"], "outcomes": [_outcome(outcome) for outcome in one["outcomes"]]}
        for name, one in verdict["models"].items()
    ]
    return {
        "gate": str(verdict["gate"]["name"] if isinstance(verdict["gate"], Mapping) else verdict["gate"]),
        "sentence": verdict["sentence"],
        "passed": bool(verdict["passed"]),
        "judged": models,
        "passing": sum(bool(one["passed"]) for one in models),
        "summary": summary["sentence"],
        "models": said,
    }


def _groups(one: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"sign": sign, "words": words, "kind": kind, "titles": [property_of(name).title for name in one[key]]}
        for key, (sign, words, kind) in CHANGES.items()
        if one.get(key)
    ]


def _outcome(one: Mapping[str, Any]) -> dict[str, Any]:
    check = one["check"]
    instrument, quantity = check["instrument"], check["quantity"]
    unit = unit_of(instrument, one["metric"]) if quantity != "ratio" else "factor"
    write = signed if quantity == "change" else number
    bounds = [
        f"{words} {bound(check[key], unit, change=quantity == 'change')}"
        for key, words in (("at_least", "at least"), ("at_most", "at most"))
        if check.get(key) is not None
    ]
    sign, words = STATUS.get(one["status"], ("?", str(one["status"])))
    counted = "" if one["status"] != "inconclusive" else f", counts as {'pass' if one['passed'] else 'fail'}"
    return {
        "property": property_of(instrument).title,
        "metric": metric_words(instrument, one["metric"]),
        "bound": f"{QUANTITIES.get(quantity, quantity)} {' and '.join(bounds)}",
        "value": write(one["value"], unit),
        "interval": interval(one["interval"], unit, change=quantity == "change"),
        "n": one["n"],
        "sign": sign,
        "status": f"{words}{counted}",
        "kind": "better" if one["status"] == "pass" else "worse" if one["status"] == "fail" else "unclear",
        "reason": check.get("reason") or "",
        "note": one.get("note") or "",
        "needed": f"about {one['needed']:,}" if is_number(one.get("needed")) else _none_needed(one),
    }


def _none_needed(one: Mapping[str, Any]) -> str:
    if one["status"] != "inconclusive" or one["value"] is None:
        return ""
    return "more items would" if None in one["interval"] else "no number would decide it"


def overview_view(measured: Measured) -> list[dict[str, Any]]:
    """Headline metrics by property, a cell a model."""
    groups = []
    for about in measured.instruments:
        rows = [
            {
                "title": next(iter(rows.values()))["title"],
                "better": better_words(next(iter(rows.values()))),
                "cells": [cell(rows.get(name)) for name in measured.names],
            }
            for _, rows in measured.metrics(about["name"], headline=True)
        ]
        if rows:
            groups.append({"title": about["title"], "rows": rows})
    return groups


def models_view(document: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    """A line on each model, for the head of the overview."""
    return [
        {
            "name": model["name"],
            "place": place,
            "method": model.get("method") or ("dense" if not place else ""),
            "sparsity": model.get("measured_sparsity"),
        }
        for place, model in enumerate(document["models"])
    ]
