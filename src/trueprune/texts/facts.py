"""The embedded statements: sentences built from tables of facts that were written for this project."""

from __future__ import annotations

import random
from functools import lru_cache
from itertools import pairwise

from trueprune.texts.rows import embedded_file, read_csv
from trueprune.texts.statements import Statement, StatementSet

# Sentence with {subject} and {object}; the second form is its negation.
TEMPLATES = {
    "cities": ("The city of {s} is in {o}.", "The city of {s} is not in {o}."),
    "capitals": ("The capital of {s} is {o}.", "The capital of {s} is not {o}."),
    "elements": ("The chemical symbol for {s} is {o}.", "The chemical symbol for {s} is not {o}."),
    "animals": ("The {s} is {a} {o}.", "The {s} is not {a} {o}."),
    "translations": ("The Spanish word '{s}' means '{o}'.", "The Spanish word '{s}' does not mean '{o}'."),
    "authors": ("{s} was written by {o}.", "{s} was not written by {o}."),
    "people": ("{s} was a famous {o}.", "{s} was not a famous {o}."),
    "numbers": ("{s} is {o}.", "{s} is not {o}."),
}
GERMAN = {
    "cities": ("Die Stadt {s} liegt in {o}.", "Die Stadt {s} liegt nicht in {o}."),
    "elements": ("Das chemische Symbol für {s} ist {o}.", "Das chemische Symbol für {s} ist nicht {o}."),
    "animals": ("{s} ist {o}.", "{s} ist {o}."),
}
COMPOUNDS_PER_TOPIC = 40
# Where a sentence begins with a name, its capital stays when it becomes a part of another.
NAMED_TOPICS = ("authors", "people")
NAMES = ("Jupiter", "Mercury")


@lru_cache(maxsize=1)
def embedded_statements() -> StatementSet:
    """All embedded statements: eight topics and free facts, affirmative and negated; conjunctions and disjunctions;
    German; role-play scenarios.

    Each fact gives four statements (true and false, affirmed and negated) that share one group.
    """
    rows = [*_english(), *_free()]
    rows += _compounds(rows, "conjunction") + _compounds(rows, "disjunction") + _german() + _scenarios()
    return StatementSet(rows, "embedded")


def _four(topic: str, group: str, sentences: tuple[str, str, str, str], language: str = "en") -> list[Statement]:
    """True, false, negated true (false), negated false (true)."""
    labels = (1, 0, 0, 1)
    polarities = ("affirmative", "affirmative", "negated", "negated")
    return [
        Statement(text, label, topic, polarity, language, group)
        for text, label, polarity in zip(sentences, labels, polarities, strict=True)
    ]


def _english() -> list[Statement]:
    rows: list[Statement] = []
    for fact in read_csv(embedded_file("facts.csv")):
        topic = fact["topic"]
        plain, negated = TEMPLATES[topic]
        right, wrong = ({"s": fact["subject"], "o": o, "a": _article(o)} for o in (fact["right"], fact["wrong"]))
        sentences = tuple(form.format(**words) for form in (plain, negated) for words in (right, wrong))
        rows += _four(topic, f"{topic}:{fact['subject']}", sentences)  # type: ignore[arg-type]
    return rows


def _article(noun: str) -> str:
    return "an" if noun[0].lower() in "aeiou" else "a"


def _free() -> list[Statement]:
    rows: list[Statement] = []
    for index, fact in enumerate(read_csv(embedded_file("free_facts.csv"))):
        sentences = (fact["true"], fact["false"], fact["negated_true"], fact["negated_false"])
        rows += _four("facts", f"facts:{index}", sentences)
    return rows


def _german() -> list[Statement]:
    rows: list[Statement] = []
    for fact in read_csv(embedded_file("facts_de.csv")):
        plain, negated = GERMAN[fact["topic"]]
        sentences = (
            plain.format(s=fact["subject"], o=fact["right"]),
            plain.format(s=fact["subject"], o=fact["wrong"]),
            negated.format(s=fact["subject"], o=fact["negated_right"]),
            negated.format(s=fact["subject"], o=fact["negated_wrong"]),
        )
        # One group in both languages: no fact may choose in one and be audited in the other.
        rows += _four(fact["topic"], f"{fact['topic']}:{fact['english']}", sentences, "de")
    return rows


def _compounds(rows: list[Statement], polarity: str) -> list[Statement]:
    """Two affirmative statements of one topic joined; half of the results are true.

    A conjunction is true for (true, true), a disjunction false for (false, false); the rest is spread evenly.
    """
    compounds: list[Statement] = []
    is_and = polarity == "conjunction"
    odd = [(1, 0), (0, 1), (0, 0)] if is_and else [(1, 0), (0, 1), (1, 1)]
    even = (1, 1) if is_and else (0, 0)
    for topic in dict.fromkeys(row.topic for row in rows):
        facts: dict[str, dict[int, Statement]] = {}
        for row in rows:
            if row.topic == topic and row.polarity == "affirmative":
                facts.setdefault(row.group, {})[row.label] = row
        order = sorted(facts)
        random.Random(f"{topic}/{polarity}").shuffle(order)
        for index, (a, b) in enumerate(list(pairwise(order))[:COMPOUNDS_PER_TOPIC]):
            parts = even if index % 2 == 0 else odd[index // 2 % 3]
            first, second = facts[a][parts[0]], facts[b][parts[1]]
            label = min(parts) if is_and else max(parts)
            words = ("both", "and") if is_and else ("either", "or")
            text = f"It is the case {words[0]} that {_inner(first)} {words[1]} that {_inner(second)}."
            compounds.append(Statement(text, label, topic, polarity, "en", f"{first.group}|{second.group}"))
    return compounds


def _inner(statement: Statement) -> str:
    """A sentence inside another: without its stop, its first letter lowered unless it begins with a name or a title."""
    text = statement.text.rstrip(".")
    named = statement.topic in NAMED_TOPICS or text.split()[0] in NAMES
    return text if named else text[0].lower() + text[1:]


def _scenarios() -> list[Statement]:
    return [
        Statement(row["text"], int(row["label"]), "scenarios", "scenario", "en", f"scenarios:{row['group']}")
        for row in read_csv(embedded_file("scenarios.csv"))
    ]
