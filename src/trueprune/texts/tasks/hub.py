"""Tasks whose rows come from the hub or its local mirror, by the hub's columns."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from trueprune._support.errors import TextError
from trueprune.texts.rows import hub_rows
from trueprune.texts.tasks.contract import TaskItem, words_of

Rows = Callable[[], Iterator[TaskItem]]


def labelled(
    dataset: str, config: str, split: str, columns: Sequence[str], names: Sequence[str], label: str = "label"
) -> Rows:
    """Rows with a label that is the index of a verbaliser (or a truth value).

    **Arguments:**

    - `dataset`, `config`, `split`: as for `hub_rows`.
    - `columns`: of the task text.
    - `names`: the verbalisers.
    - `label`: the column of the label.
    """

    def rows() -> Iterator[TaskItem]:
        for number, row in enumerate(hub_rows(dataset, config, split)):
            # Rows of hidden test splits have the label -1.
            if (gold := int(row[label])) >= 0:
                yield TaskItem(str(number), tuple(row[column].strip() for column in columns), tuple(names), gold)

    return rows


def multiple_choice(dataset: str, config: str, split: str, column: str = "question") -> Rows:
    """Rows with `choices` (`text` and `label`) and an `answerKey`; one whose right answer stands twice is left out."""

    def rows() -> Iterator[TaskItem]:
        for number, row in enumerate(hub_rows(dataset, config, split)):
            labels = list(row["choices"]["label"])
            answers = [answer.strip() for answer in row["choices"]["text"]]
            gold = labels.index(row["answerKey"]) if row["answerKey"] in labels else None
            if gold is not None and answers.count(answers[gold]) == 1:
                yield _question(row.get("id") or number, row[column], answers, gold)

    return rows


def commonsense_qa() -> Iterator[TaskItem]:
    """CommonsenseQA, with the spans of CoS-E (Rajani et al., 2019) as rationales where both can be had."""
    try:
        spans = {
            row["id"]: row["extractive_explanation"] for row in hub_rows("Salesforce/cos_e", "v1.11", "validation")
        }
    except TextError:
        # Rationales serve plausibility alone: a hub without them still has the questions.
        spans = {}
    for item in multiple_choice("tau/commonsense_qa", "default", "validation")():
        rationale = _marks(item.fields[0], spans.get(item.id) or "")
        yield TaskItem(item.id, item.fields, item.options, item.gold, item.cluster, rationale)


def _marks(text: str, span: str) -> tuple[bool, ...] | None:
    """Which words a quoted span covers; `None` if it is not in the text or is all of it."""
    start = text.lower().find(span.strip().lower())
    if not span.strip() or start < 0:
        return None
    end = start + len(span.strip())
    marks = tuple(s < end and start < e for s, e in words_of(text))
    return marks if any(marks) and not all(marks) else None


def sciq() -> Iterator[TaskItem]:
    """SciQ; no position is right more often, the order is that of the row's number."""
    for number, row in enumerate(hub_rows("allenai/sciq", "default", "test")):
        wrong = [row[f"distractor{n}"] for n in (1, 2, 3)]
        # Nor can a question be asked whose right answer is also a wrong one.
        if all(wrong) and row["correct_answer"].strip() not in [answer.strip() for answer in wrong]:
            options = [row["correct_answer"], *wrong]
            order = random.Random(number).sample(range(4), 4)
            yield _question(number, row["question"], [options[i] for i in order], order.index(0))


def _question(name: Any, question: str, answers: Sequence[str], gold: int) -> TaskItem:
    return TaskItem(str(name), (question.strip(),), tuple(answer.strip() for answer in answers), gold)
