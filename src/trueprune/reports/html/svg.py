"""Small pictures as inline SVG, drawn with classes for colours, so that themes and print decide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

Number = int | float
# Models beyond the palette go round it again, dashed.
PALETTE = 8


@dataclass(frozen=True)
class Scale:
    """From numbers to places.

    **Arguments:**

    - `low`, `high`: the numbers at the ends.
    - `start`, `end`: the places of the ends.
    """

    low: Number
    high: Number
    start: Number
    end: Number

    def __call__(self, value: Number) -> float:
        """The place of a number."""
        span = self.high - self.low or 1.0
        return self.start + (value - self.low) / span * (self.end - self.start)


def nice_ticks(low: Number, high: Number, count: int = 5) -> list[Number]:
    """Round numbers from `low` to `high`, about so many."""
    span = high - low
    # Rounding is no span.
    if not span > 1e-12 * max(abs(low), abs(high)):
        return [low]
    rough = span / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * size for size in (1, 2, 2.5, 5, 10) if power * size >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    digits = 12 - math.floor(math.log10(step))
    ticks = [round(i * step, digits) for i in range(first, first + 50)]
    return [tick for tick in ticks if tick <= high + 1e-9 * span]


def tick_text(value: Number, ticks: Sequence[Number]) -> str:
    """A tick with the digits that tell it from the next."""
    step = (ticks[1] - ticks[0] if len(ticks) > 1 else abs(value)) or 1.0
    if step < 1e-5 or max(map(abs, ticks)) >= 1e6:
        return f"{value:.4g}".replace("-", "\u2212") if value else "0"
    digits = max(0, min(6, -math.floor(math.log10(step) + 1e-9)))
    if abs(step * 10**digits - round(step * 10**digits)) > 1e-6:
        digits += 1
    return f"{value + 0.0:.{digits}f}".replace("-", "\u2212") if value else "0"


def tag(name: str, content: str | Markup = "", **attributes: object) -> Markup:
    """An element; every value is escaped. `class_` and `stroke_width` become `class` and `stroke-width`."""
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _short(value))
        for key, value in attributes.items()
        if value is not None
    )
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), written, content)


def line(x1: Number, y1: Number, x2: Number, y2: Number, class_: str) -> Markup:
    """A straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def label(x: Number, y: Number, text: str, anchor: str = "middle", class_: str | None = None, **more: object) -> Markup:
    """Words at a place."""
    return tag("text", text, x=x, y=y, text_anchor=anchor, class_=class_, **more)


def polyline(points: Sequence[tuple[Number, Number]], class_: str) -> Markup:
    """A line through points."""
    places = " ".join(f"{_short(x)},{_short(y)}" for x, y in points)
    return tag("polyline", points=places, class_=class_)


def picture(
    width: Number, height: Number, title: str, description: str, parts: Sequence[Markup], class_: str
) -> Markup:
    """A whole picture, named and described for those who do not see it."""
    inside = Markup("").join([tag("title", title), tag("desc", description), *parts])
    box = f"0 0 {_short(width)} {_short(height)}"
    return tag("svg", inside, viewBox=box, role="img", class_=class_)


def colour(index: int) -> str:
    """The classes of a model's colour: the dense model is the first."""
    if index == 0:
        return "m0"
    turn, place = divmod(index - 1, PALETTE - 1)
    return f"m{place + 1}" + (" dashed" if turn % 2 else "")


_CROSS = (
    *((-1.2, -0.4), (-0.4, -0.4), (-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4)),
    *((1.2, 0.4), (0.4, 0.4), (0.4, 1.2), (-0.4, 1.2), (-0.4, 0.4), (-1.2, 0.4)),
)
MARKERS = ("circle", "square", "diamond", "triangle", "cross")


def marker(index: int, x: Number, y: Number, title: str = "", size: Number = 4.5) -> Markup:
    """A model's mark: another shape for each of five, so that colour alone tells nothing."""
    shape = MARKERS[index % len(MARKERS)]
    inside = tag("title", title) if title else Markup("")
    class_ = f"mark {colour(index)}"
    if shape == "circle":
        return tag("circle", inside, cx=x, cy=y, r=size, class_=class_)
    around = {
        "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
        "diamond": [(0, -1.35), (1.35, 0), (0, 1.35), (-1.35, 0)],
        "triangle": [(0, -1.25), (1.2, 1), (-1.2, 1)],
        "cross": list(_CROSS),
    }[shape]
    points = " ".join(f"{_short(x + a * size)},{_short(y + b * size)}" for a, b in around)
    return tag("polygon", inside, points=points, class_=class_)


def _short(value: object) -> str | Markup:
    if isinstance(value, float):
        return f"{value:.1f}".removesuffix(".0")
    return escape(value)
