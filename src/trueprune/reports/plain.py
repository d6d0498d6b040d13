"""Anything that a measurement brings along as data that JSON can hold, whole and the same on every machine."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

_LONE_SURROGATES = re.compile(r"[\ud800-\udfff]")


def plain(value: Any) -> Any:
    """Dicts, lists, strings, finite numbers, booleans and `None`.

    Numbers that are not finite become `None`, which JSON has no other word for. Half characters (lone surrogates),
    which UTF-8 cannot hold, become U+FFFD. A function becomes its name and anything unknown the name of its type,
    never its address in memory.

    **Arguments:**

    - `value`: anything.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _LONE_SURROGATES.sub("\ufffd", str(value))
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {_key(key): plain(one) for key, one in value.items()}
    if isinstance(value, Set):
        return plain(sorted(value, key=str))
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [plain(one) for one in value]
    if isinstance(value, Path):
        return plain(str(value))
    return _name(value)


def _key(key: Any) -> str:
    found = plain(key)
    return found if isinstance(found, str) else str(found)


def _name(value: Any) -> str:
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}:{named.__qualname__}"


def thinned(curve: Mapping[str, Sequence[Any]], points: int) -> dict[str, list[Any]]:
    """A curve of parallel lists with at most so many points, evenly spread, its ends among them.

    **Arguments:**

    - `curve`: lists of one length.
    - `points`: at least two.
    """
    length = min((len(values) for values in curve.values()), default=0)
    if length <= points:
        return {name: list(values) for name, values in curve.items()}
    kept = np.unique(np.linspace(0, length - 1, points).round().astype(int)).tolist()
    return {name: [values[i] for i in kept] for name, values in curve.items()}
