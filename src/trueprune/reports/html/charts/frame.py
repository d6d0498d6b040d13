"""Axes, grid and ticks that the charts share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup

from trueprune.reports.html.svg import Number, Scale, label, line, nice_ticks, tick_text


@dataclass(frozen=True)
class Frame:
    """Where a chart's data go.

    **Arguments:**

    - `width`, `height`: of the picture.
    - `left`, `right`, `top`, `bottom`: margins.
    """

    width: Number
    height: Number
    left: Number = 50.0
    right: Number = 12.0
    top: Number = 12.0
    bottom: Number = 42.0

    def x(self, low: Number, high: Number) -> Scale:
        """The horizontal scale."""
        return Scale(low, high, self.left, self.width - self.right)

    def y(self, low: Number, high: Number) -> Scale:
        """The vertical scale, upwards."""
        return Scale(low, high, self.height - self.bottom, self.top)

    def axes(
        self,
        x: Scale,
        y: Scale,
        x_words: str,
        y_words: str,
        *,
        x_text: Callable[[Number], str] | None = None,
        y_text: Callable[[Number], str] | None = None,
        x_count: int = 6,
        y_count: int = 5,
    ) -> list[Markup]:
        """Grid, ticks, and what the axes are."""
        across, up = nice_ticks(x.low, x.high, x_count), nice_ticks(y.low, y.high, y_count)
        foot = self.height - self.bottom
        parts = []
        for tick in up:
            parts.append(line(self.left, y(tick), self.width - self.right, y(tick), "grid"))
            words = y_text(tick) if y_text else tick_text(tick, up)
            parts.append(label(self.left - 7, y(tick) + 4, words, "end"))
        for tick in across:
            parts.append(line(x(tick), foot, x(tick), foot + 4, "axis"))
            words = x_text(tick) if x_text else tick_text(tick, across)
            parts.append(label(x(tick), foot + 17, words))
        parts.append(line(self.left, foot, self.width - self.right, foot, "axis"))
        middle = (self.left + self.width - self.right) / 2
        parts.append(label(middle, self.height - 6, x_words, class_="name"))
        centre = (self.top + foot) / 2
        parts.append(label(13.0, centre, y_words, class_="name", transform=f"rotate(-90 13 {centre:.1f})"))
        return parts


def padded(values: list[Number], share: Number = 0.08, *, zero: bool = False) -> tuple[Number, Number]:
    """Ends of an axis with some room around the values.

    **Arguments:**

    - `values`: at least one.
    - `share`: of the span on either side.
    - `zero`: whether zero must be on it.
    """
    low, high = min(values), max(values)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    room = (high - low) * share or abs(high) * share or 0.5
    return (low if zero and low == 0 else low - room), (high if zero and high == 0 else high + room)
