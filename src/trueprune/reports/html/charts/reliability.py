"""Reliability diagrams: how often a model is right at each confidence, one panel a model, the dense model behind.

Guo et al. 2017 (arXiv 1706.04599), Figure 1, with Wilson's interval of each bin and the number of its items below, so
that a bin of three items does not look like a finding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from trueprune.reports.html.charts.frame import Frame
from trueprune.reports.html.figure import Figure, Panel
from trueprune.reports.html.numbers import is_number, number
from trueprune.reports.html.svg import Scale, colour, line, marker, picture, polyline, tag

BARS = 34.0
COLUMNS = ("lower", "upper", "count", "confidence", "accuracy", "low", "high")


def reliability_figure(tables: Sequence[tuple[int, str, Mapping[str, Any]]], title: str, caption: str) -> Figure | None:
    """One panel a model.

    **Arguments:**

    - `tables`: place and name of the model and its reliability table, lists by name; the dense model first.
    - `title`, `caption`: words.

    **Returns:** `None` where no table is whole.
    """
    known = [one for one in tables if _bins(one[2])]
    if not known:
        return None
    dense = known[0] if known[0][0] == 0 else None
    panels = [Panel(_panel(index, name, table, dense, title), name) for index, name, table in known]
    rows = [
        [
            name,
            f"{number(b['lower'])} to {number(b['upper'])}",
            f"{b['count']:.0f}",
            number(b["confidence"]),
            number(b["accuracy"]),
            f"{number(b['low'])} to {number(b['high'])}",
        ]
        for _, name, table in known
        for b in _bins(table)
    ]
    columns = ["model", "bin", "items", "mean confidence", "share right", "95 % interval"]
    return Figure(title, caption, panels, columns, rows)


def _bins(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The bins that hold items."""
    lists = [table.get(name) or [] for name in COLUMNS]
    rows: list[dict[str, Any]] = [dict(zip(COLUMNS, row, strict=True)) for row in zip(*lists, strict=False)]
    return [row for row in rows if row["count"] and all(map(is_number, row.values()))]


def _panel(
    index: int, name: str, table: Mapping[str, Any], dense: tuple[int, str, Mapping[str, Any]] | None, title: str
) -> Markup:
    frame = Frame(270, 290, left=42, right=10, top=8, bottom=40 + BARS + 8)
    x, y = frame.x(0, 1), frame.y(0, 1)
    foot = frame.height - frame.bottom
    parts = [line(frame.left, y(t), frame.width - frame.right, y(t), "grid") for t in (0, 0.25, 0.5, 0.75, 1)]
    parts += [tag("text", f"{t:g}", x=frame.left - 6, y=y(t) + 4, text_anchor="end") for t in (0.0, 0.5, 1.0)]
    parts.append(line(x(0), y(0), x(1), y(1), "pointer"))
    if dense is not None and index != 0:
        parts.append(polyline([(x(b["confidence"]), y(b["accuracy"])) for b in _bins(dense[2])], "curve m0 faint"))
    bins = _bins(table)
    parts.append(polyline([(x(b["confidence"]), y(b["accuracy"])) for b in bins], f"curve {colour(index)}"))
    for b in bins:
        here = x(b["confidence"])
        parts.append(line(here, y(b["low"]), here, y(b["high"]), f"whisker {colour(index)}"))
        words = f"{b['count']:.0f} items: {number(b['accuracy'])} right at confidence {number(b['confidence'])}"
        parts.append(marker(index, here, y(b["accuracy"]), words, 3.2))
    parts += _counts(bins, x, foot + 8, index)
    base = foot + 8 + BARS
    parts += [tag("text", f"{t:g}", x=x(t), y=base + 14, text_anchor="middle") for t in (0.0, 0.5, 1.0)]
    parts.append(tag("text", "confidence", x=(x(0) + x(1)) / 2, y=base + 31, text_anchor="middle", class_="name"))
    centre = (y(0) + y(1)) / 2
    turned = f"rotate(-90 11 {centre:.1f})"
    parts.append(tag("text", "share right", x=11, y=centre, text_anchor="middle", class_="name", transform=turned))
    gap = [b["accuracy"] - b["confidence"] for b in bins]
    over = sum(b["count"] for b, g in zip(bins, gap, strict=True) if g < 0) / sum(b["count"] for b in bins)
    described = f"{name}: {over:.0%} of the items are in bins in which it is right less often than its confidence says."
    return picture(frame.width, frame.height, f"{title}: {name}", described, parts, "chart")


def _counts(bins: Sequence[Mapping[str, Any]], x: Scale, top: float, index: int) -> list[Markup]:
    most = max(b["count"] for b in bins)
    parts = []
    for b in bins:
        size = BARS * b["count"] / most
        wide = max(x(b["upper"]) - x(b["lower"]) - 1, 0.5)
        parts.append(
            tag(
                "rect",
                x=x(b["lower"]) + 0.5,
                y=top + BARS - size,
                width=wide,
                height=size,
                class_=f"bar {colour(index)}",
            )
        )
    parts.append(line(x(0), top + BARS, x(1), top + BARS, "axis"))
    return parts
