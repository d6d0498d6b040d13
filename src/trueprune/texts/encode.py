"""Texts as tokens, for what goes on after them: no token that some tokenizers end every text with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trueprune._support.errors import ModelError
from trueprune.models.load import LoadedModel


def encode_texts(loaded: LoadedModel, texts: Sequence[str], special: bool = True) -> list[list[int]]:
    """Texts as tokens, without the token that some tokenizers end every text with.

    **Arguments:**

    - `loaded`: model and tokenizer.
    - `texts`: the texts.
    - `special`: whether the tokenizer adds its special tokens.

    **Raises:** `ModelError` without a tokenizer.
    """
    tokenizer: Any = loaded.tokenizer
    if tokenizer is None:
        raise ModelError(f"{loaded.source} has no tokenizer", "Save the tokenizer beside the model")
    ends = _appended(tokenizer) if special else 0
    encoded = [list(tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]) for text in texts]
    return [ids[: len(ids) - ends] for ids in encoded]


def _appended(tokenizer: Any) -> int:
    """How many tokens a tokenizer puts after every text."""
    plain, given = (
        list(tokenizer("a", add_special_tokens=added, verbose=False)["input_ids"]) for added in (False, True)
    )
    for after in range(len(given) - len(plain) + 1):
        if given[len(given) - after - len(plain) : len(given) - after] == plain:
            return after
    return 0
