"""Trade-offs: what a model costs against what it is worth, a panel a metric, one mark a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trueprune.reports.html.charts.frame import Frame, padded
from trueprune.reports.html.figure import Figure, Panel, model_key
from trueprune.reports.html.numbers import number
from trueprune.reports.html.svg import Number, colour, line, marker, picture

# Marks nearer than this cover each other.
APART = 10.0


@dataclass(frozen=True)
class Point:
    """One model in one panel.

    **Arguments:**

    - `index`, `name`: the model.
    - `x`: what it costs.
    - `y`: the metric.
    - `low`, `high`: bounds of the metric.
    """

    index: int
    name: str
    x: Number
    y: Number
    low: Number | None = None
    high: Number | None = None


def scatter_figure(
    panels: Sequence[tuple[str, str, Sequence[Point]]],
    title: str,
    caption: str,
    x_words: str,
    x_text: Callable[[Number], str] | None = None,
) -> Figure | None:
    """A panel a metric.

    **Arguments:**

    - `panels`: the metric in words, its unit, and its points.
    - `title`, `caption`, `x_words`: words above and below.
    - `x_text`: how costs are written.

    **Returns:** `None` without a panel.
    """
    if not panels:
        return None
    drawn = []
    rows = []
    for words, unit, points in panels:
        frame = Frame(300, 230, left=52, top=10)
        x = frame.x(*padded([p.x for p in points], 0.12))
        bounds = [v for p in points for v in (p.y, p.low, p.high) if v is not None]
        y = frame.y(*padded(bounds))
        parts = frame.axes(x, y, x_words, "", x_text=x_text, x_count=4)
        for p, place in zip(points, _apart([x(p.x) for p in points]), strict=True):
            if p.low is not None and p.high is not None:
                parts.append(line(place, y(p.low), place, y(p.high), f"whisker {colour(p.index)}"))
            parts.append(marker(p.index, place, y(p.y), f"{p.name}: {number(p.y, unit)}", 4.5))
        described = "; ".join(f"{p.name} {number(p.y, unit)}" for p in points)
        drawn.append(Panel(picture(frame.width, frame.height, words, f"{described}.", parts, "chart"), words))
        write = x_text or (lambda value: f"{value:.4g}")
        rows += [[words, p.name, write(p.x), number(p.y, unit)] for p in points]
    names = list(dict.fromkeys((p.index, p.name) for _, _, points in panels for p in points))
    return Figure(title, caption, drawn, ["metric", "model", x_words, "value"], rows, model_key(names, lines=False))


def _apart(places: Sequence[Number]) -> list[Number]:
    """Places with those that would cover each other put side by side around where they are."""
    found = list(places)
    order = sorted(range(len(places)), key=lambda i: places[i])
    while order:
        together = [order[0]]
        while len(together) < len(order) and places[order[len(together)]] - places[together[-1]] < APART:
            together.append(order[len(together)])
        middle = sum(places[i] for i in together) / len(together)
        for rank, i in enumerate(together):
            if len(together) > 1:
                found[i] = middle + (rank - (len(together) - 1) / 2) * APART
        order = order[len(together) :]
    return found
