"""Multiple-choice questions: the contract (prompt, options, gold, cluster) and the tasks that give them."""

from __future__ import annotations

import difflib
import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from trueprune._support.errors import TextError
from trueprune.texts.facts import TEMPLATES, embedded_statements
from trueprune.texts.rows import embedded_file, hub_rows, read_csv
from trueprune.texts.selection import select

DISTRACTORS = 3
# Of these pairs of trades a person may have both: neither is offered as a wrong answer for the other.
NEAR = {
    frozenset(pair)
    for pair in (
        ("novelist", "philosopher"),
        ("composer", "singer"),
        ("physicist", "philosopher"),
        ("architect", "painter"),
    )
}


@dataclass(frozen=True)
class ChoiceItem:
    """One question.

    **Arguments:**

    - `id`: stable, unique within its task.
    - `prompt`: what stands before the answer.
    - `options`: the possible continuations, each with the space that parts it from the prompt.
    - `gold`: index of the right one.
    - `cluster`: ties the items of one fact together; they are resampled together.
    """

    id: str
    prompt: str
    options: tuple[str, ...]
    gold: int
    cluster: str

    def __post_init__(self):
        if not self.prompt.strip() or len(self.options) < 2 or not all(option.strip() for option in self.options):
            raise TextError(f"the item {self.id} lacks a prompt or two options with text", "Remove or complete it")
        if not 0 <= self.gold < len(self.options):
            raise TextError(f"the item {self.id}: {self.gold} is none of its {len(self.options)} options", "Mend it")


def _facts() -> Iterator[ChoiceItem]:
    """The package's own facts as sentences to be completed; no fact that may choose sparsities or calibrate."""
    facts = read_csv(embedded_file("facts.csv"))
    audited = {row.group for row in select(embedded_statements(), "audit")}
    objects: dict[str, list[str]] = {}
    for fact in facts:
        objects.setdefault(fact["topic"], []).append(fact["right"])
    for fact in facts:
        topic, right, group = fact["topic"], fact["right"], f"{fact['topic']}:{fact['subject']}"
        if group not in audited:
            continue
        pool = sorted({o for o in objects[topic] if o != right and frozenset((o, right)) not in NEAR})
        # Drawn by the fact's own name, so that an item stays the same when others come or go.
        rng = random.Random(group)
        options = [right, *rng.sample(pool, DISTRACTORS)]
        rng.shuffle(options)
        prompt, endings = _completions(topic, fact["subject"], options)
        yield ChoiceItem(group, prompt, endings, options.index(right), group)


def _completions(topic: str, subject: str, objects: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The topic's sentence cut before its object, with the article or quotation mark that belongs to the object."""
    template = TEMPLATES[topic][0]
    start = template[: template.index("{a}" if "{a}" in template else "{o}")].rstrip("'").rstrip()
    endings = []
    for o in objects:
        article = "an" if o[0].lower() in "aeiou" else "a"
        endings.append(template[len(start) :].format(o=o, a=article).removesuffix("."))
    return start.format(s=subject), tuple(endings)


def _labelled(dataset: str, config: str, split: str, column: str = "question") -> Iterator[ChoiceItem]:
    """Rows with `choices` (`text` and `label`) and an `answerKey`."""
    for number, row in enumerate(hub_rows(dataset, config, split)):
        labels = list(row["choices"]["label"])
        if row["answerKey"] not in labels:
            continue
        yield _question(row.get("id") or number, row[column], row["choices"]["text"], labels.index(row["answerKey"]))


def _sciq() -> Iterator[ChoiceItem]:
    for number, row in enumerate(hub_rows("allenai/sciq", "default", "test")):
        wrong = [row[f"distractor{n}"] for n in (1, 2, 3)]
        if all(wrong):
            # No position is right more often; the order is that of the row's number.
            options = [row["correct_answer"], *wrong]
            order = random.Random(number).sample(range(4), 4)
            yield _question(number, row["question"], [options[i] for i in order], order.index(0))


def _question(name: Any, question: str, answers: Sequence[str], gold: int) -> ChoiceItem:
    prompt = f"Question: {question.strip()}\nAnswer:"
    return ChoiceItem(str(name), prompt, tuple(f" {answer.strip()}" for answer in answers), gold, str(name))


TASKS: dict[str, Callable[[], Iterator[ChoiceItem]]] = {
    "facts": _facts,
    "arc_easy": lambda: _labelled("allenai/ai2_arc", "ARC-Easy", "test"),
    "arc_challenge": lambda: _labelled("allenai/ai2_arc", "ARC-Challenge", "test"),
    "openbookqa": lambda: _labelled("allenai/openbookqa", "main", "test", "question_stem"),
    "commonsense_qa": lambda: _labelled("tau/commonsense_qa", "default", "validation"),
    "sciq": _sciq,
}


def check_tasks(names: Sequence[str]) -> None:
    """Refuse an unknown task.

    **Raises:** `TextError` that names the nearest one.
    """
    if not names:
        raise TextError("there is no task", f"Use one of {', '.join(TASKS)}")
    for name in names:
        if name not in TASKS:
            near = difflib.get_close_matches(name, TASKS, 1)
            meant = f"Did you mean {near[0]}? " if near else ""
            raise TextError(f"unknown task {name!r}", f"{meant}Use one of {', '.join(TASKS)}")


def choice_items(task: str, limit: int = 0) -> list[ChoiceItem]:
    """The questions of a task, in an order fixed by the hash of their ids.

    **Arguments:**

    - `task`: a key of `TASKS`.
    - `limit`: only the first so many; 0 for all. A smaller limit gives a part of a larger one.

    **Raises:** `TextError` if the rows cannot be had or hold no complete question.
    """
    check_tasks([task])
    try:
        items = list(TASKS[task]())
    except TextError as error:
        raise TextError(
            error.problem, "Set TRUEPRUNE_DATA, pip install 'trueprune[hub]', or use --tasks facts"
        ) from error
    except KeyError as error:
        raise TextError(f"the rows of {task} lack the column {error}", "Give rows with the hub's columns") from error
    if not items:
        raise TextError(f"the rows of {task} hold no question with all its options", "Use another task, or other rows")
    ordered = sorted(items, key=lambda item: (hashlib.sha256(item.id.encode()).digest(), item.id))
    return ordered[:limit] if limit else ordered
