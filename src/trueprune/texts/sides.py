"""Which rows are audited and which are kept for fitting: always the same, and never both."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, Protocol, TypeVar, runtime_checkable

from trueprune._support.errors import TextError

Side = Literal["audit", "fit"]
FIT_SHARE = 0.25


@runtime_checkable
class Row(Protocol):
    """What can be put on a side: named, tied to a cluster, known by its content."""

    @property
    def id(self) -> str:
        """Unique within its source."""
        ...

    @property
    def cluster(self) -> str:
        """Rows of one cluster stay together; the `id` where it is empty."""
        ...

    @property
    def sha256(self) -> str:
        """Hash of the content, whatever the row is called."""
        ...


R = TypeVar("R", bound=Row)


def read(name: str, rows: Callable[[], Iterable[R]], instead: str) -> list[R]:
    """All rows of a source.

    **Arguments:**

    - `name`: of the source, for the errors.
    - `rows`: gives them.
    - `instead`: the flag and names that need no download, for the remedy.

    **Raises:** `TextError` if the rows cannot be had or lack a column.
    """
    try:
        return list(rows())
    except TextError as error:
        if "no rows of" in error.problem or "the hub gave no rows" in error.problem:
            remedy = f"Set TRUEPRUNE_DATA, pip install 'trueprune[hub]', or use {instead}"
            raise TextError(error.problem, remedy) from error
        raise
    except KeyError as error:
        raise TextError(f"the rows of {name} lack the column {error}", "Give rows with the hub's columns") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise TextError(
            f"the rows of {name} cannot be read ({error})", "Give rows with the hub's columns and types"
        ) from error


def refuse_twins(name: str, rows: Sequence[Row], noun: str) -> None:
    """Refuse two rows of one id.

    **Arguments:**

    - `name`: of the source.
    - `rows`: all of its rows.
    - `noun`: what a row is called: `item`, `question`.

    **Raises:** `TextError`.
    """
    names = [row.id for row in rows]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise TextError(f"two {noun}s of {name} have the id {twice!r}", f"Give each {noun} an id of its own")


def by_hash(rows: Iterable[R]) -> list[R]:
    """Rows in an order fixed by the hash of their clusters, whatever order they came in."""
    return sorted(rows, key=_order)


def one_side(ordered: Sequence[R], side: Side) -> list[R]:
    """The last quarter is for fitting, all before it for audits; clusters stay whole, equal rows on one side.

    Without room for both sides all are audited.

    **Arguments:**

    - `ordered`: from `by_hash`.
    - `side`: `audit` or `fit`.

    **Returns:** the rows of the side; empty if there are too few to keep some for fitting.
    """
    start = _first_to_fit(ordered)
    if side == "audit":
        return list(ordered[:start])
    audited = {row.sha256 for row in ordered[:start]}
    # A row that occurs twice under two names is not on both sides either.
    return [row for row in ordered[start:] if row.sha256 not in audited]


def _order(row: Row) -> tuple[bytes, str, bytes, str]:
    cluster = _cluster(row)
    return (hashlib.sha256(cluster.encode()).digest(), cluster, hashlib.sha256(row.id.encode()).digest(), row.id)


def _first_to_fit(ordered: Sequence[Row]) -> int:
    """Where the last quarter begins, moved back to the front of a cluster; the end if that leaves nothing before it."""
    start = len(ordered) - int(FIT_SHARE * len(ordered))
    while 0 < start < len(ordered) and _cluster(ordered[start]) == _cluster(ordered[start - 1]):
        start -= 1
    return start or len(ordered)


def _cluster(row: Row) -> str:
    return row.cluster or row.id
