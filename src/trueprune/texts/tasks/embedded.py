"""Tasks that ship inside the package: facts to be completed, sentiment with rationales, everyday commonsense."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

from trueprune._support.errors import TextError
from trueprune.texts.facts import TEMPLATES, embedded_statements
from trueprune.texts.rows import embedded_file, read_csv
from trueprune.texts.selection import select
from trueprune.texts.tasks.contract import TaskItem, words_of

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
SENTIMENTS = ("negative", "positive")


def facts() -> Iterator[TaskItem]:
    """The package's own facts as sentences to be completed; no fact that may choose sparsities or calibrate."""
    return _facts("audit")


def facts_to_fit() -> Iterator[TaskItem]:
    """The facts that may choose sparsities: an audit never asks them."""
    return _facts("choose")


def _facts(side: str) -> Iterator[TaskItem]:
    rows = read_csv(embedded_file("facts.csv"))
    wanted = {row.group for row in select(embedded_statements(), side)}  # type: ignore[arg-type]
    objects: dict[str, list[str]] = {}
    for fact in rows:
        objects.setdefault(fact["topic"], []).append(fact["right"])
    for fact in rows:
        topic, right, group = fact["topic"], fact["right"], f"{fact['topic']}:{fact['subject']}"
        if group not in wanted:
            continue
        pool = sorted({o for o in objects[topic] if o != right and frozenset((o, right)) not in NEAR})
        # Drawn by the fact's own name, so that an item stays the same when others come or go.
        rng = random.Random(group)
        options = [right, *rng.sample(pool, DISTRACTORS)]
        rng.shuffle(options)
        start, endings = _completions(topic, fact["subject"], options)
        yield TaskItem(group, (start,), endings, options.index(right), group)


def _completions(topic: str, subject: str, objects: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The topic's sentence cut before its object, with the article or quotation mark that belongs to the object."""
    template = TEMPLATES[topic][0]
    start = template[: template.index("{a}" if "{a}" in template else "{o}")].rstrip("'").rstrip()
    endings = []
    for o in objects:
        article = "an" if o[0].lower() in "aeiou" else "a"
        endings.append(template[len(start) :].format(o=o, a=article).removesuffix(".").strip())
    return start.format(s=subject), tuple(endings)


def sentiment() -> Iterator[TaskItem]:
    """Sentences of praise and blame with the words that decide in square brackets."""
    for number, row in enumerate(read_csv(embedded_file("sentiment.csv"))):
        text, rationale = unmarked(row["text"])
        yield TaskItem(f"sentiment:{number}", (text,), SENTIMENTS, SENTIMENTS.index(row["label"]), "", rationale)


def unmarked(marked: str) -> tuple[str, tuple[bool, ...]]:
    """A text without its brackets, and for each word whether it stood in some.

    **Arguments:**

    - `marked`: e.g. `"The soup was [cold]."`

    **Raises:** `TextError` for a bracket without its partner.
    """
    spans: list[tuple[int, int]] = []
    text, opened = "", None
    for piece in re.split(r"([\[\]])", marked):
        if piece == "[" and opened is None:
            opened = len(text)
        elif piece == "]" and opened is not None:
            spans.append((opened, len(text)))
            opened = None
        elif piece in ("[", "]"):
            raise TextError(f"the brackets of {marked!r} do not match", "Mend it")
        else:
            text += piece
    if opened is not None:
        raise TextError(f"the brackets of {marked!r} do not match", "Mend it")
    return text, tuple(any(start < e and s < end for s, e in spans) for start, end in words_of(text))


def commonsense() -> Iterator[TaskItem]:
    """Everyday questions with one right and three wrong answers."""
    for number, row in enumerate(read_csv(embedded_file("commonsense.csv"))):
        answers = [row["right"], row["wrong1"], row["wrong2"], row["wrong3"]]
        order = random.Random(number).sample(range(4), 4)
        options = tuple(answers[i] for i in order)
        yield TaskItem(f"commonsense:{number}", (row["question"],), options, order.index(0))
