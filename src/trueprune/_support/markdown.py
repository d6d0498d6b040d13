"""Text from anywhere as Markdown that shows it and does nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence

from trueprune._support.lines import one_line

# An underscore within a word is only that.
_SPECIAL = re.compile(r"([\\`*\[\]|~#$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")
# One letter of an address is written as an entity, so that it becomes no link.
_ADDRESS = re.compile(r"(?i)(?<=[a-z]):(?=//)|(?<=www)\.|@")


def text(text: str) -> str:
    """Text in a paragraph, a heading or the cell of a table."""
    line = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _ADDRESS.sub(lambda found: f"&#{ord(found[0])};", _SPECIAL.sub(r"\\\1", line))


def code_span(text: str) -> str:
    """Text as code within a line."""
    return f"`{one_line(text).replace('`', chr(39)).replace('<!--', '<! --')}`"


def code_block(lines: Sequence[str]) -> list[str]:
    """Lines as a block of code, fenced by more backticks than any of them has."""
    # Comments of HTML mark the sections that we write: none may stand in one.
    found = [one_line(line).replace("<!--", "<! --") for line in lines]
    longest = max(len(run) for run in re.findall("`*", "\n".join(found)))
    fence = "`" * max(3, longest + 1)
    return [fence, *found, fence]
