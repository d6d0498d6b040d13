"""Write the reference from what the program says of itself, so that nothing is said twice.

Two markers stand in pages of docs/reference: `<!-- commands -->` becomes the help of every command, `<!-- names of
ROOM... -->` the docstring of every public name of these rooms.
"""

from __future__ import annotations

import importlib
import inspect
import re
from types import SimpleNamespace

COMMANDS = "<!-- commands -->"
NAMES = re.compile(r"<!-- names of ([\w. ]+) -->")


def on_page_markdown(markdown: str, page: SimpleNamespace, **_: object) -> str:
    """Called by mkdocs for every page before it is rendered."""
    if COMMANDS in markdown:
        markdown = markdown.replace(COMMANDS, commands())
    return NAMES.sub(lambda marker: names(marker[1].split()), markdown)


def commands() -> str:
    """The help of every command, as the command line prints it, in its order."""
    from trueprune.cli.main import app

    text = app.generate_docs(output_format="markdown", recursive=True, heading_level=1)
    sections = re.split(r"^(?=## trueprune )", text, flags=re.M)[1:]
    return "\n".join(_as_prose(section) for section in sections)


def _as_prose(section: str) -> str:
    """Lists of subcommands repeat what the headings say; what looks like HTML in a help is text."""
    section = re.sub(r"^\*\*Commands\*\*:\n\n(?:\* .*\n)+", "", section, flags=re.M)
    section = re.sub(r"^\*\*([\w -]+)\*\*:$", r"*\1*", section, flags=re.M)
    section = re.sub(r"^\* `([^`]+)`:", lambda found: f"- {_flags(found[1])}:", section, flags=re.M)
    lines = section.split("\n")
    return "\n".join(line.replace("<", "&lt;") if line.startswith("- ") else line for line in lines)


def _flags(spelled: str) -> str:
    return " ".join(f"`{part}`" for part in spelled.split(", "))


def names(rooms: list[str]) -> str:
    """A block of mkdocstrings for every public name of these rooms, functions first, at the place of its definition.

    Rooms inside a room count as the room. What the package itself does not name is taken from the room's own names.
    """
    import trueprune

    named = [name for name, home in trueprune._ROOM_OF.items() if any(f"{home}.".startswith(f"{r}.") for r in rooms)]
    things = [getattr(trueprune, name) for name in named]
    for module in [importlib.import_module(f"trueprune.{room}") for room in rooms] if not named else []:
        things += [getattr(module, name) for name in module.__all__ if hasattr(getattr(module, name), "__qualname__")]
    things.sort(key=inspect.isclass)
    return "\n\n".join(f"::: {thing.__module__}.{thing.__qualname__}" for thing in things)
