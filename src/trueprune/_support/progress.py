"""One progress bar for all long work, silent where nobody looks."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")
_active: ContextVar[Progress | None] = ContextVar("trueprune_progress", default=None)


@contextmanager
def show_progress(enabled: bool | None = None) -> Iterator[None]:
    """Show bars on standard error inside this context; by default only on a terminal. Library use stays silent."""
    enabled = sys.stderr.isatty() if enabled is None else enabled
    if not enabled:
        yield
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        token = _active.set(progress)
        try:
            yield
        finally:
            _active.reset(token)


def track(items: Iterable[T], description: str | None, total: int | None = None) -> Iterator[T]:
    """Iterate with a bar if `show_progress` is active, plainly otherwise or without a description."""
    progress = _active.get()
    if progress is None or description is None:
        yield from items
        return
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    task = progress.add_task(description, total=total)
    try:
        for item in items:
            yield item
            progress.advance(task)
    finally:
        progress.remove_task(task)
