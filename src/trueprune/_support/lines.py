"""Names from anywhere, made safe to print: of a model, of a gate, of a file of tasks."""

from __future__ import annotations

import re

# What has no shape on a page, or changes it: control characters, halves of characters, what is no character, and marks
# that turn the direction of what follows.
_SHAPELESS = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def one_line(text: str) -> str:
    """The text on one line, with U+FFFD for what has no shape (a terminal would obey it, and XML cannot hold it)."""
    return " ".join(_SHAPELESS.sub("\ufffd", re.sub(r"[\t\n\r\f\v\x85]+", " ", text)).split())


def whole_text(text: str) -> str:
    """The text with U+FFFD for halves of characters (lone surrogates), which UTF-8 cannot hold."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)
