"""Questions answered in words: the contract between rows and whoever asks, grades, or trains on them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from trueprune._support.errors import TextError


@dataclass(frozen=True)
class Question:
    """A question with answers that are right and, where somebody wrote them down, answers that are wrong.

    **Arguments:**

    - `id`: stable, unique within its set.
    - `text`: the question.
    - `right`: right answers, the best first; for short answers the aliases of one thing.
    - `wrong`: wrong answers, the most tempting first if the set says which; may be empty.
    - `one`: the choices of MC1, the right one first: one right answer and the wrong ones. By default the best right
        answer and all wrong ones.
    - `cluster`: ties the questions of one fact together; they are resampled, and kept for fitting, together. By default
        the `id`.
    - `best_wrong`: the one most tempting wrong answer, the other choice of MC0, where the set names it.
    - `disputed`: answers that the set's authors give as right and as wrong (TruthfulQA has two such questions). They
        count on both sides of MC2, as the set has it, and never as an example of truth or error.

    **Raises:** `TextError` for a question without text or right answer, an empty answer, or one that is both right and
    wrong and not said to be disputed.
    """

    id: str
    text: str
    right: tuple[str, ...]
    wrong: tuple[str, ...] = ()
    one: tuple[str, ...] = ()
    cluster: str = ""
    best_wrong: str = ""
    disputed: tuple[str, ...] = ()

    def __post_init__(self):
        if not self.text.strip():
            raise TextError(f"the question {self.id} has no text", "Remove or complete it")
        if not self.right or not all(answer.strip() for answer in (*self.right, *self.wrong, *self.one)):
            raise TextError(f"the question {self.id} has no answer, or an empty one", "Give it a right answer")
        if both := {*self.right} & {*self.wrong, self.best_wrong} - {*self.disputed}:
            raise TextError(f"the question {self.id} has {sorted(both)[0]!r} as right and wrong", "Remove one of them")
        if not self.one and self.wrong:
            object.__setattr__(self, "one", (self.right[0], *self.wrong))

    @property
    def sha256(self) -> str:
        """Hash of the question and its answers: the same question in any prompt."""
        parts = (self.text, "", *self.right, "", *self.wrong)
        return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()


@dataclass(frozen=True)
class QuestionSet:
    """How the questions of a set are had.

    **Arguments:**

    - `name`: as in `--qa`.
    - `rows`: gives the questions.
    - `sentences`: answers are sentences (TruthfulQA) and not short names and numbers.
    - `fit_rows`: questions set aside for fitting and training. By default a quarter of `rows`.
    """

    name: str
    rows: Callable[[], Iterator[Question]]
    sentences: bool = False
    fit_rows: Callable[[], Iterator[Question]] | None = None


@dataclass(frozen=True)
class AskedQuestion:
    """A question as the model gets it.

    **Arguments:**

    - `question`: what is asked.
    - `prompt`: what stands before the answer; an answer follows it after one space.
    - `special`: whether the tokenizer adds its special tokens; a chat template brings its own.
    """

    question: Question
    prompt: str
    special: bool = True


@dataclass(frozen=True)
class JudgedAnswer:
    """An answer after its question, and whether it is true.

    **Arguments:**

    - `id`: of the question.
    - `prompt`: what stands before the answer.
    - `answer`: the answer, with the space that parts it from the prompt.
    - `hallucinated`: whether it is wrong.
    - `cluster`: ties the answers to one question together.
    - `special`: as in `AskedQuestion`.
    """

    id: str
    prompt: str
    answer: str
    hallucinated: bool
    cluster: str
    special: bool = True
