"""What a model goes on with: greedy continuations of many prompts, batched by length, what they share read once.

Legend: B rows of a batch, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from trueprune._support.progress import track
from trueprune.observe.activations import pad_right
from trueprune.observe.continuations import LEAST_PREFIX, common_prefix
from trueprune.observe.prefix import Past, can_bridge, can_share, read_on

# Each step reads all weights for one token a row: more rows than scoring takes pay.
BATCH_TOKENS = 4096
# A token that a row only holds weighs this much less than one that it reads or writes.
HELD = 4
Prompt = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Generated:
    """What a model went on with.

    **Arguments:**

    - `tokens`: those after the prompt, with the one that ended them.
    - `log_probs`: the log-probability of each, in nats.
    """

    tokens: tuple[int, ...]
    log_probs: Float[np.ndarray, " tokens"]


@torch.no_grad()
def greedy(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    end_ids: frozenset[int] = frozenset(),
    stops: Callable[[list[int]], bool] | None = None,
    new_tokens: int = 32,
    batch_tokens: int = BATCH_TOKENS,
    description: str | None = None,
) -> list[Generated]:
    """Go on with each prompt by the likeliest token, again and again; the first of several that tie.

    What all prompts begin with is read once. Prompts are batched by similar length where the model bears padding
    between them and what follows (`can_bridge`), else by equal length; a row that has ended leaves its batch. A model
    whose cache cannot be gone on from reads each text anew at every token.

    **Arguments:**

    - `model`: a causal language model.
    - `prompts`: token ids, at least one each; the same prompt twice is gone on with once.
    - `end_ids`: tokens that end a text.
    - `stops`: given the new tokens of a text, whether it ends there.
    - `new_tokens`: at most so many.
    - `batch_tokens`: tokens in a batch, padding and new ones included.
    - `description`: what the progress bar says; none without.

    **Returns:** for each prompt what follows.

    **Raises:** `ValueError` for a prompt without tokens, or no new ones.
    """
    if new_tokens < 1 or not all(len(prompt) for prompt in prompts):
        raise ValueError("there is nothing to go on from, or no token to go on with")
    texts = [tuple(prompt) for prompt in prompts]
    distinct = sorted(set(texts), key=lambda text: (len(text), text))
    run = _Run(model, end_ids, stops, new_tokens, batch_tokens)
    found = run.sharing(distinct) if can_share(model) else run.whole(distinct)
    done = dict(track(found, description, total=len(distinct)))
    return [done[text] for text in texts]


@dataclass(frozen=True, eq=False)
class _Run:
    """One call of `greedy`, by either way; prompts come by ascending length."""

    model: Any
    end_ids: frozenset[int]
    stops: Callable[[list[int]], bool] | None
    new_tokens: int
    batch_tokens: int

    def whole(self, prompts: list[Prompt]) -> Iterator[tuple[Prompt, Generated]]:
        for batch in self._batches(prompts, 0):
            rows = _Rows(self, batch)
            while rows.going:
                ids_BT, real_BT = _padded(rows.texts)
                logits_BV, _ = read_on(self.model, ids_BT, (torch.arange(len(ids_BT)), real_BT.sum(1) - 1))
                rows.write(logits_BV)
                yield from rows.ended

    def sharing(self, prompts: list[Prompt]) -> Iterator[tuple[Prompt, Generated]]:
        prefix = _shared(prompts)
        past = None
        if prefix:
            ids_1T = torch.tensor([prompts[0][:prefix]])
            _, past = read_on(self.model, ids_1T, (torch.tensor([0]), torch.tensor([prefix - 1])), keep=True)
        longest = max(map(len, prompts), default=0)
        # A short prompt is padded to a long one, and then come the new tokens.
        bridges = can_bridge(self.model, longest + self.new_tokens)
        for _, alike in groupby(prompts, key=lambda prompt: 0 if bridges else len(prompt)):
            for batch in self._batches(list(alike), prefix):
                yield from self._batch(batch, prefix, past)

    def _batch(self, batch: list[Prompt], prefix: int, past: Past | None) -> Iterator[tuple[Prompt, Generated]]:
        rows = _Rows(self, batch)
        ids_BT, real_BT = _padded([prompt[prefix:] for prompt in batch])
        start_B, last_B = torch.zeros(len(batch), dtype=torch.long), real_BT.sum(1) - 1
        want = (torch.arange(len(batch)), last_B)
        logits_BV, past = read_on(
            self.model, ids_BT, want, past=past, rows_B=start_B, real_BT=real_BT, keep=self.new_tokens > 1
        )
        while True:
            going_B = rows.write(logits_BV)
            yield from rows.ended
            if not rows.going or past is None:
                return
            # One token a row, so none is padding: how long padded rows really are is counted on here.
            real_B = None if past.real_B is None else past.real_B[going_B] + 1
            own = _Own(past.cache, past.length, past.seen_BT, past.real_B, rows=len(logits_BV))
            want = (torch.arange(len(going_B)), torch.zeros_like(going_B))
            logits_BV, past = read_on(self.model, rows.last_B1, want, past=own, rows_B=going_B, keep=True)
            past = past and replace(past, real_B=real_B)

    def _batches(self, prompts: list[Prompt], prefix: int) -> Iterator[list[Prompt]]:
        batch: list[Prompt] = []
        for prompt in prompts:
            # Each row holds a copy of the prefix, and looks at it at every step.
            size = len(prompt) - prefix + self.new_tokens + prefix // HELD
            if batch and size * (len(batch) + 1) > self.batch_tokens:
                yield batch
                batch = []
            batch.append(prompt)
        if batch:
            yield batch


@dataclass(frozen=True, eq=False)
class _Own(Past):
    """A past that nothing else goes on from: its cache need not be copied at each step.

    **Arguments:**

    - `rows`: how many it has.
    """

    rows: int = 0

    def of_rows(self, rows_B: Tensor) -> Any:
        """The cache itself, without the rows that have ended."""
        if len(rows_B) < self.rows:
            self.cache.batch_select_indices(rows_B.cpu())
        return self.cache


@dataclass(eq=False)
class _Rows:
    """The rows of a batch while they are written."""

    run: _Run
    prompts: list[Prompt]
    going: list[int] = field(init=False)
    ended: list[tuple[Prompt, Generated]] = field(init=False, default_factory=list)
    new: list[list[int]] = field(init=False)
    log_probs: list[list[float]] = field(init=False)

    def __post_init__(self):
        self.going = list(range(len(self.prompts)))
        self.new = [[] for _ in self.prompts]
        self.log_probs = [[] for _ in self.prompts]

    @property
    def texts(self) -> list[Prompt]:
        """Prompt and new tokens of the rows that go on."""
        return [(*self.prompts[row], *self.new[row]) for row in self.going]

    @property
    def last_B1(self) -> Int[Tensor, "B 1"]:
        """The newest token of the rows that go on."""
        return torch.tensor([[self.new[row][-1]] for row in self.going])

    def write(self, logits_BV: Float[Tensor, "B V"]) -> Int[Tensor, " B2"]:
        """Add the likeliest token to each row that goes on; `ended` are then those for which it was the last.

        **Returns:** which of the rows of `logits_BV` still go on.
        """
        logits_BV = logits_BV.float()
        best_B, token_B = logits_BV.max(1)
        log_prob_B = (best_B - logits_BV.logsumexp(1)).double()
        ended, kept = [], []
        for place, (row, token, log_prob) in enumerate(
            zip(self.going, token_B.tolist(), log_prob_B.tolist(), strict=True)
        ):
            self.new[row].append(token)
            self.log_probs[row].append(log_prob)
            if self._ends(self.new[row]):
                ended.append((self.prompts[row], Generated(tuple(self.new[row]), np.array(self.log_probs[row]))))
            else:
                kept.append(place)
        self.ended = ended
        self.going = [self.going[place] for place in kept]
        return torch.tensor(kept, dtype=torch.long)

    def _ends(self, new: list[int]) -> bool:
        if len(new) >= self.run.new_tokens or new[-1] in self.run.end_ids:
            return True
        return self.run.stops is not None and self.run.stops(new)


def _shared(prompts: Sequence[Prompt]) -> int:
    """Tokens that all prompts begin with, if it pays to read them once; at least one token is left to each."""
    if len(prompts) < 2:
        return 0
    shared = min(common_prefix(min(prompts), max(prompts)), min(map(len, prompts)) - 1)
    return shared if shared >= LEAST_PREFIX else 0


def _padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """`pad_right` with a token of the text as padding: some models warn of padding tokens that no mask hides."""
    ids_BT, real_BT = pad_right([list(row) for row in rows])
    ids_BT[~real_BT] = rows[0][0]
    return ids_BT, real_BT
