"""Strings from models and data files made fit to be shown: nothing in them acts, nothing in them hides."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

# Control characters but tab and line feed, half characters, and code points that are none.
_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
# What turns the direction of the text around it. Letters written from right to left need none of these.
_TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """The text with control characters as their pictures and characters that turn directions by name.

    HTML cannot hold the former, and the latter could make a report read other than it is written. Escaping is not done
    here but where a template puts the text.

    **Arguments:**

    - `text`: anything.
    """
    return _TURNING.sub(lambda found: f"[U+{ord(found[0]):04X}]", _UNFIT.sub(_picture, text))


def _picture(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else "\ufffd"


def cleaned(value: Any) -> Any:
    """Plain data with every string in it `clean`, keys included.

    **Arguments:**

    - `value`: dicts, lists, strings, numbers.
    """
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {clean(str(key)): cleaned(one) for key, one in value.items()}
    if isinstance(value, Sequence):
        return [cleaned(one) for one in value]
    return value
