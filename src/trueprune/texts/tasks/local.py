"""A task of the user's own: a JSON-lines file with a text, options and the right one in each row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trueprune._support.errors import TextError
from trueprune.texts.rows import read_jsonl
from trueprune.texts.tasks.contract import Task, TaskItem
from trueprune.texts.tasks.embedded import unmarked

NEEDED = {"text", "options", "gold"}
HEADER = ("instruction", "template", "cue")


def local_task(path: Path) -> Task:
    """The task of a JSON-lines file.

    Each row has `text`, `options` (a list) and `gold` (the right option or its index), and may have `id`, `cluster`,
    and square brackets around the decisive words of `text` with `"rationale": true`. A first row of `{"instruction":
    ..., "template": "Review: {}", "cue": "Sentiment:"}` says how it is asked.

    **Arguments:**

    - `path`: the file; its name without `.jsonl` is the task's.

    **Raises:** `TextError` that names the line.
    """
    if not path.is_file():
        raise TextError(f"no task file at {path}", "Check the path")
    rows = list(read_jsonl(path))
    if not rows:
        raise TextError(f"{path} holds no rows", "Give at least one")
    asked = {} if NEEDED & rows[0].keys() else rows[0]
    if wrong := [name for name, value in asked.items() if name not in HEADER or not isinstance(value, str)]:
        raise TextError(f"{path}, row 1: {wrong[0]!r} is no text of {', '.join(HEADER)}", "Mend the first line")
    template = asked.get("template", "{}")
    if template.count("{}") != 1:
        raise TextError(f"the template of {path} must hold {{}} once, for the text", "Mend the first line")
    first = 1 if asked else 0
    lists = [row.get("options") for row in rows[first:]]
    return Task(
        path.stem,
        rows=lambda: _items(path, rows, first),
        template=template,
        cue=asked.get("cue", "Answer:"),
        instruction=asked.get("instruction", ""),
        # Items that all have the same options are a classification by labels.
        labels=all(options == lists[0] for options in lists),
    )


def _items(path: Path, rows: list[dict[str, Any]], first: int) -> Iterator[TaskItem]:
    names: dict[str, int] = {}
    for number, row in enumerate(rows[first:], first + 1):
        place = f"{path}, row {number}"
        if missing := [name for name in ("text", "options", "gold") if name not in row]:
            raise TextError(f"{place} lacks {missing[0]!r}", 'Write {"text": ..., "options": [...], "gold": ...}')
        options = row["options"]
        if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
            raise TextError(f"{place}: options are no list of strings", "Mend it")
        # The space before an option is the prompt's.
        options = [option.strip() for option in options]
        if not isinstance(row["text"], str):
            raise TextError(f"{place}: the text is no string", "Mend it")
        name = str(row.get("id", number))
        if (other := names.setdefault(name, number)) != number:
            raise TextError(f"{place} has the id {name!r} of row {other}", "Give each row an id of its own")
        try:
            text, rationale = unmarked(row["text"]) if row.get("rationale") else (row["text"], None)
            gold = _gold(row["gold"].strip() if isinstance(row["gold"], str) else row["gold"], options)
            item = TaskItem(name, (text,), tuple(options), gold, str(row.get("cluster", "")), rationale)
        except TextError as error:
            raise TextError(f"{place}: {error.problem}", error.remedy) from error
        yield item


def _gold(gold: Any, options: list[str]) -> int:
    if isinstance(gold, str):
        if gold not in options:
            raise TextError(f"the gold {gold!r} is none of the options", f"Use one of {', '.join(options)}")
        return options.index(gold)
    if isinstance(gold, bool) or not isinstance(gold, int) or not 0 <= gold < len(options):
        raise TextError(f"the gold {gold!r} is no index of an option", "Use the option itself, or its index from 0")
    return gold
