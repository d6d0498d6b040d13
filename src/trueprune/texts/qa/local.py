"""Questions of the user's own: a JSON-lines file with a question and its answers in each row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trueprune._support.errors import TextError
from trueprune.texts.qa.contract import Question, QuestionSet
from trueprune.texts.rows import read_jsonl

RIGHT = ("right", "answer", "answers")
WRITE = 'Write {"question": "...", "right": ["..."]} on each line'


def local_set(path: Path) -> QuestionSet:
    """The questions of a JSON-lines file.

    Each row has `question` and `right` (or `answer`, `answers`): a string, or a list of strings, the best first. It may
    have `wrong` (the most tempting first), `id` and `cluster`. A first row `{"sentences": true}` says that the answers
    are sentences.

    **Arguments:**

    - `path`: the file; its name without `.jsonl` is the set's.

    **Raises:** `TextError` that names the row.
    """
    if not path.is_file():
        raise TextError(f"no question file at {path}", "Check the path")
    rows = list(read_jsonl(path))
    header = rows[0] if rows and rows[0].keys() == {"sentences"} else {}
    first = 1 if header else 0
    if len(rows) == first:
        raise TextError(f"{path} holds no question", WRITE)
    sentences = header.get("sentences", False)
    if not isinstance(sentences, bool):
        raise TextError(f"{path}, row 1: sentences is {sentences!r}", "Write true or false")
    # Read at once: what is wrong with a file is said before a model is loaded.
    questions = list(_questions(path, rows, first))
    return QuestionSet(path.stem, lambda: iter(questions), sentences)


def _questions(path: Path, rows: list[dict[str, Any]], first: int) -> Iterator[Question]:
    names: dict[str, int] = {}
    for number, row in enumerate(rows[first:], first + 1):
        place = f"{path}, row {number}"
        if not isinstance(row.get("question"), str):
            raise TextError(f"{place}: the question is missing or no string", WRITE)
        given = [name for name in RIGHT if name in row]
        if not given:
            raise TextError(f"{place} has no answer", WRITE)
        if len(given) > 1:
            raise TextError(f"{place} has both {given[0]!r} and {given[1]!r}", "Keep one of them")
        right, wrong = (_strings(place, row, name) for name in (given[0], "wrong"))
        name = str(number if row.get("id") is None else row["id"])
        cluster = "" if row.get("cluster") is None else str(row["cluster"])
        if (other := names.setdefault(name, number)) != number:
            raise TextError(f"{place} has the id {name!r} of row {other}", "Give each row an id of its own")
        try:
            question = Question(name, row["question"].strip(), right, wrong, cluster=cluster)
        except TextError as error:
            raise TextError(f"{place}: {error.problem}", error.remedy) from error
        yield question


def _strings(place: str, row: dict[str, Any], name: str) -> tuple[str, ...]:
    given = row.get(name)
    answers = [given] if isinstance(given, str) else [] if given is None else given
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise TextError(f"{place}: {name} is neither a string nor a list of strings", "Put each answer in quotes")
    return tuple(answer.strip() for answer in answers)
