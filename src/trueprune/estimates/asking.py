"""What audits ask: the items of the real options, counted in tokens without a tokenizer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

import numpy as np

from trueprune._support.errors import AuditError
from trueprune.audits.context import AuditOptions, limit_datasets, perplexity_text
from trueprune.audits.faithfulness.attributions.registry import attribute
from trueprune.audits.faithfulness.explain import ExplanationOptions
from trueprune.audits.faithfulness.naopc import measure_naopc
from trueprune.audits.faithfulness.removal import bin_sizes, measure_removal, order_words
from trueprune.audits.protocols import grouped_splits, leave_one_topic_out, transfer_splits
from trueprune.estimates.reading import Asked, Reading, continuations, count_tokens
from trueprune.estimates.work import Number
from trueprune.observe.continuations import BATCH_TOKENS, LEAST_PREFIX
from trueprune.texts.collections import load_statements
from trueprune.texts.qa import QaOptions, asked
from trueprune.texts.qa.contract import AskedQuestion
from trueprune.texts.selection import select
from trueprune.texts.statements import StatementSet
from trueprune.texts.tasks import ChoiceItem, questions
from trueprune.texts.tasks.pools import own_tasks
from trueprune.texts.tasks.questions import TaskOptions


def audited_statements(options: AuditOptions) -> StatementSet:
    """The statements of lie detection and separation, as an audit chooses them."""
    chosen = select(load_statements(options.statements), "audit", options.selection)
    if "transfer" not in options.protocols:
        chosen = chosen.where(lambda row: row.is_probing)
    return limit_datasets(chosen, options.per_dataset)


def training_rows(statements: StatementSet, options: AuditOptions) -> list[int]:
    """On how many statements each split trains its probes."""
    found = []
    if "grouped" in options.protocols:
        found += grouped_splits(statements, options.repeats, seed=options.seed, balance=options.balance)
    if "leave-one-topic-out" in options.protocols:
        found += leave_one_topic_out(statements, balance=options.balance, seed=options.seed)
    if "transfer" in options.protocols:
        found += transfer_splits(statements, balance=options.balance, seed=options.seed)
    return [len(split.train) for split in found]


def perplexity_windows(options: AuditOptions) -> int:
    """Windows of the perplexity.

    A text of the hub is not fetched for an estimate: it is taken to be as long as `--max-tokens` allows.

    **Raises:** `AuditError` if nothing says how long it is.
    """
    if options.text == "embedded" or Path(options.text).exists():
        tokens = count_tokens(perplexity_text(options.text))
        tokens = min(tokens, options.max_tokens or tokens)
    elif options.max_tokens:
        tokens = options.max_tokens
    else:
        raise AuditError(f"how long the text {options.text} is stands nowhere", "Give --max-tokens")
    stride = options.stride or options.window
    return max(1, (tokens - options.window) // stride + 1)


def choice_reading(options: TaskOptions) -> tuple[Reading, int]:
    """What accuracy and calibration read: prompts and options of every task of ours; and how many items."""
    found, items = Reading(), 0
    for name in own_tasks(options.tasks):
        rows = questions(name, options.items, options)
        items += len(rows)
        asks = [_asked(row.prompt, row.options) for row in rows]
        asks += [_asked(premise, row.options) for row in rows for premise in row.premises]
        found += continuations(asks, _shared([row.prompt for row in rows]), BATCH_TOKENS)
    return found, items


def _asked(prompt: str, options: Sequence[str]) -> Asked:
    return Asked(max(1, count_tokens(prompt)), tuple(max(1, count_tokens(option)) for option in options))


def _shared(prompts: Sequence[str]) -> int:
    """Tokens that all prompts begin with; too few are read again each time."""
    if len(prompts) < 2:
        return 0
    ends = zip(min(prompts), max(prompts), strict=False)
    shared = count_tokens("".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], ends)))
    return shared if shared >= LEAST_PREFIX else 0


def asked_questions(options: QaOptions) -> dict[str, list[AskedQuestion]]:
    """The questions of each set."""
    return {name: asked(name, options.qa_items, options) for name in options.qa}


def answer_choices(found: dict[str, list[AskedQuestion]]) -> tuple[Reading, int]:
    """What truthfulness reads: each question with wrong answers, and all of its answers."""
    reading, items = Reading(), 0
    for rows in found.values():
        wrong = [one for one in rows if one.question.wrong]
        items += len(wrong)
        asks = [
            _asked(one.prompt, [f" {text}" for text in dict.fromkeys((*one.question.right, *one.question.wrong))])
            for one in wrong
        ]
        reading += continuations(asks, _shared([one.prompt for one in wrong]), BATCH_TOKENS)
    return reading, items


class Pretended:
    """A model that was never built: it counts the texts that explanations ask it for, each once.

    **Arguments:**

    - `n_words`: words of the text.
    """

    def __init__(self, n_words: int):
        self.n_words = n_words
        self.calls: list[np.ndarray] = []
        self.gradients = 0
        self._known: set[bytes] = set()
        self(np.ones((1, n_words), dtype=bool))

    def __call__(self, masks_SD: np.ndarray) -> np.ndarray:
        """Probabilities that mean nothing; notes how many words the new masks keep."""
        new = {mask.tobytes(): mask for mask in masks_SD}
        kept = [int(mask.sum()) for key, mask in new.items() if key not in self._known]
        self._known.update(new)
        if kept:
            self.calls.append(np.array(kept))
        weights = np.linspace(1, 2, self.n_words)
        return masks_SD @ weights / weights.sum()

    def word_gradients(self, scales_S: Sequence[Number]) -> np.ndarray:
        """Gradients that mean nothing; notes how many were asked for."""
        self.gradients += len(scales_S)
        return np.ones((len(scales_S), self.n_words))


def ask_explanations(n_words: int, options: ExplanationOptions) -> Pretended:
    """Explain a text of so many words and measure it, as `faithfulness.explain` does, on a model that only counts."""
    value = Pretended(n_words)
    scores = [
        attribute(name, value, n_words, samples=options.samples, seed=options.explanation_seed)
        for name in options.attributions
    ]
    orders = np.stack([order_words(one, seed=i, absolute=options.absolute) for i, one in enumerate(scores)])
    measure_removal(value, orders, bin_sizes(n_words, options.bins))
    if n_words <= options.naopc_words:
        measure_naopc(value, orders)
    return value


def explanation_reading(answering: TaskOptions, options: ExplanationOptions) -> tuple[Reading, Reading, Number, int]:
    """What faithfulness reads: masked texts; then texts read with gradients or soft embeddings; how many masks, items.

    One item stands for all of a task that have as many words.
    """
    masked, soft, masks, items = Reading(), Reading(), 0.0, 0
    for name in own_tasks(answering.tasks):
        rows = questions(name, answering.items, answering)
        rows = rows[: options.explained] if options.explained else rows
        items += len(rows)
        for n_words, count in Counter(row.n_words for row in rows).items():
            if not n_words:
                raise AuditError(f"an item of {name} has no words to explain", "Explain tasks whose text has words")
            alike = [row for row in rows if row.n_words == n_words]
            one = _typical(alike)
            value = ask_explanations(n_words, options)
            masks += count * sum(map(len, value.calls))
            for kept in value.calls:
                masked += _masked_reading(one, kept, options) * count
            draws = 2 * options.soft_draws * len(options.attributions)
            soft += _whole_reading(one) * (count * (value.gradients + draws))
    return masked, soft, masks, items


def _typical(rows: Sequence[ChoiceItem]) -> ChoiceItem:
    """The item whose prompt is of middle length."""
    return sorted(rows, key=lambda row: len(row.prompt))[len(rows) // 2]


def _masked_reading(item: ChoiceItem, kept: np.ndarray, options: ExplanationOptions) -> Reading:
    prompt = count_tokens(item.prompt)
    a_word = sum(map(count_tokens, item.word_texts())) / item.n_words
    lost = {"delete": a_word, "mask": a_word - count_tokens(options.mask_string), "attention": 0.0}[options.operator]
    first = min(field[0][0] for field in item.words if field)
    continued = tuple(max(1, count_tokens(option)) for option in item.options)
    asks = [Asked(max(1, round(prompt - lost * (item.n_words - n))), continued) for n in kept]
    before = count_tokens(item.prompt[:first])
    return continuations(asks, before if before >= LEAST_PREFIX and len(asks) > 1 else 0, BATCH_TOKENS)


def _whole_reading(item: ChoiceItem) -> Reading:
    """All options after the whole prompt, in one forward: what a draw of soft embeddings or a gradient takes."""
    prompt, count = count_tokens(item.prompt), len(item.options)
    longest = max(count_tokens(option) for option in item.options)
    return Reading(count * (prompt + longest - 1), count * (prompt + longest) ** 2, 1, count * longest)
