"""A right and a wrong answer to each question, for what is fitted or trained on truth and error."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from trueprune._support.errors import TextError
from trueprune.texts.qa.contract import JudgedAnswer, Question, QuestionSet
from trueprune.texts.qa.normalise import tokens_of
from trueprune.texts.qa.pools import check_sets, find_set, set_questions
from trueprune.texts.qa.primers import primer_text
from trueprune.texts.qa.prompts import QaOptions, ask
from trueprune.texts.sides import Side

Form = tuple[bool, bool, bool, int]


def answer_pairs(
    names: Sequence[str], limit: int, options: QaOptions, *, tokenizer: Any = None, side: Side = "fit"
) -> list[JudgedAnswer]:
    """For each question a right answer and then a wrong one: as many true as hallucinated, in a fixed order.

    Which right and which wrong answer it is, the hash of the question's id says: the same whatever else is asked. Of
    short answers the right one is always the best, and so in the form of the wrong ones: an alias (`the iris`, `10`) on
    one side alone would tell the sides apart. A question without wrong answers takes the best right answer of another
    question of its set and side, of the same form where there is one (with a digit, with a capital, all in capitals, so
    many words), that is none of its own and neither holds nor is held by one (`Paris`, `Paris, France`). This reading
    is ours.

    **Arguments:**

    - `names`: question sets.
    - `limit`: at most so many questions of each set; 0 for all.
    - `options`: primer and chat.
    - `tokenizer`: needed for a chat template.
    - `side`: `fit` by default: questions that no audit asks.

    **Returns:** two answers a question, whose `id` and `cluster` begin with the name of its set.

    **Raises:** `TextError` as `asked`, or if no other question has an answer that is wrong here.
    """
    check_sets(names)
    primer = primer_text(options.primer)
    found: list[JudgedAnswer] = []
    for name in names:
        source = find_set(name)
        # Wrong answers are sought among all of the side, so that a limit changes no pair.
        pool = set_questions(source, 0, side)
        for question in pool[:limit] if limit else pool:
            prompt = ask(question, primer, chat=options.qa_chat, tokenizer=tokenizer)
            own, cluster = f"{source.name}:{question.id}", f"{source.name}:{question.cluster or question.id}"
            for answer, hallucinated in zip(_pair(question, pool, source), (False, True), strict=True):
                found.append(JudgedAnswer(own, prompt.prompt, f" {answer}", hallucinated, cluster, prompt.special))
    return found


def _pair(question: Question, pool: Sequence[Question], source: QuestionSet) -> tuple[str, str]:
    right, wrong = (_undisputed(answers, question) for answers in (question.right, question.wrong))
    if not right:
        problem = f"every right answer of the question {question.id} of {source.name} is disputed"
        raise TextError(problem, "Remove the question")
    if not wrong:
        return right[0], _borrowed(question, right[0], pool, source.name)
    own = right[_drawn(f"{question.id}/right", len(right))] if source.sentences else right[0]
    return own, wrong[_drawn(f"{question.id}/wrong", len(wrong))]


def _undisputed(answers: Sequence[str], question: Question) -> list[str]:
    return [answer for answer in answers if answer not in question.disputed]


def _drawn(key: str, count: int) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % count


def _borrowed(question: Question, right: str, pool: Sequence[Question], name: str) -> str:
    """The best answer of another question, the first that is wrong here from a place that the hash says."""
    own = question.cluster or question.id
    others = [other.right[0] for other in pool if (other.cluster or other.id) != own]
    mine = [_words(answer) for answer in question.right]
    wanted = _form(right)
    # If no answer of the same form is left, one alike in digits and capitals, and at last any.
    for shared in (4, 3, 0):
        alike = [answer for answer in others if _form(answer)[:shared] == wanted[:shared]]
        start = _drawn(f"{question.id}/wrong", len(alike)) if alike else 0
        for answer in (*alike[start:], *alike[:start]):
            words = _words(answer)
            if not any(_within(words, said) or _within(said, words) for said in mine):
                return answer
    raise TextError(
        f"no other question of {name} has an answer that is wrong for the question {question.id}",
        "Give more questions, or wrong answers",
    )


def _form(answer: str) -> Form:
    return any(c.isdigit() for c in answer), answer[:1].isupper(), answer.isupper(), len(answer.split())


def _words(answer: str) -> list[str]:
    # An answer of articles and marks alone (The The) is compared as it is.
    return tokens_of(answer) or answer.lower().split()


def _within(part: list[str], whole: list[str]) -> bool:
    return any(whole[start : start + len(part)] == part for start in range(len(whole) - len(part) + 1))
