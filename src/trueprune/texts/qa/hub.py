"""Question sets whose rows come from the hub or its local mirror, by the hub's columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from trueprune._support.errors import TextError
from trueprune.texts.qa.contract import Question
from trueprune.texts.rows import hub_rows

# WikiQA has a row for each candidate sentence, about ten to a question: the usual limit would cut its test split.
WIKIQA_ROWS = 10_000


def truthfulqa() -> Iterator[Question]:
    """TruthfulQA (Lin et al. 2022, arXiv 2109.07958).

    Right and wrong answers are MC2's choices, all of them and also one that stands twice, the best right answer and (if
    the rows name it, as those of 2025 do) the best wrong one first; `one` has MC1's choices. Empty choices, left by a
    separator at a list's end, are no answers and go. The question's text stays as it is, to the space.
    """
    best_answers, best_wrongs = _best()
    for number, row in enumerate(hub_rows("truthfulqa/truthful_qa", "multiple_choice", "validation")):
        text = row["question"]
        first, others = _split(row["mc1_targets"])
        right, wrong = _split(row["mc2_targets"])
        if not first or not right:
            continue
        best, best_wrong = best_answers.get(text.strip()), best_wrongs.get(text.strip(), "")
        if isinstance(row.get("mc0_targets"), dict):
            best_wrong = next(iter(_split(row["mc0_targets"])[1]), best_wrong)
        best_wrong = str(row.get("best_incorrect_answer") or best_wrong).strip()
        yield Question(
            str(number),
            text,
            _first(right, best if best in right else first[0]),
            _first(wrong, best_wrong),
            (*first, *others),
            best_wrong=best_wrong,
            disputed=tuple(dict.fromkeys(answer for answer in right if answer in wrong)),
        )


def _best() -> tuple[dict[str, str], dict[str, str]]:
    """Best right and best wrong answer by question, of the set's other configuration; nothing where it is not had."""
    try:
        rows = hub_rows("truthfulqa/truthful_qa", "generation", "validation")
    except TextError:
        # MC1's right choice is the best answer, too.
        return {}, {}
    right = {row["question"].strip(): row["best_answer"].strip() for row in rows}
    wrong = {row["question"].strip(): row.get("best_incorrect_answer") or "" for row in rows}
    return right, wrong


def _split(targets: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Right and wrong choices, wherever the labels put them."""
    told = [(choice.strip(), label) for choice, label in zip(targets["choices"], targets["labels"], strict=True)]
    right, wrong = (tuple(c for c, label in told if c and bool(label) == wanted) for wanted in (True, False))
    return right, wrong


def _first(answers: Sequence[str], best: str) -> tuple[str, ...]:
    """The best answer moved to the front, once; it is not added where it is none of them."""
    if best not in answers:
        return tuple(answers)
    place = list(answers).index(best)
    return (best, *answers[:place], *answers[place + 1 :])


def nq_open() -> Iterator[Question]:
    """NQ-open (Lee et al. 2019, arXiv 1906.00300): what people asked a search engine, with short answers.

    The questions are in lower case and lack a question mark. It is added, the case stays: so language models are asked
    elsewhere, too (arXiv 2302.13971, lm-evaluation-harness).
    """
    for number, row in enumerate(hub_rows("google-research-datasets/nq_open", "nq_open", "validation")):
        if answers := _answers(row["answer"]):
            yield Question(str(number), _asking(row["question"]), answers)


def triviaqa() -> Iterator[Question]:
    """TriviaQA (Joshi et al. 2017, arXiv 1705.03551) without documents: the answer and its aliases."""
    for number, row in enumerate(hub_rows("mandarjoshi/trivia_qa", "rc.nocontext", "validation")):
        answers = _answers(map(_unquoted, (row["answer"]["value"], *row["answer"]["aliases"])))
        if answers:
            yield Question(str(row.get("question_id") or number), _unquoted(row["question"]).strip(), answers)


def _unquoted(text: str) -> str:
    """Without the quotation marks of a CSV field, where rows that once were CSV still have them."""
    inner = text[1:-1]
    quoted = len(text) > 2 and text[0] == text[-1] == '"' and '""' in inner and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if quoted else text


def sciq() -> Iterator[Question]:
    """SciQ (Welbl et al. 2017, arXiv 1707.06209); its distractors are the wrong answers, where the rows have them."""
    for number, row in enumerate(hub_rows("allenai/sciq", "default", "test")):
        right = row["correct_answer"].strip()
        wrong = _answers(row.get(f"distractor{n}") or "" for n in (1, 2, 3))
        if right:
            yield Question(str(number), row["question"].strip(), (right,), tuple(w for w in wrong if w != right))


def wikiqa() -> Iterator[Question]:
    """WikiQA (Yang et al. 2015): sentences of an article, of which some answer the question.

    A wrong answer is one that does not answer; it may be true of something else. A question of which no sentence is
    right is left out; a question mark is added as for NQ-open.
    """
    found: dict[str, tuple[str, list[str], list[str]]] = {}
    for row in hub_rows("microsoft/wiki_qa", "default", "test", WIKIQA_ROWS):
        _, right, wrong = found.setdefault(str(row["question_id"]), (row["question"], [], []))
        (right if int(row["label"]) == 1 else wrong).append(row["answer"])
    for name, (text, right, wrong) in found.items():
        if answers := _answers(right):
            others = tuple(answer for answer in _answers(wrong) if answer not in answers)
            yield Question(name, _asking(text), answers, others)


def _answers(answers: Iterable[str]) -> tuple[str, ...]:
    """Each answer once, in the order given."""
    return tuple(dict.fromkeys(answer.strip() for answer in answers if answer.strip()))


def _asking(text: str) -> str:
    text = text.strip()
    return text if text.endswith("?") else f"{text}?"
