"""From questions to predictions: every option scored, what prompts share read once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import numpy as np

from trueprune._support.errors import AuditError
from trueprune.audits.predictions import Predictions, filled
from trueprune.models.load import LoadedModel
from trueprune.observe.continuations import BATCH_TOKENS, Ask, common_prefix, log_likelihoods
from trueprune.texts.encode import encode_texts
from trueprune.texts.tasks import ChoiceItem


def predict(
    loaded: LoadedModel,
    items: Sequence[ChoiceItem],
    *,
    task: str = "task",
    scoring: str = "sum",
    labels: bool = False,
    batch_tokens: int = BATCH_TOKENS,
) -> Predictions:
    """Score the options of every question.

    **Arguments:**

    - `loaded`: model and tokenizer.
    - `items`: the questions.
    - `task`: their name.
    - `scoring`: an option's score is the `sum` of its tokens' log-probabilities, their `mean`, or that of its `first`
        token.
    - `labels`: the options are the same words in every item.
    - `batch_tokens`: tokens in a batch, padding included.

    **Returns:** `Predictions`, one row a question.

    **Raises:** `AuditError` for no questions, one over the model's limit, options that begin with the same token under
    `first`, or a model whose likelihoods are not finite.
    """
    return predict_at(loaded, items, (1.0,), task=task, scoring=scoring, labels=labels, batch_tokens=batch_tokens)[0]


def predict_at(
    loaded: LoadedModel,
    items: Sequence[ChoiceItem],
    temperatures: Sequence[float],
    *,
    task: str = "task",
    scoring: str = "sum",
    labels: bool = False,
    batch_tokens: int = BATCH_TOKENS,
) -> list[Predictions]:
    """What the model would answer with its logits divided by each of some temperatures, from one pass.

    The score of an option of several tokens is not linear in 1/T: each token's distribution is normalised anew.

    **Arguments:**

    - `temperatures`: the values of T.
    - the rest, and **Raises:**, as `predict`.

    **Returns:** `Predictions`, one a temperature.
    """
    if not items:
        raise AuditError(f"the task {task} has no questions", "Give some")
    asks = [encode_options(loaded, item) for item in items]
    if scoring == "first":
        for item, ask in zip(items, asks, strict=True):
            refuse_same_first(item, ask)
    premises = [[encode_options(loaded, item, premise) for premise in item.premises] for item in items]
    flat = [ask for row in premises for ask in row]
    found = log_likelihoods(
        loaded.model,
        [*asks, *flat],
        batch_tokens=batch_tokens,
        temperatures=temperatures,
        description=f"answers ({task})",
    )
    answers = found[: len(asks)]
    own = [item for item, row in zip(items, premises, strict=True) for _ in row]
    for item, arrays in zip([*items, *own], found, strict=True):
        if not all(np.isfinite(array).all() for array in arrays):
            raise AuditError(
                f"the model gives no finite likelihood (item {item.id} of {task})",
                "Its weights or activations overflow; try --dtype float32",
            )
    shared: dict[str, Any] = {
        "task": task,
        "item_ids": tuple(item.id for item in items),
        "clusters": tuple(item.cluster for item in items),
        "sha256": tuple(item.sha256 for item in items),
        "gold_N": np.array([item.gold for item in items], dtype=np.int64),
        "tokens_NC": filled([[array.shape[1] for array in arrays] for arrays in answers], 0).astype(np.int64),
        "bytes_NC": filled([[_bytes(option) for option in item.options] for item in items], 0).astype(np.int64),
        "scoring": scoring,
        "labels": labels,
    }
    tables = []
    for k in range(len(temperatures)):
        rest = iter(found[len(asks) :])
        priors = [
            _prior([next(rest) for _ in row], len(i.options), scoring, k)
            for row, i in zip(premises, items, strict=True)
        ]
        tables.append(
            Predictions(
                scores_NC=filled([_sums(arrays, k) for arrays in answers], -np.inf),
                first_NC=filled([[float(array[k, 0]) for array in arrays] for arrays in answers], -np.inf),
                prior_NC=filled(priors, 0.0),
                mass_N=np.array(
                    [_mass(ask, arrays, k) for ask, arrays in zip(asks, answers, strict=True)], dtype=np.float64
                ),
                **shared,
            )
        )
    return tables


def _sums(arrays: Sequence[np.ndarray], k: int) -> list[float]:
    return [float(array[k].sum()) for array in arrays]


def _bytes(option: str) -> int:
    """UTF-8 bytes of an option's text, without the space before it."""
    return len(option.strip().encode())


def _prior(premises: Sequence[Sequence[np.ndarray]], options: int, scoring: str, k: int) -> list[float]:
    if not premises:
        return [0.0] * options
    rows = [[float(a[k, 0]) for a in arrays] if scoring == "first" else _sums(arrays, k) for arrays in premises]
    return np.mean(rows, axis=0).tolist()


def _mass(ask: Ask, arrays: Sequence[np.ndarray], k: int) -> float:
    """What the model gives to the options' first tokens, each counted once."""
    firsts = {tokens[0]: float(array[k, 0]) for tokens, array in zip(ask.continuations, arrays, strict=True)}
    return float(np.exp(list(firsts.values())).sum())


def refuse_same_first(item: ChoiceItem, ask: Ask) -> None:
    """Refuse options that begin with the same token: their first tokens cannot tell them apart.

    **Raises:** `AuditError` that names the two.
    """
    seen: dict[int, str] = {}
    for option, tokens in zip(item.options, ask.continuations, strict=True):
        if (twin := seen.setdefault(tokens[0], option)) != option:
            raise AuditError(
                f"the options {twin.strip()!r} and {option.strip()!r} of the item {item.id} begin with the same token",
                "Use --scoring sum or mean, or --answers letters",
            )


def encode_options(
    loaded: LoadedModel, item: ChoiceItem, prompt: str | None = None, *, start: int | None = None
) -> Ask:
    """Prompt and options as tokens.

    Prompt and option are tokenized together. What the prompt alone and all of these have in common at the front is the
    stem: where a tokenizer merges the prompt's end with an option's beginning, the merged token is scored, in all
    options from the same place on.

    **Arguments:**

    - `loaded`: model and tokenizer.
    - `item`: the question.
    - `prompt`: another prompt before its options.
    - `start`: the token that stands in front where the prompt leaves none to condition on.

    **Raises:** `AuditError` if the model cannot hold the item.
    """
    prompt = item.prompt if prompt is None else prompt
    alone, *whole = encode_texts(loaded, [prompt, *(prompt + option for option in item.options)], item.special)
    if not alone and item.special:
        # Of an empty text only what stands before every text is left.
        specials = set(getattr(loaded.tokenizer, "all_special_ids", ()))
        alone = list(takewhile(specials.__contains__, whole[0]))
    shared = min(common_prefix(alone, ids) for ids in whole)
    # An option that is a prefix of what the prompt becomes with another one still needs a token to be scored by.
    shared = min(shared, *(len(ids) - 1 for ids in whole))
    if shared < 1:
        if start is None:
            raise AuditError(f"the item {item.id} leaves no token to condition on", "Give it a longer prompt")
        whole, shared = [[start, *ids] for ids in whole], 1
    check_length(loaded, max(map(len, whole)) - 1, item.id)
    return Ask(tuple(whole[0][:shared]), tuple(tuple(ids[shared:]) for ids in whole))


def check_length(loaded: LoadedModel, tokens: int, name: str) -> None:
    """Refuse what a model cannot hold.

    **Raises:** `AuditError` that names the item.
    """
    if loaded.max_length and tokens > loaded.max_length:
        raise AuditError(
            f"the item {name} has {tokens} tokens, over the model's limit of {loaded.max_length}",
            "Leave its task out of --tasks, or lower --items or --shots",
        )
