"""Changing a README.md between marks and in its front matter, with all else left as its owner wrote it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.utils import yaml_dump

from trueprune._support.errors import AuditError

README = "README.md"
BEGIN = "<!-- trueprune: effect of pruning, written by an audit; what stands here is replaced by the next -->"
END = "<!-- trueprune: end of the effect of pruning -->"
_BOM = "\ufeff"


@dataclass(frozen=True)
class Readme:
    """A README.md taken apart.

    **Arguments:**

    - `metadata`: its front matter as data; empty without one.
    - `yaml`: its front matter as written; `None` without one.
    - `body`: what follows.
    - `newline`: how its lines end.
    - `bom`: whether it begins with a byte order mark.
    """

    metadata: Mapping[str, Any]
    yaml: str | None
    body: str
    newline: str = "\n"
    bom: bool = False


def read_readme(file: Path) -> Readme:
    """Take a README.md apart as the hub does.

    **Raises:** `AuditError` if its front matter is no YAML mapping, or it is no text.
    """
    try:
        text = file.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise AuditError(f"{file} is not UTF-8 text ({error})", "Save it as UTF-8, or move it away") from error
    return parse_readme(text, file)


def parse_readme(text: str, file: Path) -> Readme:
    """`read_readme` of a text.

    **Arguments:**

    - `text`: the content.
    - `file`: where it is or will be, for the error.
    """
    bom = text.startswith(_BOM)
    # Lines as Python sees them, and at the end as they were.
    newline = "\r\n" if "\r\n" in text else "\n"
    text = text.removeprefix(_BOM).replace("\r\n", "\n")
    block = REGEX_YAML_BLOCK.search(text)
    if block is None:
        return Readme({}, None, text, newline, bom)
    try:
        found = yaml.safe_load(block[2])
    # A date that is none is a ValueError, a key that is a list a TypeError.
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise AuditError(f"the front matter of {file} is no YAML ({said})", "Mend it, or remove it") from error
    found = {} if found is None else found
    if not isinstance(found, dict):
        raise AuditError(
            f"the front matter of {file} is no YAML mapping but {type(found).__name__}",
            "Begin the file with --- and lines of key: value, or with text",
        )
    return Readme(found, block[2], text[block.end() :], newline, bom)


def with_metadata(readme: Readme, changes: Mapping[str, Any]) -> str:
    """The front matter with some keys changed; the lines of all other keys stay as they are, comments included.

    **Arguments:**

    - `readme`: the file.
    - `changes`: values by key; `None` removes a key.
    """
    wanted = {**readme.metadata, **changes}
    wanted = {key: value for key, value in wanted.items() if value is not None or key not in changes}
    added = {key: value for key, value in changes.items() if value is not None}
    written = _dump(added) if added else ""
    if readme.yaml is None or not readme.metadata:
        return written
    text = "\n".join(part for part in (_without(readme.yaml, set(changes)).rstrip("\n"), written.rstrip("\n")) if part)
    try:
        if yaml.safe_load(text) == wanted:
            return text + "\n"
    except yaml.YAMLError:
        pass
    # Written in braces, or with anchors in what goes: all of it is written anew.
    return _dump(wanted)


def _dump(data: Mapping[str, Any]) -> str:
    return yaml_dump(dict(data), sort_keys=False)


def _without(text: str, keys: set[str]) -> str:
    """YAML text without some of its top-level keys."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(node, yaml.MappingNode) or node.flow_style:
        return text
    lines = text.split("\n")
    gone: set[int] = set()
    for key, value in node.value:
        if key.value in keys:
            gone |= set(range(key.start_mark.line, _last_line(key, value) + 1))
    return "\n".join(line for number, line in enumerate(lines) if number not in gone)


def _last_line(key: yaml.Node, value: yaml.Node) -> int:
    """The last line of a value; a block says that it ends where the next begins, comments included."""
    if isinstance(value, yaml.CollectionNode) and not value.flow_style and value.value:
        last = value.value[-1]
        pair = last if isinstance(last, tuple) else (last, last)
        return _last_line(*pair)
    end = value.end_mark
    line = end.line - 1 if end.column == 0 and end.line > value.start_mark.line else end.line
    return max(line, key.start_mark.line)


def with_section(body: str, section: str) -> str:
    """The text with our section between its marks: replaced where it is, else put at the end.

    **Raises:** `AuditError` if the marks that are there are no pair.
    """
    begin, end = body.count(BEGIN), body.count(END)
    framed = f"{BEGIN}\n{section.strip()}\n{END}"
    if not begin and not end:
        return f"{body.rstrip()}\n\n{framed}\n" if body.strip() else f"\n{framed}\n"
    if (begin, end) != (1, 1) or body.index(BEGIN) > body.index(END):
        raise AuditError(
            f"the marks of trueprune's section are no pair: {begin} begin it, {end} end it",
            "Remove the lines that begin with <!-- trueprune:",
        )
    return body[: body.index(BEGIN)] + framed + body[body.index(END) + len(END) :]


def written(readme: Readme, front: str, body: str) -> bytes:
    """The file, with its own line ends.

    **Arguments:**

    - `readme`: what it was.
    - `front`: the front matter; none if it is empty.
    - `body`: the text.
    """
    head = f"---\n{front.rstrip()}\n---\n" if front.strip() else ""
    text = re.sub("\r?\n", readme.newline, head + body)
    return ((_BOM if readme.bom else "") + text).encode("utf-8", "replace")
