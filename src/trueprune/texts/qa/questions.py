"""The questions of a set as a model gets them: rows, their side, primer and prompt in one call."""

from __future__ import annotations

from typing import Any

from trueprune.texts.qa.contract import AskedQuestion
from trueprune.texts.qa.pools import find_set, set_questions
from trueprune.texts.qa.primers import primer_text
from trueprune.texts.qa.prompts import QaOptions, ask
from trueprune.texts.sides import Side


def asked(
    name: str, limit: int, options: QaOptions, *, tokenizer: Any = None, side: Side = "audit"
) -> list[AskedQuestion]:
    """The questions of a set as a model gets them.

    **Arguments:**

    - `name`: a question set or the path of a `.jsonl` file.
    - `limit`: at most so many; 0 for all.
    - `options`: how they are put; its `qa` and `qa_items` are the caller's to heed.
    - `tokenizer`: needed for a chat template.
    - `side`: `audit`, or `fit` for those that no audit asks.

    **Raises:** `TextError` as `set_questions`, `primer_text` and `ask`.
    """
    primer = primer_text(options.primer)
    questions = set_questions(find_set(name), limit, side)
    return [ask(question, primer, chat=options.qa_chat, tokenizer=tokenizer) for question in questions]
