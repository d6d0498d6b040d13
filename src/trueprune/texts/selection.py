"""Which statements choose the sparsities and which test lie detection: disjoint by group unless asked otherwise."""

from __future__ import annotations

import hashlib
from typing import Literal

from trueprune._support.errors import TextError
from trueprune.texts.statements import StatementSet

Selection = Literal["leak-free", "paper"]
Side = Literal["choose", "audit"]
CHOOSING_SHARE = 0.3
PAPER_TOPICS = {"cities", "sp_en_trans", "translations"}


def select(statements: StatementSet, side: Side, selection: Selection = "leak-free") -> StatementSet:
    """One side of the statements.

    `"leak-free"`: a group belongs to the choosing side if the hash of its name falls into the lowest 30 %, so that the
    sides are the same on every machine and for every subset; a statement of facts from both sides is on neither.
    `"paper"`: as in arXiv 2509.00096, all statements are audited, and those about cities and Spanish words also choose.

    **Arguments:**

    - `statements`: a collection.
    - `side`: `"choose"` (English, affirmative and negated only) or `"audit"`.
    - `selection`: see above.

    **Raises:** `TextError` if a side holds fewer than two statements of a label.
    """
    if selection == "leak-free":
        chosen = statements.where(lambda row: _side(row.group) == side)
    elif selection == "paper":
        chosen = statements if side == "audit" else statements.where(lambda row: row.topic in PAPER_TOPICS)
    else:
        raise TextError(f"unknown selection {selection!r}", "Use leak-free or paper")
    if side == "choose":
        chosen = chosen.where(lambda row: row.is_probing)
    labels = chosen.labels
    if min((labels == 0).sum(), (labels == 1).sum()) < 2:
        raise TextError(
            f"the side '{side}' of the statements {statements.name} holds {len(chosen)} rows, too few of a label",
            "Give more statements, or --selection paper to use all of them on both sides",
        )
    return chosen


def _side(group: str) -> Side | None:
    sides: set[Side] = {_side_of_fact(part) for part in group.split("|")}
    return sides.pop() if len(sides) == 1 else None


def _side_of_fact(group: str) -> Side:
    number = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") / 2**64
    return "choose" if number < CHOOSING_SHARE else "audit"
