"""Zero-shot accuracy: of several continuations of a prompt, is the right one the most likely?

Legend: B sequences of a batch, T tokens, P positions whose next token is scored, V vocabulary, D residual width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from trueprune._support.errors import AuditError, ModelError
from trueprune._support.progress import track
from trueprune.audits.measurement import Measurement
from trueprune.models.load import LoadedModel
from trueprune.observe.activations import pad_right
from trueprune.texts.choices import ChoiceItem, check_tasks

INSTRUMENT = "accuracy"
BATCH_TOKENS = 1024


@dataclass(frozen=True)
class AccuracyOptions:
    """What the instrument `accuracy` asks.

    **Arguments:**

    - `tasks`: of `accuracy`: `facts` (in the package), `arc_easy`, `arc_challenge`, `openbookqa`, `commonsense_qa`,
        `sciq` (hub rows).
    - `items`: at most so many questions of each task; 0 for all.
    """

    tasks: tuple[str, ...] = ("facts",)
    items: int = 200

    def __post_init__(self):
        check_tasks(self.tasks)
        if self.items < 0:
            raise AuditError(f"--items {self.items} is below 0", "Use 0 for all, or a number")


@dataclass(frozen=True)
class Continuation:
    """A prompt with one of its options, as tokens.

    **Arguments:**

    - `context`: tokens before the option.
    - `tokens`: tokens of the option.
    """

    context: tuple[int, ...]
    tokens: tuple[int, ...]

    @property
    def read(self) -> tuple[int, ...]:
        """What the model must read to score the option: all but the last token."""
        return (*self.context, *self.tokens[:-1])


def measure_accuracy(loaded: LoadedModel, task: str, items: Sequence[ChoiceItem]) -> list[Measurement]:
    """Zero-shot accuracy on one task, from the log-likelihoods of the options.

    **Arguments:**

    - `loaded`: model and tokenizer.
    - `task`: the name of the task.
    - `items`: its questions.

    **Returns:** `accuracy/TASK`, by log-likelihood per byte of the option's text, and `accuracy/TASK/sum`, by the
    log-likelihood itself. An item is 1 or 0; where k options tie for the first place and the right one is among
    them, 1/k.

    **Raises:** `AuditError` for a question over the model's limit or a model that gives no finite likelihood.
    """
    sums = option_log_likelihoods(loaded, items, description=f"accuracy ({task})")
    per_byte = [scores / _bytes_of(item) for scores, item in zip(sums, items, strict=True)]
    return [
        _measurement(f"accuracy/{task}", items, per_byte, headline=True),
        _measurement(f"accuracy/{task}/sum", items, sums, headline=False),
    ]


def _bytes_of(item: ChoiceItem) -> np.ndarray:
    """UTF-8 bytes of each option's text, without the space before it."""
    return np.array([len(option.strip().encode()) for option in item.options], dtype=np.float64)


def _measurement(metric: str, items: Sequence[ChoiceItem], scores: list[np.ndarray], headline: bool) -> Measurement:
    values = np.array([credit(row, item.gold) for row, item in zip(scores, items, strict=True)])
    chance = float(np.mean([1 / len(item.options) for item in items]))
    return Measurement(
        INSTRUMENT,
        metric,
        [item.id for item in items],
        values,
        clusters=[item.cluster for item in items],
        headline=headline,
        details={"chance": chance},
    )


def credit(scores: np.ndarray, gold: int) -> float:
    """1 if the right option alone has the highest score, 1/k if it is one of k, else 0: no position is preferred."""
    best = scores == scores.max()
    return float(best[gold] / best.sum())


def option_log_likelihoods(
    loaded: LoadedModel,
    items: Sequence[ChoiceItem],
    *,
    batch_tokens: int = BATCH_TOKENS,
    description: str = "accuracy",
) -> list[np.ndarray]:
    """The log-likelihood of every option given its prompt, in nats.

    Sequences are batched by length and padded on the right, where causal attention keeps padding from being seen.
    What several options need is read once: options of a single token cost no more than their prompt.

    **Arguments:**

    - `loaded`: model and tokenizer.
    - `items`: the questions.
    - `batch_tokens`: tokens in a batch, padding included.
    - `description`: what the progress bar says.

    **Returns:** for each item an array with one sum of token log-probabilities an option.
    """
    asked = [encode_options(loaded, item) for item in items]
    sequences = longest_only(continuation.read for options in asked for continuation in options)
    scored: dict[tuple[int, ...], dict[tuple[int, int], float]] = {read: {} for read in sequences.values()}
    for options in asked:
        for continuation in options:
            scored[sequences[continuation.read]].update(dict.fromkeys(_wanted(continuation), 0.0))
    for batch in track(_batches(list(scored), batch_tokens), description):
        places = [(row, *place) for row, read in enumerate(batch) for place in scored[read]]
        values = _token_log_likelihoods(loaded, batch, places)
        for (row, position, token), value in zip(places, values, strict=True):
            scored[batch[row]][position, token] = value
    result = [np.array([sum(scored[sequences[c.read]][p] for p in _wanted(c)) for c in options]) for options in asked]
    if not all(np.isfinite(scores).all() for scores in result):
        raise AuditError("the model gives no finite likelihood", "Its weights or activations overflow; try float32")
    return result


def _wanted(continuation: Continuation) -> Iterator[tuple[int, int]]:
    """Which token is scored at which position of what is read."""
    first = len(continuation.context) - 1
    return ((first + offset, token) for offset, token in enumerate(continuation.tokens))


def encode_options(loaded: LoadedModel, item: ChoiceItem) -> list[Continuation]:
    """Prompt and option as tokens.

    Prompt and option are tokenized together. What the prompt alone and all of these have in common at the front is the
    context: where a tokenizer merges the prompt's end with an option's beginning, the merged token is scored, in all
    options from the same place on.

    **Raises:** `AuditError` if the model cannot hold the item.
    """
    alone = _encode(loaded, item.prompt)
    whole = [_encode(loaded, item.prompt + option) for option in item.options]
    shared = min(_common_prefix(alone, ids) for ids in whole)
    # An option that is a prefix of what the prompt becomes with another one still needs a token to be scored by.
    shared = min(shared, *(len(ids) - 1 for ids in whole))
    if shared < 1:
        raise AuditError(f"the item {item.id} leaves no token to condition on", "Give it a longer prompt")
    longest = max(map(len, whole)) - 1
    if loaded.max_length and longest > loaded.max_length:
        raise AuditError(
            f"the item {item.id} has {longest} tokens, over the model's limit of {loaded.max_length}",
            "Leave its task out of --tasks, or lower --items",
        )
    return [Continuation(tuple(ids[:shared]), tuple(ids[shared:])) for ids in whole]


def _encode(loaded: LoadedModel, text: str) -> list[int]:
    tokenizer: Any = loaded.tokenizer
    if tokenizer is None:
        raise ModelError(f"{loaded.source} has no tokenizer", "Save the tokenizer beside the model")
    ids = list(tokenizer(text, verbose=False)["input_ids"])
    # Some tokenizers end every text with a special token, which would come between prompt and option.
    special = set(tokenizer.all_special_ids)
    while ids and ids[-1] in special:
        ids.pop()
    return ids


def _common_prefix(a: list[int], b: list[int]) -> int:
    same = 0
    for left, right in zip(a, b, strict=False):
        if left != right:
            break
        same += 1
    return same


def longest_only(reads: Iterator[tuple[int, ...]]) -> dict[tuple[int, ...], tuple[int, ...]]:
    """For each sequence, a longest one that begins with it: a causal model that reads that one has read both."""
    holder: dict[tuple[int, ...], tuple[int, ...]] = {}
    last: tuple[int, ...] = ()
    # Backwards in dictionary order, a sequence comes right after those that begin with it.
    for read in sorted(set(reads), reverse=True):
        holder[read] = holder[last] if last[: len(read)] == read else read
        last = read
    return holder


def _batches(reads: list[tuple[int, ...]], batch_tokens: int) -> list[list[tuple[int, ...]]]:
    batches: list[list[tuple[int, ...]]] = []
    for read in sorted(reads, key=lambda ids: (len(ids), ids)):
        if batches and len(read) * (len(batches[-1]) + 1) <= batch_tokens:
            batches[-1].append(read)
        else:
            batches.append([read])
    return batches


@torch.no_grad()
def _token_log_likelihoods(
    loaded: LoadedModel, batch: list[tuple[int, ...]], places: list[tuple[int, int, int]]
) -> list[float]:
    """The log-probability of a token after a position of a row, for each `(row, position, token)`."""
    ids_BT, mask_BT = pad_right([list(read) for read in batch])
    mask = None if bool(mask_BT.all()) else mask_BT.to(loaded.device)
    rows_P, positions_P, tokens_P = torch.tensor(places).unbind(1)
    logits_PV = _logits_at(loaded.model, ids_BT.to(loaded.device), mask, rows_P, positions_P).float()
    tokens_P = tokens_P.to(logits_PV.device)
    chosen_P = logits_PV.gather(1, tokens_P[:, None])[:, 0] - logits_PV.logsumexp(1)
    return chosen_P.double().tolist()


def _logits_at(
    model: Any, ids_BT: Tensor, mask_BT: Tensor | None, rows_P: Tensor, positions_P: Tensor
) -> Float[Tensor, "P V"]:
    """Logits at some positions only: those of all positions may be the largest tensor of all."""
    with _head_reads_only(model, rows_P, positions_P) as taken:
        logits = model(ids_BT, attention_mask=mask_BT, use_cache=False).logits
    if taken:
        return logits[0]
    return logits[rows_P.to(logits.device), positions_P.to(logits.device)]


@contextmanager
def _head_reads_only(model: Any, rows_P: Tensor, positions_P: Tensor) -> Iterator[list[bool]]:
    """While active, the head is given the residual stream at the wanted positions as one sequence, `(1, P, D)`.

    What the model does to its logits afterwards (scaling, capping) acts on each position alone, and so stays as it is.
    """
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    taken: list[bool] = []

    def gather(_module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden_BTD, *rest = args
        taken.append(True)
        return (hidden_BTD[rows_P.to(hidden_BTD.device), positions_P.to(hidden_BTD.device)][None], *rest)

    handle = head.register_forward_pre_hook(gather) if head is not None else None
    try:
        yield taken
    finally:
        if handle is not None:
            handle.remove()
