"""Is an answer right? Pure functions on texts: SQuAD's comparison, abstentions, and which side a sentence is on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trueprune.audits.qa.options import Grade
from trueprune.texts.qa.contract import Question
from trueprune.texts.qa.normalise import normalise, tokens_of

# How models decline, normalised; the lists are ours. These begin an abstention,
DECLINING = (
    *(f"{start} {verb}" for start in ("i", "sorry i", "im sorry i") for verb in ("dont know", "do not know")),
    *("i have no comment", "no comment", "i have no idea", "i am not sure", "im not sure", "im unsure", "i am unsure"),
    *(f"{who}{verb} answer" for who in ("", "i ") for verb in ("cannot", "can not", "cant")),
    *("it is unknown", "it is not known", "its unknown", "i am unable to answer", "im unable to answer"),
    *("there is no answer", "not enough information"),
)
# and these are one when they are all that is said: things may be called so, too.
NOTHING_SAID = ("unknown", "not known", "no idea", "not sure", "unsure", "no answer", "unanswerable", "none known")


@dataclass(frozen=True)
class Graded:
    """What is to be said of one answer.

    **Arguments:**

    - `correct`: whether it counts as right.
    - `exact`: whether it is an accepted answer after normalisation.
    - `contained`: whether an accepted answer stands in it as whole words.
    - `f1`: the greatest token F1 with an accepted answer.
    - `abstained`: whether nothing is answered.
    """

    correct: bool
    exact: bool
    contained: bool
    f1: float
    abstained: bool

    @property
    def hallucinated(self) -> bool:
        """Answered, and not right."""
        return not self.abstained and not self.correct


def graded(text: str, question: Question, *, grade: Grade = "contains", sentences: bool = False) -> Graded:
    """Grade an answer.

    Sentences say a thing in too many ways to be compared as names are. There an answer is right if its greatest token
    F1 with a right answer is above that with every wrong one: this rule is ours, in the form in which TruthfulQA (Lin
    et al. 2022, arXiv 2109.07958) takes BLEU and ROUGE, where a tie is an error. Answers that the set calls right and
    wrong at once take no part. Where it has no wrong answers, sentences are graded as short answers are.
    What declines is right only where it is an accepted answer, and not by words that it shares with one.

    **Arguments:**

    - `text`: the answer.
    - `question`: with its answers.
    - `grade`: for short answers, `contains` or `exact`.
    - `sentences`: whether answers are sentences.
    """
    exact, contained = exact_match(text, question.right), contains(text, question.right)
    if sentences and question.wrong:
        right, wrong = (
            [answer for answer in side if answer not in question.disputed] for side in (question.right, question.wrong)
        )
        correct = best_f1(text, right) > best_f1(text, wrong)
    else:
        correct = exact or (contained and grade == "contains")
    abstained = abstains(text)
    return Graded(correct and (exact or not abstained), exact, contained, best_f1(text, question.right), abstained)


def exact_match(text: str, answers: Iterable[str]) -> bool:
    """Whether a text is one of some answers after SQuAD's normalisation (Rajpurkar et al. 2016, arXiv 1606.05250).

    Answers of which normalisation leaves nothing (the letter A, The The) are compared but for case.
    """
    return any(_alike(text, answer) for answer in answers)


def contains(text: str, answers: Iterable[str]) -> bool:
    """Whether the words of an answer stand in a text side by side, both normalised as for `exact_match`."""
    words = tokens_of(text)
    return any(_within(tokens_of(answer), words) or _alike(text, answer) for answer in answers)


def best_f1(text: str, answers: Iterable[str]) -> float:
    """The greatest token F1 with one of some answers; 0 without answers."""
    return max((token_f1(text, answer) for answer in answers), default=0.0)


def token_f1(text: str, answer: str) -> float:
    """The F1 of the words that a text and an answer share, as SQuAD counts them (arXiv 1606.05250, section 6.1).

    1 if neither has a word after normalisation and they are the same but for case, 0 if one of them has none.
    """
    ours, theirs = tokens_of(text), tokens_of(answer)
    if not ours or not theirs:
        return float(_alike(text, answer))
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs))


def abstains(text: str) -> bool:
    """Whether a text declines to answer: no letter or digit, one of `NOTHING_SAID`, or a beginning in `DECLINING`."""
    # Many models write the other apostrophe, which SQuAD's normalisation leaves where it is.
    said = normalise(text.replace("\u2019", "'"))
    return not any(map(str.isalnum, text)) or said in NOTHING_SAID or _declines(said)


def _declines(said: str) -> bool:
    return any(said == start or said.startswith(start + " ") for start in DECLINING)


def _alike(text: str, answer: str) -> bool:
    ours, theirs = normalise(text), normalise(answer)
    return ours == theirs if theirs else text.strip().casefold() == answer.strip().casefold()


def _within(part: Sequence[str], words: Sequence[str]) -> bool:
    size = len(part)
    return size > 0 and any(list(words[i : i + size]) == list(part) for i in range(len(words) - size + 1))
