"""Curves of several models in one chart: separation over blocks, risk over coverage, effect over removed words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from trueprune.reports.html.charts.frame import Frame, padded
from trueprune.reports.html.figure import Figure, Panel, model_key
from trueprune.reports.html.numbers import number
from trueprune.reports.html.svg import Number, colour, line, marker, picture, polyline

# More points than this have no marks.
MARKED = 40


@dataclass(frozen=True)
class Curve:
    """A curve of one model.

    **Arguments:**

    - `index`: the model's place, which decides its colour.
    - `name`: the model.
    - `x`, `y`: of one length; a `None` in `y` is a gap.
    """

    index: int
    name: str
    x: Sequence[Number]
    y: Sequence[Number | None]


def line_figure(
    curves: Sequence[Curve],
    title: str,
    caption: str,
    x_words: str,
    y_words: str,
    *,
    mark: Number | None = None,
    zero: bool = False,
    x_text: Callable[[Number], str] | None = None,
) -> Figure | None:
    """Curves, the dense model's heaviest.

    **Arguments:**

    - `curves`: the dense model first.
    - `title`: names the picture for those who do not see it.
    - `caption`, `x_words`, `y_words`: words below and beside it.
    - `mark`: a place to mark with a vertical line.
    - `zero`: whether the vertical axis must hold zero.
    - `x_text`: how places are written.

    **Returns:** `None` where there is nothing to draw.
    """
    curves = [one for one in curves if any(value is not None for value in one.y)]
    if not curves:
        return None
    frame = Frame(660, 300)
    known = [value for one in curves for value in one.y if value is not None]
    places = [place for one in curves for place in one.x]
    x = frame.x(min(places), max(places) if max(places) > min(places) else min(places) + 1)
    y = frame.y(*padded(known, zero=zero))
    parts = frame.axes(x, y, x_words, y_words, x_text=x_text)
    if mark is not None:
        parts.append(line(x(mark), frame.top, x(mark), frame.height - frame.bottom, "pointer"))
    # The dense model last, over the others.
    for one in [*curves[1:], curves[0]]:
        points = [(x(a), y(b)) for a, b in zip(one.x, one.y, strict=False) if b is not None]
        parts.append(polyline(points, f"curve {colour(one.index)}"))
        step = 1 if len(points) <= MARKED else len(points) // 12
        parts += [marker(one.index, *point, size=3.0) for point in points[::step]]
    drawn = picture(frame.width, frame.height, title, _described(curves, y_words), parts, "chart wide")
    columns, rows = _table(curves, x_words, x_text)
    key = model_key([(one.index, one.name) for one in curves])
    return Figure(title, caption, [Panel(Markup(drawn))], columns, rows, key, wide=True)


def _described(curves: Sequence[Curve], y_words: str) -> str:
    parts = []
    for one in curves:
        known = [value for value in one.y if value is not None]
        parts.append(f"{one.name}: {number(min(known))} to {number(max(known))}")
    return f"{y_words}. {'; '.join(parts)}. The numbers are in the table below."


def _table(
    curves: Sequence[Curve], x_words: str, x_text: Callable[[Number], str] | None
) -> tuple[list[str], list[list[str]]]:
    """One table where the curves share their places, else the curves one after another."""
    write = x_text or (lambda value: f"{value:.4g}")
    if all(list(one.x) == list(curves[0].x) for one in curves):
        columns = [x_words, *(one.name for one in curves)]
        return columns, [[write(place), *(number(one.y[i]) for one in curves)] for i, place in enumerate(curves[0].x)]
    return ["model", x_words, "value"], [
        [one.name, write(a), number(b)] for one in curves for a, b in zip(one.x, one.y, strict=False)
    ]
