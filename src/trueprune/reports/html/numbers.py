"""How numbers are written on the page: units, signs, intervals."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

MINUS, DASH = "\u2212", "\u2013"
# What stands between a number and its unit.
THIN = "\u202f"
_STEPS = {"count": ("", "k", "M", "B", "T", "P"), "bytes": ("", "k", "M", "G", "T", "P")}


def is_number(value: Any) -> bool:
    """Whether it is a finite number; a document may hold `null`, and one from elsewhere anything."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


def number(value: Any, unit: str = "share") -> str:
    """A number in its unit, with as many digits as are worth reading.

    **Arguments:**

    - `value`: a number; anything else is written as a dash.
    - `unit`: as in the document.
    """
    if not is_number(value):
        return DASH
    size = abs(float(value))
    if unit in _STEPS:
        written = _stepped(size, unit)
    elif unit == "factor":
        written = f"{size:.2f}{THIN}×"
    elif unit == "perplexity" or (unit in ("speed", "score") and size >= 10):
        written = f"{size:,.1f}" if size < 1e6 else f"{size:.3g}"
    else:
        written = f"{size:.3f}" if size < 1e4 else f"{size:.3g}"
    # What rounds to zero has no sign.
    return f"{MINUS}{written}" if value < 0 and any(digit in written for digit in "123456789") else written


def signed(value: Any, unit: str = "share") -> str:
    """The same with a plus where it is positive; a change of a factor is a number of its own."""
    unit = "share" if unit == "factor" else unit
    written = number(value, unit)
    return f"+{written}" if is_number(value) and value > 0 else written


def bound(value: Any, unit: str = "share", *, change: bool = False) -> str:
    """A bound as it was set: with all its digits where a unit would round them away, so that 1.005 is not `1.00`.

    **Arguments:**

    - `value`: a number.
    - `unit`: as in the document.
    - `change`: whether it is of a change, written with a sign.
    """
    write = signed if change else number
    written = write(value, unit)
    if not is_number(value) or unit in _STEPS or "e" in written:
        return written
    digits = written.removesuffix(f"{THIN}×").partition(".")[2]
    size = abs(float(value))
    if round(size, len(digits)) == size:
        return written
    sign = MINUS if value < 0 else "+" if change else ""
    return f"{sign}{size:.10g}{f'{THIN}×' if unit == 'factor' else ''}"


def interval(bounds: Sequence[Any] | None, unit: str = "share", *, change: bool = False) -> str:
    """`0.61 to 0.68`; empty where a bound is unknown.

    **Arguments:**

    - `bounds`: lower and upper.
    - `unit`: as in the document.
    - `change`: whether the bounds are of a change, written with signs.
    """
    if not bounds or len(bounds) != 2 or not all(map(is_number, bounds)):
        return ""
    write = signed if change else number
    return f"{write(bounds[0], unit)} to {write(bounds[1], unit)}"


def percent(value: Any, digits: int = 0) -> str:
    """`63 %`."""
    return f"{100 * value:.{digits}f}{THIN}%" if is_number(value) else DASH


def p_value(value: Any) -> str:
    """`0.034` or `< 0.001`."""
    if not is_number(value):
        return DASH
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def seconds(value: Any) -> str:
    """`41.8 s`, `12.3 min` or `3.1 h`."""
    if not is_number(value):
        return DASH
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min")):
        if value < limit:
            return f"{value / size:.1f}{THIN}{unit}"
    return f"{value / 3600:.1f}{THIN}h"


def _stepped(size: float, unit: str) -> str:
    steps = _STEPS[unit]
    step = 0
    # 999.95 would be written 1000.0.
    while size >= 999.95 and step < len(steps) - 1:
        size, step = size / 1000, step + 1
    written = f"{size:.1f}" if step else f"{size:.4g}"
    end = f"{steps[step]}B" if unit == "bytes" else steps[step]
    return f"{written}{THIN}{end}" if end else written
