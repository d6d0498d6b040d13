"""Questions that ship inside the package: facts with short answers, and misconceptions with sentences."""

from __future__ import annotations

from collections.abc import Iterator

from trueprune.texts.qa.contract import Question
from trueprune.texts.rows import embedded_file, read_csv


def general() -> Iterator[Question]:
    """General knowledge: a name, number or thing, with its other names, and wrong answers of the same kind."""
    for number, row in enumerate(read_csv(embedded_file("general.csv"), ("question", "answers", "wrong"))):
        yield Question(str(number), row["question"].strip(), _listed(row["answers"]), _listed(row["wrong"]))


def misconceptions() -> Iterator[Question]:
    """What many people get wrong, in the manner of TruthfulQA: sentences, the best and the most tempting first."""
    for number, row in enumerate(read_csv(embedded_file("misconceptions.csv"), ("question", "right", "wrong"))):
        right, wrong = _listed(row["right"]), _listed(row["wrong"])
        yield Question(str(number), row["question"].strip(), right, wrong, best_wrong=wrong[0])


def _listed(cell: str) -> tuple[str, ...]:
    return tuple(answer.strip() for answer in cell.split("|"))
