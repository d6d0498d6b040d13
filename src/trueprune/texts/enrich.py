"""The enrichment rule: questions that invite a false answer become statements that say what is false and what is right.

TPLO (arXiv 2509.00096) calibrates on an enriched TruthfulQA whose text and rule were not released. This rule is ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from trueprune._support.errors import TextError

Variant = Literal["true", "correction", "question"]
VARIANTS = ("true", "correction", "question")


def enrich(rows: Iterable[Mapping[str, Any]], variant: Variant = "correction") -> list[str]:
    """Texts made of question-answer rows.

    - `"true"`: the best answer alone.
    - `"correction"`: each false answer, a clause that says that it is false, and the best answer.
    - `"question"`: the question before that.

    **Arguments:**

    - `rows`: with `question`, `best_answer` and `incorrect_answers`, as TruthfulQA's generation set has.
    - `variant`: see above.

    **Returns:** one text an answer, in the order of the rows.

    **Raises:** `TextError` if the variant is unknown or a column is missing.
    """
    if variant not in VARIANTS:
        raise TextError(f"unknown enrichment {variant!r}", f"Use one of {', '.join(VARIANTS)}")
    texts: list[str] = []
    for row in rows:
        if missing := [name for name in ("question", "best_answer", "incorrect_answers") if name not in row]:
            raise TextError(f"a question row has no column {missing[0]!r}", "Give TruthfulQA's generation columns")
        best = _bare(row["best_answer"])
        if variant == "true":
            texts.append(f"{best}.")
            continue
        for answer in row["incorrect_answers"]:
            text = f"{_bare(answer)}, which is false; the correct answer is: {best}."
            texts.append(f"{row['question'].strip()} {text}" if variant == "question" else text)
    return texts


def _bare(sentence: str) -> str:
    return sentence.strip().rstrip(".")
