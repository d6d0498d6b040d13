"""Which true and hallucinated answers EAVSS compares, had from questions that no audit asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from trueprune._support.errors import PlanError
from trueprune.audits.qa.answers import answer, judged
from trueprune.models.anatomy import Anatomy
from trueprune.models.load import LoadedModel
from trueprune.observe.answers import AnswerProfile, AnswerTokens, observe_answers
from trueprune.observe.continuations import BATCH_TOKENS
from trueprune.observe.moments import NearZero
from trueprune.plans.eavss import EavssOptions, EavssResult, eavss_of
from trueprune.texts.qa import JudgedAnswer, QaOptions, answer_pairs, asked, find_set, set_questions

AnswersFrom = Literal["pairs", "self", "none"]
# With fewer entries near zero in a block, shares of them are what chance makes them.
ENOUGH_ZEROS = 100


@dataclass(frozen=True)
class HallucinationOptions:
    """Which true and hallucinated answers EAVSS compares, and when an activation in them counts as zero.

    **Arguments:**

    - `answers_from`: `pairs` (a right and a wrong answer to each question, as its set gives them, read by the model),
        `self` (what the model itself answers, graded; needs some of both, and leaves out where it abstains), or `none`.
        Questions are those of `--qa` that are kept for fitting: audits ask the others.
    - `answer_tokens`: `all` tokens of an answer, or its `last`.
    - `answer_near_zero`: an activation below it in absolute value counts as zero. AVSS's 1e-5 finds one entry in a
        hundred thousand, which no two sets of short answers can be told apart by.
    - `answer_near_zero_relative`: take it times the root mean square over the units of the token.
    """

    answers_from: AnswersFrom = "pairs"
    answer_tokens: AnswerTokens = "all"
    answer_near_zero: float = 0.01
    answer_near_zero_relative: bool = True

    def __post_init__(self):
        if self.answers_from not in get_args(AnswersFrom):
            raise PlanError(f"cannot take answers from {self.answers_from!r}", "Use pairs, self or none")
        if self.answer_tokens not in get_args(AnswerTokens):
            raise PlanError(f"unknown answer tokens {self.answer_tokens!r}", "Use all or last")
        if not self.answer_near_zero > 0:
            raise PlanError(f"--answer-near-zero {self.answer_near_zero} is not positive", "Use e.g. 0.01")

    @property
    def zero(self) -> NearZero:
        """When an activation of an answer counts as zero."""
        return NearZero(self.answer_near_zero, self.answer_near_zero_relative)


@dataclass(frozen=True, eq=False)
class Collected:
    """Answers to compare.

    **Arguments:**

    - `answers`: true and hallucinated ones.
    - `options`: how they were had.
    - `record`: plain data for `trueprune.json`: how, from which questions, and their hashes (`fitted_on`).
    """

    answers: tuple[JudgedAnswer, ...]
    options: HallucinationOptions
    record: Mapping[str, Any]


def collect_answers(
    loaded: LoadedModel, options: HallucinationOptions, asking: QaOptions, *, batch_tokens: int | None = None
) -> Collected:
    """True and hallucinated answers to the questions kept for fitting.

    **Arguments:**

    - `loaded`: model and tokenizer.
    - `options`: whose answers.
    - `asking`: which questions, and how they are put.
    - `batch_tokens`: tokens in a batch.

    **Raises:** `PlanError` for `none`; `TextError`, `AuditError` as `answer_pairs` and `answer`.
    """
    check_answers(options)
    names = [find_set(name).name for name in asking.qa]
    if options.answers_from == "pairs":
        answers = answer_pairs(asking.qa, asking.qa_items, asking, tokenizer=loaded.tokenizer)
    else:
        answers = [one for name in asking.qa for one in _own(loaded, name, asking, batch_tokens)]
        if not answers:
            raise PlanError("the model gives no answer to any question", "Use --answers-from pairs, or other questions")
    fitted_on = {
        name: [question.sha256 for question in set_questions(find_set(source), asking.qa_items, "fit")]
        for name, source in zip(names, asking.qa, strict=True)
    }
    record = {**vars(options), **vars(asking), "qa": names, "side": "fit", "fitted_on": fitted_on}
    return Collected(tuple(answers), options, record)


def observe_hallucination(
    loaded: LoadedModel,
    anatomy: Anatomy,
    collected: Collected,
    *,
    batch_tokens: int | None = None,
    description: str = "observe answers",
) -> AnswerProfile:
    """Read the answers, and take statistics of their activations after every block.

    **Arguments:**

    - `loaded`, `anatomy`: the model, as it is now.
    - `collected`: the answers, of `collect_answers`; they may stem from the model as it was.
    - `batch_tokens`: tokens in a batch.
    - `description`: what the progress bar says.
    """
    return observe_answers(
        loaded,
        anatomy,
        collected.answers,
        zero=collected.options.zero,
        tokens=collected.options.answer_tokens,
        batch_tokens=batch_tokens or BATCH_TOKENS,
        description=description,
    )


class Comparison:
    """EAVSS of a model, as often as wanted while layers go: the same answers, read again.

    **Arguments:**

    - `loaded`: the model before anything goes; `self` answers are its own.
    - `options`, `asking`: which answers, as for `collect_answers`.
    - `contrast`: how EAVSS is taken.
    - `batch_tokens`: tokens in a batch.

    **Raises:** as `collect_answers`.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        options: HallucinationOptions,
        asking: QaOptions,
        contrast: EavssOptions,
        *,
        batch_tokens: int | None = None,
    ):
        self.loaded, self.contrast, self.batch_tokens = loaded, contrast, batch_tokens
        self.collected = collect_answers(loaded, options, asking, batch_tokens=batch_tokens)
        self.record: dict[str, Any] = {**vars(contrast), **self.collected.record}
        self.notes: tuple[str, ...] = ()

    def score(self, anatomy: Anatomy, description: str = "observe answers") -> EavssResult:
        """EAVSS of every block that is there now.

        **Raises:** as `observe_answers` and `eavss_of`.
        """
        profile = observe_hallucination(
            self.loaded, anatomy, self.collected, batch_tokens=self.batch_tokens, description=description
        )
        result = eavss_of(profile, self.contrast)
        rare = int(np.median(profile.zeros_NL.sum(0)))
        if rare < ENOUGH_ZEROS:
            note = f"in half of the blocks at most {rare} activations of answers are near zero: HSS says little there"
            result = replace(result, notes=(*result.notes, f"{note} (raise --answer-near-zero)"))
        # Of the whole model, if layers go and this is asked again.
        self.notes = self.notes or result.notes
        self.record.setdefault("compared", dict(zip(("hallucinated", "true"), result.answers, strict=True)))
        return result


def check_answers(options: HallucinationOptions) -> None:
    """Refuse to compare no answers, before anything slow starts.

    **Raises:** `PlanError`.
    """
    if options.answers_from == "none":
        raise PlanError("--answers-from none leaves EAVSS nothing to compare", "Use pairs or self")


def refuse_idle_answers(
    chosen: str, hallucination: HallucinationOptions, asking: QaOptions, contrast: EavssOptions
) -> None:
    """Refuse options of EAVSS where something else chooses (e.g. `--by cosine`); the seed is everybody's.

    **Raises:** `PlanError`.
    """
    given = (hallucination, asking, replace(contrast, seed=EavssOptions().seed))
    if given != (HallucinationOptions(), QaOptions(), EavssOptions()):
        raise PlanError(
            f"{chosen} compares no answers",
            "Leave --answer-*, --qa*, --primer and --eavss-* out, or let eavss choose",
        )


def _own(loaded: LoadedModel, name: str, asking: QaOptions, batch_tokens: int | None) -> list[JudgedAnswer]:
    """The model's own answers to one set, named as pairs are."""
    source = find_set(name)
    questions = asked(name, asking.qa_items, asking, tokenizer=loaded.tokenizer, side="fit")
    size: dict[str, Any] = {} if batch_tokens is None else {"batch_tokens": batch_tokens}
    answers = answer(loaded, questions, set_name=source.name, sentences=source.sentences, **size)
    return [
        replace(one, id=f"{source.name}:{one.id}", cluster=f"{source.name}:{one.cluster}")
        for one in judged(questions, answers)
    ]
