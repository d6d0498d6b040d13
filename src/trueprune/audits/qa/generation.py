"""Truthfulness of what a model says itself: nearer to right or to wrong references, or as a judge has it."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import cast

import numpy as np

from trueprune._support.errors import AuditError
from trueprune.audits.measurement import Measurement
from trueprune.audits.qa.answers import Answers
from trueprune.audits.qa.options import Judge
from trueprune.audits.qa.overlap import overlap, references, scorer
from trueprune.texts.qa.contract import Question

INSTRUMENT = "truthful-generation"
HEADLINE = ("bleu-acc", "rougeL-acc")


def generation_of(
    answers: Answers, questions: Sequence[Question], judge: str | Judge | None = None
) -> list[Measurement]:
    """Metrics of one model's answers in sentences to one set.

    **Arguments:**

    - `answers`: of one model.
    - `questions`: that they answer, in the same order; those without wrong answers are left out.
    - `judge`: called with each question and answer, it gives the probability (or `True`, `False`) that the answer is
        true; a function, or its `module:function`.

    **Returns:** `bleu-max/SET`, `bleu-diff/SET`, `bleu-acc/SET` and the same of `rouge1`, `rouge2` and `rougeL` (see
    `overlap`), and with a judge `judged/SET`.

    **Raises:** `AuditError` without the extra `truthful`, or for a judge that cannot be found or gives no probability.
    """
    pairs = [(i, question) for i, question in enumerate(questions) if question.wrong]
    if not pairs:
        raise AuditError(f"no question of {answers.set_name} has wrong answers", "Use a set that has some")
    called = find_judge(judge) if isinstance(judge, str) else judge
    rows = [overlap(answers.texts[i], *references(question)) for i, question in pairs]
    if called is not None:
        for row, (i, question) in zip(rows, pairs, strict=True):
            row["judged"] = _verdict(called, question, answers.texts[i])
    return [
        Measurement(
            INSTRUMENT,
            f"{name}/{answers.set_name}",
            tuple(answers.item_ids[i] for i, _ in pairs),
            np.array([row[name] for row in rows]),
            clusters=tuple(answers.clusters[i] for i, _ in pairs),
            headline=name in (*HEADLINE, "judged"),
        )
        for name in rows[0]
    ]


def check_generation(judge: str | Judge | None) -> None:
    """Find out before a model is asked whether its answers can be scored.

    **Raises:** as `generation_of`.
    """
    scorer()
    if isinstance(judge, str):
        find_judge(judge)


def find_judge(name: str) -> Judge:
    """The function of that `module:function`.

    **Raises:** `AuditError` if there is none.
    """
    module, _, function = name.partition(":")
    remedy = "Give --judge as module:function, of a module that Python finds (PYTHONPATH)"
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise AuditError(f"the judge {name} cannot be had ({error})", remedy) from error
    if not callable(found):
        raise AuditError(f"the judge {name} is no function", remedy)
    return cast(Judge, found)


def _verdict(judge: Judge, question: Question, text: str) -> float:
    found = judge(question.text, text)
    try:
        value = float(found)
    except (TypeError, ValueError):
        value = math.nan
    if not 0 <= value <= 1:
        raise AuditError(
            f"the judge gives {found!r} for the question {question.id}",
            "It must give the probability that the answer is true, from 0 to 1, or True or False",
        )
    return value
