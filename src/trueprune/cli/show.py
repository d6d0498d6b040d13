"""How commands speak: tables on standard output, notes on standard error."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.text import Text

if TYPE_CHECKING:
    from trueprune.reports.gates import Verdict

EXIT_FAILED = 1
current_command: ContextVar[str] = ContextVar("trueprune_command", default="trueprune")


def show(*parts: RenderableType) -> None:
    """Print to standard output; wide where nobody's terminal sets a width, so that tables in logs do not wrap."""
    # No markup: names of models and folders may hold brackets.
    console = Console(width=None if os.isatty(1) else 160, markup=False)
    for part in parts:
        console.print(part)


def show_verdict(verdict: Verdict | None) -> int:
    """Print what a gate says, if there is one; the exit code that says it to a pipeline."""
    if verdict is None:
        return 0
    from trueprune.reports.gates import sentence, verdict_table

    show(verdict_table(verdict), Text(sentence(verdict)))
    return 0 if verdict.passed() else EXIT_FAILED


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Our own warnings as one line each; other libraries' are not for the user of a command line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", category=UserWarning, module=r"trueprune\..*")
        warnings.showwarning = _show_warning
        yield


def _show_warning(message: Warning | str, *_args: object, **_kwargs: object) -> None:
    Console(stderr=True, soft_wrap=True, markup=False).print(f"note: {message}")
