"""A figure: pictures with a caption, a key, and the same numbers as a table for those who do not see the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from trueprune.reports.html import svg


@dataclass(frozen=True)
class Panel:
    """One picture of a figure.

    **Arguments:**

    - `svg`: the picture.
    - `name`: what it is of, written above it; may be empty.
    """

    svg: Markup
    name: str = ""


@dataclass(frozen=True)
class KeyEntry:
    """What a line or mark stands for: its `name` and its picture `mark`."""

    name: str
    mark: Markup


@dataclass(frozen=True)
class Figure:
    """Pictures and their words.

    **Arguments:**

    - `title`: what they are of.
    - `caption`: what they show and how to read them.
    - `panels`: one or more.
    - `columns`, `rows`: the same numbers as a table; the first column names its row.
    - `key`: what colours and marks stand for.
    - `wide`: whether a panel takes the whole width.
    """

    title: str
    caption: str
    panels: Sequence[Panel]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    key: Sequence[KeyEntry] = field(default=())
    wide: bool = False


def model_key(names: Sequence[tuple[int, str]], *, lines: bool = True) -> list[KeyEntry]:
    """The key of models by their place in the document.

    **Arguments:**

    - `names`: place and name.
    - `lines`: whether a line goes with the mark.
    """
    found = []
    for index, name in names:
        stroke = svg.line(0, 7, 26, 7, f"curve {svg.colour(index)}") if lines else Markup("")
        mark = Markup("").join([stroke, svg.marker(index, 13.0, 7.0, size=3.6)])
        sample = svg.tag("svg", mark, viewBox="0 0 26 14", width="26", height="14", aria_hidden="true", class_="sample")
        found.append(KeyEntry(name, sample))
    return found
