"""A forest plot inside a table: every change with its interval on an axis that rows share, zero marked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from trueprune.reports.html.charts.frame import padded
from trueprune.reports.html.numbers import is_number
from trueprune.reports.html.svg import Scale, label, line, nice_ticks, picture, tag, tick_text

WIDTH, HEIGHT, EDGE = 240.0, 31.0, 16.0


@dataclass(frozen=True)
class Axis:
    """The numbers at the ends of the axis."""

    low: float
    high: float

    @property
    def scale(self) -> Scale:
        """From numbers to places."""
        return Scale(self.low, self.high, EDGE, WIDTH - EDGE)


def axis_of(changes: Iterable[dict[str, Any] | None]) -> Axis | None:
    """An axis that holds zero and all changes with their intervals; `None` without any.

    **Arguments:**

    - `changes`: with `value` and `interval`.
    """
    found = [v for change in changes if change for v in (change["value"], *change["interval"]) if is_number(v)]
    # What differs by rounding only has no picture.
    if not found or max(map(abs, found)) < 1e-9:
        return None
    low, high = padded([*found, 0.0], 0.06)
    return Axis(low, high)


def axis_picture(axis: Axis) -> Markup:
    """The ticks, for the head of the table."""
    ticks = nice_ticks(axis.low, axis.high, 4)
    parts = [line(EDGE, 1, WIDTH - EDGE, 1, "axis")]
    for tick in ticks:
        parts.append(line(axis.scale(tick), 1, axis.scale(tick), 5, "axis"))
        parts.append(label(axis.scale(tick), 17, tick_text(tick, ticks)))
    inside = Markup("").join(parts)
    box = f"0 0 {WIDTH:g} 20"
    return tag("svg", inside, viewBox=box, width=f"{WIDTH:g}", height="20", aria_hidden="true", class_="chart fixed")


def interval_picture(axis: Axis, change: dict[str, Any], kind: str, words: str) -> Markup | None:
    """A change with its interval; `None` where there is no number.

    **Arguments:**

    - `axis`: of the table.
    - `change`: with `value` and `interval`.
    - `kind`: the class that colours it.
    - `words`: the same in words.
    """
    if not is_number(change["value"]):
        return None
    x, middle = axis.scale, HEIGHT / 2
    parts = [line(x(0), 0, x(0), HEIGHT, "zero")]
    if all(map(is_number, change["interval"])):
        low, high = (x(bound) for bound in change["interval"])
        parts.append(line(low, middle, high, middle, f"whisker {kind}"))
        parts += [line(end, middle - 4, end, middle + 4, f"whisker {kind}") for end in (low, high)]
    parts.append(tag("circle", cx=x(change["value"]), cy=middle, r=4.2, class_=f"mark {kind}"))
    return picture(WIDTH, HEIGHT, "Change and its interval", words, parts, "chart fixed")
