"""How commands speak: tables on standard output, notes on standard error."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console, RenderableType

current_command: ContextVar[str] = ContextVar("trueprune_command", default="trueprune")


def show(*parts: RenderableType) -> None:
    """Print to standard output; wide where nobody's terminal sets a width, so that tables in logs do not wrap."""
    # No markup: names of models and folders may hold brackets.
    console = Console(width=None if os.isatty(1) else 160, markup=False)
    for part in parts:
        console.print(part)


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
