"""How much text goes through a model: tokens, batches, pairs of positions; counted as the engine batches."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields

from trueprune.estimates.work import Number
from trueprune.observe.activations import length_batches

# Ours, for want of a tokenizer: a word of at most eight letters is a token (a longer one two, and so on), and so is a
# digit, a run of marks, a run of line breaks. On the texts of the package within 10 % of the demo model's tokenizer.
_PIECE = re.compile(r"[^\W\d]+|\d|[^\w\s]+|\n+")
LETTERS = 8


@dataclass(frozen=True)
class Reading:
    """Texts on their way through a model.

    **Arguments:**

    - `tokens`: read, padding included.
    - `pairs`: of a position and one that it looks at, masked or not, as the products are computed.
    - `forwards`: calls of the model (or of a block).
    - `positions`: whose logits are computed.
    - `copied`: tokens of a cache that are copied for rows to go on from.
    """

    tokens: Number = 0.0
    pairs: Number = 0.0
    forwards: Number = 0.0
    positions: Number = 0.0
    copied: Number = 0.0

    def __add__(self, other: Reading) -> Reading:
        return Reading(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __mul__(self, times: Number) -> Reading:
        return Reading(*(getattr(self, f.name) * times for f in fields(self)))

    @property
    def batch(self) -> Number:
        """Tokens of a forward, on average."""
        return self.tokens / self.forwards if self.forwards else 0.0


def count_tokens(text: str) -> int:
    """About how many tokens a text has."""
    return sum(1 + (len(piece) - 1) // LETTERS for piece in _PIECE.findall(text))


def sequences(count: int, length: int, batch_tokens: int) -> Reading:
    """Sequences of one length, as many at once as fit into a batch, at least one."""
    rows = max(1, batch_tokens // length)
    return Reading(count * length, count * length**2, math.ceil(count / rows))


def texts(lengths: Sequence[int], batch_tokens: int) -> Reading:
    """Texts of different lengths, batched and padded as statements are.

    **Arguments:**

    - `lengths`: tokens of each.
    - `batch_tokens`: tokens in a batch, padding included.
    """
    found = Reading()
    for rows in length_batches(list(lengths), batch_tokens):
        width = max(lengths[row] for row in rows)
        found += Reading(len(rows) * width, len(rows) * width**2, 1)
    return found


@dataclass(frozen=True)
class Asked:
    """A question to be scored: the tokens of its prompt, and those of each option."""

    prompt: int
    options: tuple[int, ...]


def continuations(asks: Sequence[Asked], shared: int, batch_tokens: int) -> Reading:
    """Prompts once, what they all begin with once for all, and then the options that have more than one token.

    **Arguments:**

    - `asks`: the questions.
    - `shared`: tokens that all prompts begin with.
    - `batch_tokens`: tokens in a batch, padding included.
    """
    if not asks:
        return Reading()
    shared = min(shared, *(ask.prompt - 1 for ask in asks))
    found = Reading(shared, shared**2, 1) if shared > 0 else Reading()
    stems = [max(1, ask.prompt - shared) for ask in asks]
    for rows in length_batches(stems, batch_tokens):
        width = max(stems[row] for row in rows)
        found += Reading(len(rows) * width, len(rows) * width * (width + shared), 1, len(rows), len(rows) * shared)
    more = [(tokens - 1, ask.prompt) for ask in asks for tokens in ask.options if tokens > 1]
    lengths = [tokens for tokens, _ in more]
    for rows in length_batches(lengths, batch_tokens):
        width = max(lengths[row] for row in rows)
        before = sum(more[row][1] for row in rows)
        read = len(rows) * width
        positions = sum(lengths[row] for row in rows)
        found += Reading(read, width * before + read * width, 1, positions, before)
    return found
