"""Tasks by name, and their items by side: those that audits ask and those kept for fitting."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from trueprune._support.errors import TextError
from trueprune.texts.sides import Side, by_hash, one_side, read, refuse_twins
from trueprune.texts.tasks.contract import Task, TaskItem
from trueprune.texts.tasks.local import local_task
from trueprune.texts.tasks.registry import TASKS

# A task of lm-evaluation-harness, by its name there or the path of its YAML file: it brings its own prompts and scores.
HARNESS = "lm-eval:"


def find_task(name: str) -> Task:
    """A task by its name or by the path of a JSON-lines file.

    **Raises:** `TextError` that names the nearest task, or what is wrong with the file; or for a task of lm-eval, which
    has no items of ours.
    """
    if name.startswith(HARNESS):
        raise TextError(f"{name} has prompts and scores of its own", "Only the instrument accuracy measures it")
    if name.endswith(".jsonl"):
        return local_task(Path(name))
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, 1)
        meant = f"Did you mean {near[0]}? " if near else ""
        raise TextError(f"unknown task {name!r}", f"{meant}Use one of {', '.join(TASKS)}, or the path of a .jsonl file")
    return TASKS[name]


def check_tasks(names: Sequence[str]) -> None:
    """Refuse an unknown task, none at all, or two of one name. Whether lm-eval has a task is not looked up here.

    **Raises:** `TextError`.
    """
    if not names:
        raise TextError("there is no task", f"Use one of {', '.join(TASKS)}")
    found = [name if name.startswith(HARNESS) else find_task(name).name for name in names]
    if HARNESS in found:
        raise TextError(f"{HARNESS} is no task", f"Name one, e.g. {HARNESS}hellaswag, or give the path of a YAML file")
    if twice := [name for name in found if found.count(name) > 1]:
        raise TextError(f"the task {twice[0]} is given twice", "Give each once")


def own_tasks(names: Sequence[str]) -> list[str]:
    """The tasks whose items are ours to put, of all that were given."""
    return [name for name in names if not name.startswith(HARNESS)]


def harness_tasks(names: Sequence[str]) -> list[str]:
    """The names and paths of lm-eval's tasks, of all that were given."""
    return [name.removeprefix(HARNESS) for name in names if name.startswith(HARNESS)]


def task_items(task: Task, limit: int = 0, side: Side = "audit") -> list[TaskItem]:
    """Items of one side, in an order fixed by the hash of their clusters.

    The last quarter of that order is for fitting (recalibrations, few-shot examples), unless the task has items of its
    own for that; all before it is for audits. Clusters stay whole.

    **Arguments:**

    - `task`: from `find_task`.
    - `limit`: only the first so many; 0 for all. A smaller limit gives a part of a larger one.
    - `side`: `audit` or `fit`.

    **Raises:** `TextError` if the rows cannot be had, lack a column, or leave a side without an item.
    """
    source = task.fit_rows if side == "fit" and task.fit_rows is not None else task.rows
    items = read(task.name, source, "--tasks facts sentiment commonsense")
    if not items:
        raise TextError(
            f"the rows of {task.name} hold no question with all its options", "Use another task, or other rows"
        )
    refuse_twins(task.name, items, "item")
    ordered = by_hash(items)
    if task.fit_rows is None:
        ordered = one_side(ordered, side)
        if not ordered:
            raise TextError(f"the task {task.name} has too few items to keep some for fitting", "Give more items")
    return ordered[:limit] if limit else ordered
