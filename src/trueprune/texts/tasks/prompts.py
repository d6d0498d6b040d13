"""From a row of a task to the prompt that a model gets: letters or texts, examples, chat template."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trueprune._support.errors import TextError
from trueprune.texts.tasks.contract import ChoiceItem, Span, Task, TaskItem, words_of

Answers = Literal["texts", "letters"]
Correction = Literal["none", "contextual", "pmi"]
CONTENT_FREE = "N/A"
# What the user says in a chat where the answer goes on with the text itself.
COMPLETE = "Complete the text."


@dataclass(frozen=True)
class PromptOptions:
    """How questions are put.

    **Arguments:**

    - `answers`: `texts` (the words of the options themselves; of label tasks their verbalisers) or `letters` (the
        options are listed in the prompt, and A, B, C ... are scored).
    - `correct`: what is taken off an option's score: `none`; `contextual` (its score after the same prompt with N/A for
        the task text: contextual calibration, arXiv 2102.09690) or `pmi` (its score after the answer cue alone:
        domain-conditional mutual information, arXiv 2104.08315).
    - `chat`: put the question through the tokenizer's chat template.
    - `shots`: solved examples in front, from items that are never audited.
    """

    answers: Answers = "texts"
    correct: Correction = "none"
    chat: bool = False
    shots: int = 0

    def __post_init__(self):
        if self.answers not in ("texts", "letters"):
            raise TextError(f"--answers {self.answers} is unknown", "Use texts or letters")
        if self.correct not in ("none", "contextual", "pmi"):
            raise TextError(f"--correct {self.correct} is unknown", "Use none, contextual or pmi")
        if self.shots < 0:
            raise TextError(f"--shots {self.shots} is below 0", "Use 0 or a number of examples")

    def by_labels(self, task: Task) -> bool:
        """Whether the options of a task are the same words in every item: letters stand for other things each time."""
        return task.labels and self.answers != "letters"


@dataclass(frozen=True)
class _Body:
    """The task text in its template, and where the words of each field stand in it."""

    text: str
    words: tuple[tuple[Span, ...], ...]


def render(
    task: Task, item: TaskItem, options: PromptOptions, *, tokenizer: Any = None, shots: Sequence[TaskItem] = ()
) -> ChoiceItem:
    """The question as the model gets it.

    **Arguments:**

    - `task`, `item`: what is asked.
    - `options`: how.
    - `tokenizer`: needed for the chat template only.
    - `shots`: the solved examples.

    **Raises:** `TextError` for a chat template that is missing or changes the text, more options than letters, or
    `pmi` for a task without answer cue.
    """
    body = _body(task, item, options)
    prompt, offset = _prompt(task, body.text, options, tokenizer, shots)
    words = tuple(tuple((start + offset, end + offset) for start, end in field) for field in body.words)
    return ChoiceItem(
        item.id,
        prompt,
        _endings(item, options),
        item.gold,
        item.cluster or item.id,
        words,
        item.rationale,
        _premises(task, item, options, tokenizer, shots),
        special=not options.chat,
        sha256=item.sha256,
    )


def _endings(item: TaskItem, options: PromptOptions) -> tuple[str, ...]:
    if options.answers == "letters":
        return tuple(f" {letter}" for letter in string.ascii_uppercase[: len(item.options)])
    return tuple(f" {option}" for option in item.options)


def _body(task: Task, item: TaskItem, options: PromptOptions) -> _Body:
    pieces = task.template.split("{}")
    if len(pieces) != len(item.fields) + 1:
        raise TextError(f"the item {item.id} has {len(item.fields)} fields, its template {len(pieces) - 1}", "Mend it")
    text, words = pieces[0], []
    for field, after in zip(item.fields, pieces[1:], strict=True):
        words.append(tuple((start + len(text), end + len(text)) for start, end in words_of(field)))
        text += field + after
    if options.answers == "letters":
        if len(item.options) > len(string.ascii_uppercase):
            raise TextError(f"the item {item.id} has {len(item.options)} options", "Use --answers texts")
        lines = (f"{letter}. {option}" for letter, option in zip(string.ascii_uppercase, item.options, strict=False))
        text = "\n".join((text, *lines))
    return _Body(text, tuple(words))


def _prompt(
    task: Task, body: str, options: PromptOptions, tokenizer: Any, shots: Sequence[TaskItem]
) -> tuple[str, int]:
    """The whole prompt, and where the body begins in it."""
    cue = _cue(task, options)
    examples = [(_body(task, shot, options).text, _endings(shot, options)[shot.gold]) for shot in shots]
    if options.chat:
        return _chat(task.instruction, [*examples, (body, "")], cue, tokenizer)
    joint = "\n" if cue else ""
    lead = f"{task.instruction}\n" if task.instruction else ""
    before = lead + "".join(f"{text}{joint}{cue}{answer}\n\n" for text, answer in examples)
    return f"{before}{body}{joint}{cue}", len(before)


def _cue(task: Task, options: PromptOptions) -> str:
    """Letters are an answer to a question, so a text that would be gone on with needs a cue, too."""
    return task.cue or ("Answer:" if options.answers == "letters" else "")


def _chat(instruction: str, turns: Sequence[tuple[str, str]], cue: str, tokenizer: Any) -> tuple[str, int]:
    """Examples are earlier turns; the cue begins the model's own, so that options follow the same words as without."""
    if tokenizer is None or not getattr(tokenizer, "chat_template", None):
        raise TextError("the tokenizer has no chat template", "Leave --chat away, or save a template with the model")
    messages: list[dict[str, str]] = []
    for number, (text, answer) in enumerate(turns):
        asked = text if cue else COMPLETE
        if instruction and not number:
            asked = f"{instruction}\n{asked}" if cue else instruction
        messages.append({"role": "user", "content": asked})
        messages.append({"role": "assistant", "content": f"{cue if cue else text}{answer}"})
    given = _apply(tokenizer, messages[:-1])
    body = turns[-1][0]
    if not cue:
        return f"{given}{body}", len(given)
    # The text may also occur elsewhere, in an example or in the template's own words: it begins where another would.
    asked = messages[-2]["content"]
    other = asked.removesuffix(body) + ("1" if body.startswith("0") else "0")
    changed = _apply(tokenizer, [*messages[:-2], {"role": "user", "content": other}])
    place = next((i for i, (one, two) in enumerate(zip(given, changed, strict=False)) if one != two), 0)
    if not given.startswith(body, place):
        raise TextError("the chat template changes the text of the question", "Leave --chat away")
    return f"{given}{cue}", place


def _opened(tokenizer: Any) -> str:
    return _apply(tokenizer, [{"role": "user", "content": ""}])


def _apply(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:
        raise TextError(f"the chat template cannot be applied ({str(error)[:120]})", "Leave --chat away") from error


def _premises(
    task: Task, item: TaskItem, options: PromptOptions, tokenizer: Any, shots: Sequence[TaskItem]
) -> tuple[str, ...]:
    if options.correct == "none":
        return ()
    if options.correct == "pmi":
        cue = _cue(task, options)
        if not cue:
            raise TextError(f"the task {task.name} has no answer cue", "Use --correct contextual")
        # In a chat the model's turn after a user who said nothing; else the cue with whatever begins a text.
        return (_opened(tokenizer) + cue,) if options.chat else (cue,)
    empty = TaskItem(item.id, (CONTENT_FREE,) * len(item.fields), item.options, item.gold)
    return (_prompt(task, _body(task, empty, options).text, options, tokenizer, shots)[0],)
