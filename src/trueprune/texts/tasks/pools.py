"""Which items of a task are audited and which are kept for fitting: always the same, and never both."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from trueprune._support.errors import TextError
from trueprune.texts.tasks.contract import Task, TaskItem
from trueprune.texts.tasks.local import local_task
from trueprune.texts.tasks.registry import TASKS

Side = Literal["audit", "fit"]
FIT_SHARE = 0.25


def find_task(name: str) -> Task:
    """A task by its name or by the path of a JSON-lines file.

    **Raises:** `TextError` that names the nearest task, or what is wrong with the file.
    """
    if name.endswith(".jsonl"):
        return local_task(Path(name))
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, 1)
        meant = f"Did you mean {near[0]}? " if near else ""
        raise TextError(f"unknown task {name!r}", f"{meant}Use one of {', '.join(TASKS)}, or the path of a .jsonl file")
    return TASKS[name]


def check_tasks(names: Sequence[str]) -> None:
    """Refuse an unknown task, none at all, or two of one name.

    **Raises:** `TextError`.
    """
    if not names:
        raise TextError("there is no task", f"Use one of {', '.join(TASKS)}")
    found = [find_task(name).name for name in names]
    if twice := [name for name in found if found.count(name) > 1]:
        raise TextError(f"the task {twice[0]} is given twice", "Give each once")


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
    try:
        source = task.fit_rows if side == "fit" and task.fit_rows is not None else task.rows
        items = list(source())
    except TextError as error:
        if "no rows of" in error.problem or "the hub gave no rows" in error.problem:
            remedy = "Set TRUEPRUNE_DATA, pip install 'trueprune[hub]', or use --tasks facts sentiment commonsense"
            raise TextError(error.problem, remedy) from error
        raise
    except KeyError as error:
        raise TextError(
            f"the rows of {task.name} lack the column {error}", "Give rows with the hub's columns"
        ) from error
    except (AttributeError, TypeError, ValueError) as error:
        raise TextError(
            f"the rows of {task.name} cannot be read ({error})", "Give rows with the hub's columns and types"
        ) from error
    if not items:
        raise TextError(
            f"the rows of {task.name} hold no question with all its options", "Use another task, or other rows"
        )
    _refuse_twins(task, items)
    ordered = sorted(items, key=_order)
    if task.fit_rows is None:
        start = _first_to_fit(ordered)
        audited = {item.sha256 for item in ordered[:start]}
        # A row that occurs twice under two names is not on both sides either.
        unseen = [item for item in ordered[start:] if item.sha256 not in audited]
        ordered = unseen if side == "fit" else ordered[:start]
        if not ordered:
            raise TextError(f"the task {task.name} has too few items to keep some for fitting", "Give more items")
    return ordered[:limit] if limit else ordered


def _refuse_twins(task: Task, items: Sequence[TaskItem]) -> None:
    names = [item.id for item in items]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise TextError(f"two items of {task.name} have the id {twice!r}", "Give each item an id of its own")


def _order(item: TaskItem) -> tuple[bytes, str, bytes, str]:
    cluster = item.cluster or item.id
    return (hashlib.sha256(cluster.encode()).digest(), cluster, hashlib.sha256(item.id.encode()).digest(), item.id)


def _first_to_fit(ordered: Sequence[TaskItem]) -> int:
    """Where the last quarter begins, moved back to the front of a cluster. Without room for both, all are audited."""
    start = len(ordered) - int(FIT_SHARE * len(ordered))
    while 0 < start < len(ordered) and _cluster(ordered[start]) == _cluster(ordered[start - 1]):
        start -= 1
    return start or len(ordered)


def _cluster(item: TaskItem) -> str:
    return item.cluster or item.id
