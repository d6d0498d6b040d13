"""Question sets by name, and their questions by side: those that audits ask and those kept for fitting."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from trueprune._support.errors import TextError
from trueprune.texts.qa.contract import Question, QuestionSet
from trueprune.texts.qa.local import local_set
from trueprune.texts.qa.registry import QUESTION_SETS
from trueprune.texts.sides import Side, by_hash, one_side, read, refuse_twins


def find_set(name: str) -> QuestionSet:
    """A question set by its name or by the path of a JSON-lines file.

    **Raises:** `TextError` that names the nearest set, or what is wrong with the file.
    """
    if name.endswith(".jsonl"):
        return local_set(Path(name))
    if name not in QUESTION_SETS:
        near = difflib.get_close_matches(name, QUESTION_SETS, 1)
        meant = f"Did you mean {near[0]}? " if near else ""
        known = ", ".join(QUESTION_SETS)
        raise TextError(f"unknown question set {name!r}", f"{meant}Use one of {known}, or the path of a .jsonl file")
    return QUESTION_SETS[name]


def check_sets(names: Sequence[str]) -> None:
    """Refuse an unknown question set, none at all, or two of one name.

    **Raises:** `TextError`.
    """
    if not names:
        raise TextError("there is no question set", f"Use one of {', '.join(QUESTION_SETS)}")
    found = [find_set(name).name for name in names]
    if twice := [name for name in found if found.count(name) > 1]:
        raise TextError(f"the question set {twice[0]} is given twice", "Give each once")


def set_questions(found: QuestionSet, limit: int = 0, side: Side = "audit") -> list[Question]:
    """Questions of one side, in an order fixed by the hash of their clusters.

    The last quarter of that order is for fitting and training, unless the set has questions of its own for that; all
    before it is for audits. Clusters stay whole.

    **Arguments:**

    - `found`: from `find_set`.
    - `limit`: only the first so many; 0 for all. A smaller limit gives a part of a larger one.
    - `side`: `audit` or `fit`.

    **Raises:** `TextError` if the rows cannot be had, lack a column, or leave a side without a question.
    """
    source = found.fit_rows if side == "fit" and found.fit_rows is not None else found.rows
    questions = read(found.name, source, "--qa general misconceptions")
    if not questions:
        raise TextError(f"the rows of {found.name} hold no question with an answer", "Use another set, or other rows")
    refuse_twins(found.name, questions, "question")
    ordered = by_hash(questions)
    if found.fit_rows is None:
        ordered = one_side(ordered, side)
        if not ordered:
            raise TextError(
                f"the question set {found.name} has too few questions to keep some for fitting", "Give more questions"
            )
    return ordered[:limit] if limit else ordered
