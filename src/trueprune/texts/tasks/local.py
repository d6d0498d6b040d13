"""A task of the user's own: a JSON-lines file with a text, options and the right one in each row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trueprune._support.errors import TextError
from trueprune.texts.rows import read_jsonl
from trueprune.texts.tasks.contract import Task, TaskItem
from trueprune.texts.tasks.embedded import unmarked


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
    asked = rows[0] if "text" not in rows[0] else {}
    template = asked.get("template", "{}")
    if not isinstance(template, str) or template.count("{}") != 1:
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
    for number, row in enumerate(rows[first:], first + 1):
        place = f"{path}, row {number}"
        if missing := [name for name in ("text", "options", "gold") if name not in row]:
            raise TextError(f"{place} lacks {missing[0]!r}", 'Write {"text": ..., "options": [...], "gold": ...}')
        options = row["options"]
        if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
            raise TextError(f"{place}: options are no list of strings", "Mend it")
        text, rationale = unmarked(row["text"]) if row.get("rationale") else (str(row["text"]), None)
        name = str(row.get("id", number))
        try:
            yield TaskItem(
                name, (text,), tuple(options), _gold(row["gold"], options), str(row.get("cluster", "")), rationale
            )
        except TextError as error:
            raise TextError(f"{place}: {error.problem}", error.remedy) from error


def _gold(gold: Any, options: list[str]) -> int:
    if isinstance(gold, str):
        if gold not in options:
            raise TextError(f"the gold {gold!r} is none of the options", f"Use one of {', '.join(options)}")
        return options.index(gold)
    if isinstance(gold, bool) or not isinstance(gold, int) or not 0 <= gold < len(options):
        raise TextError(f"the gold {gold!r} is no index of an option", "Use the option itself, or its index from 0")
    return gold
