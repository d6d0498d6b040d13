"""The items that got worst: what was asked, what the dense model said, and what the pruned one says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trueprune.reports.html.numbers import number, percent
from trueprune.reports.html.views.table import Measured

# Where an item is right or wrong, or right in a share of the tries.
WRONG = {
    "lie-detection": "misjudged",
    "accuracy": "wrong",
    "open-qa": "wrong",
    "truthful-generation": "nearer to error",
}


def worst_view(measured: Measured) -> list[dict[str, Any]]:
    """By property and metric, a list a model; metrics on which no item got worse are left out."""
    lists: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for one in measured.document.get("worst_items") or []:
        if one["items"]:
            lists.setdefault((one["instrument"], one["metric"]), []).append(one)
    groups = []
    for about in measured.instruments:
        metrics = [
            {
                "title": next(iter(measured.by_metric[name].values()))["title"],
                "counts": [{key: one[key] for key in ("model", "worse", "better", "same", "n")} for one in found],
                "models": [
                    {"name": one["model"], "rows": [_item(item, about) for item in one["items"]]} for one in found
                ],
            }
            for name, found in lists.items()
            if name[0] == about["name"] and name in measured.by_metric
        ]
        if metrics:
            groups.append({"title": about["title"], "metrics": metrics})
    return groups


def _rows(items: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [_item(item, about) for item in items]


def _item(item: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": item["item"],
        "text": item.get("text"),
        "right": item.get("right"),
        "before": _side(item["before"], about),
        "after": _side(item["after"], about),
    }


def _side(side: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    probability = side.get("probability")
    said = side.get("said")
    return {
        "value": _value(side["value"], about),
        "said": "(nothing)" if said == "" else said,
        "probability": None if probability is None else percent(probability),
    }


def _value(value: Any, about: Mapping[str, Any]) -> str:
    """`✓ right`, `✕ wrong`, or the number that the item has."""
    words = about["item"]
    if about["name"] not in WRONG:
        return f"{words} {number(value)}"
    if value in (0, 1):
        return f"✓ {words}" if value else f"✕ {WRONG[about['name']]}"
    return f"{words} in {percent(value)}"
