"""From a question to the prompt that a model gets: primer, question, chat template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trueprune._support.errors import TextError
from trueprune.texts.qa.contract import AskedQuestion, Question
from trueprune.texts.qa.pools import check_sets
from trueprune.texts.qa.primers import primer_text

CUE = "A:"
# The form of the prompt says without a chat that answers are short; a chat model would explain itself.
INSTRUCTION = "Answer the question briefly."


@dataclass(frozen=True)
class QaOptions:
    """What questions are asked, and how they are put.

    **Arguments:**

    - `qa`: question sets. In the package: `general` (facts), `misconceptions`; hub rows: `truthfulqa`, `nq_open`,
        `triviaqa`, `sciq`, `wikiqa`; or the path of a `.jsonl` file with `question`, `right` and perhaps `wrong`.
    - `qa_items`: at most so many questions of each set; 0 for all.
    - `primer`: solved questions in front: `none`; `own` (six of the package, one of them answered by "I have no
        comment."); `published` (TruthfulQA's, as its leaderboards use them; needs lm-eval); or the path of a text file.
    - `qa_chat`: put questions through the tokenizer's chat template, with the request to answer briefly.
    """

    qa: tuple[str, ...] = ("general", "misconceptions")
    qa_items: int = 200
    primer: str = "none"
    qa_chat: bool = False

    def __post_init__(self):
        check_sets(self.qa)
        if self.qa_items < 0:
            raise TextError(f"--qa-items {self.qa_items} is below 0", "Use 0 for all, or a number")
        primer_text(self.primer)


def ask(question: Question, primer: str = "", *, chat: bool = False, tokenizer: Any = None) -> AskedQuestion:
    """The question as the model gets it: `<primer>\\n\\nQ: <question>\\nA:`, to the byte that of lm-eval's TruthfulQA.

    In a chat the primer and `Q: <question>` are the user's, after the request to answer briefly, and the model's turn
    begins with `A:`, so that an answer follows after one space as it does without.

    **Arguments:**

    - `question`: what is asked.
    - `primer`: from `primer_text`.
    - `chat`: whether a chat template is used.
    - `tokenizer`: needed for the chat template only.

    **Raises:** `TextError` for a chat template that is missing or changes the question.
    """
    lead = f"{primer}\n\n" if primer else ""
    if not chat:
        return AskedQuestion(question, f"{lead}Q: {question.text}\n{CUE}")
    said = f"{INSTRUCTION}\n\n{lead}Q: {question.text.strip()}"
    return AskedQuestion(question, _in_chat(said, tokenizer) + CUE, special=False)


def _in_chat(said: str, tokenizer: Any) -> str:
    if tokenizer is None or not getattr(tokenizer, "chat_template", None):
        raise TextError("the tokenizer has no chat template", "Leave --qa-chat away, or save a template with the model")
    try:
        messages = [{"role": "user", "content": said}]
        given = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:
        problem = f"the chat template cannot be applied ({str(error)[:120]})"
        raise TextError(problem, "Leave --qa-chat away") from error
    if said not in given:
        raise TextError("the chat template changes the text of the question", "Leave --qa-chat away")
    return given
