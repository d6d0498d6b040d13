"""Which results nothing beats in both size and trust: a pure function on pairs of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite


@dataclass(frozen=True)
class Point:
    """A model as two numbers, both the greater the better.

    **Arguments:**

    - `name`: what it is.
    - `x`: of size or speed.
    - `y`: of trust.
    """

    name: str
    x: float
    y: float


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The points that no other one dominates, from the smallest `x` to the greatest.

    A point dominates another if it is at least as good in both numbers and better in one. Points that are equal in both
    do not dominate each other. The front is that of the values as they were measured: intervals are not looked at.

    **Arguments:**

    - `points`: in any order; one with a number that is not finite is left out.
    """
    front: list[Point] = []
    best = -float("inf")
    finite = [point for point in points if isfinite(point.x) and isfinite(point.y)]
    for point in sorted(finite, key=lambda p: (-p.x, -p.y)):
        same = bool(front) and (front[-1].x, front[-1].y) == (point.x, point.y)
        if point.y > best or same:
            front.append(point)
            best = point.y
    return front[::-1]
