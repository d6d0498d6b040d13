"""Classification by a causal language model: the contract between a task's rows, its prompt and what is scored."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from trueprune._support.errors import TextError

Span = tuple[int, int]


@dataclass(frozen=True)
class TaskItem:
    """One row of a task, before it becomes a prompt.

    **Arguments:**

    - `id`: stable, unique within its task.
    - `fields`: the task text, one string for each place of the task's template (premise and hypothesis, say).
    - `options`: the possible answers.
    - `gold`: index of the right one.
    - `cluster`: ties the items of one fact together; they are resampled, and kept for fitting, together. By default
        the `id`.
    - `rationale`: for each word of the task text (`words_of`, field after field) whether people call it decisive;
        `None` where nobody said.

    **Raises:** `TextError` for an item without text or two options, or whose gold is none of them or stands twice.
    """

    id: str
    fields: tuple[str, ...]
    options: tuple[str, ...]
    gold: int
    cluster: str = ""
    rationale: tuple[bool, ...] | None = None

    def __post_init__(self):
        if not any(text.strip() for text in self.fields):
            raise TextError(f"the item {self.id} has no text", "Remove or complete it")
        if len(self.options) < 2 or not all(option.strip() for option in self.options):
            raise TextError(f"the item {self.id} lacks two options with text", "Remove or complete it")
        if not 0 <= self.gold < len(self.options):
            raise TextError(f"the item {self.id}: {self.gold} is none of its {len(self.options)} options", "Mend it")
        if self.options.count(self.options[self.gold]) > 1:
            raise TextError(f"the item {self.id} has its right option twice", "Remove one of the two")
        if self.rationale is not None and len(self.rationale) != sum(len(words_of(text)) for text in self.fields):
            raise TextError(f"the rationale of the item {self.id} is not one mark a word", "Mend or remove it")

    @property
    def sha256(self) -> str:
        """Hash of task text and options: the same item in any prompt."""
        return hashlib.sha256("\x1f".join((*self.fields, "", *self.options)).encode()).hexdigest()


@dataclass(frozen=True)
class Task:
    """How the rows of a task are had and asked.

    **Arguments:**

    - `name`: as in `--tasks`.
    - `rows`: gives the items.
    - `template`: what surrounds the task text, with `{}` for each field.
    - `cue`: what stands right before the answer; empty where the answer goes on with the text itself.
    - `instruction`: stands first; may be empty.
    - `labels`: the options are the same words in every item (verbalisers) and not an item's own answers.
    - `fit_rows`: items set aside for fitting recalibrations and as examples. By default a quarter of `rows`.
    """

    name: str
    rows: Callable[[], Iterator[TaskItem]]
    template: str = "{}"
    cue: str = "Answer:"
    instruction: str = ""
    labels: bool = False
    fit_rows: Callable[[], Iterator[TaskItem]] | None = None


@dataclass(frozen=True)
class ChoiceItem:
    """One question as the model gets it.

    **Arguments:**

    - `id`: stable, unique within its task.
    - `prompt`: what stands before the answer.
    - `options`: the possible continuations, each with the space that parts it from the prompt.
    - `gold`: index of the right one.
    - `cluster`: ties the items of one fact together; they are resampled together.
    - `words`: for each field of the task text the character spans of its words in `prompt`. Explanations are about
        these; the rest of the prompt (instruction, template, options, examples) is never changed.
    - `rationale`: for each word whether people call it decisive.
    - `premises`: prompts without content, whose likelihood of an option is taken off (see `PromptOptions.correct`).
    - `special`: whether the tokenizer adds its special tokens; a chat template brings its own.
    - `sha256`: hash of the task text and options; by default of prompt and options.
    """

    id: str
    prompt: str
    options: tuple[str, ...]
    gold: int
    cluster: str
    words: tuple[tuple[Span, ...], ...] = ()
    rationale: tuple[bool, ...] | None = None
    premises: tuple[str, ...] = ()
    special: bool = True
    sha256: str = ""

    def __post_init__(self):
        if not self.prompt.strip() or len(self.options) < 2 or not all(option.strip() for option in self.options):
            raise TextError(f"the item {self.id} lacks a prompt or two options with text", "Remove or complete it")
        if not 0 <= self.gold < len(self.options):
            raise TextError(f"the item {self.id}: {self.gold} is none of its {len(self.options)} options", "Mend it")
        if not self.sha256:
            own = hashlib.sha256("\x1f".join((self.prompt, "", *self.options)).encode()).hexdigest()
            object.__setattr__(self, "sha256", own)

    @property
    def n_words(self) -> int:
        """Words of the task text."""
        return sum(map(len, self.words))

    def word_texts(self) -> list[str]:
        """The words of the task text."""
        return [self.prompt[start:end] for field in self.words for start, end in field]


def words_of(text: str) -> list[Span]:
    """Character spans of the words of a text: what stands between spaces, a lone mark joined to the word before.

    A lone mark (`film .`) is no feature of its own: it would only take its share of a word's importance.
    """
    spans: list[Span] = []
    for match in re.finditer(r"\S+", text):
        start, end = match.span()
        if spans and not any(c.isalnum() for c in match[0]):
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return spans


def masked_prompt(item: ChoiceItem, kept: Sequence[bool], mask_string: str | None = None) -> str:
    """The prompt with some words of its task text gone.

    **Arguments:**

    - `item`: a question with `words`.
    - `kept`: for each word whether it stays.
    - `mask_string`: put in the place of each word that goes; by default words are deleted with the space before them.

    **Returns:** the prompt; exactly `item.prompt` if all words stay.
    """
    pieces: list[str] = []
    marks = iter(kept)
    done = 0
    for field in item.words:
        if not field:
            continue
        pieces.append(item.prompt[done : field[0][0]])
        before = None
        for start, end in field:
            word = item.prompt[start:end] if next(marks) else mask_string
            if word is not None:
                # The space before a word goes with it; the first that is left stands where the text began.
                pieces += [item.prompt[done:start] if before is not None else "", word]
                before = word
            done = end
    pieces.append(item.prompt[done:])
    return "".join(pieces)
