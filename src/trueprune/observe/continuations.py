"""How likely a model finds continuations of a text: batched by length, with what they share read once.

Legend: K temperatures, P scored positions, V vocabulary, B rows of a batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from trueprune._support.progress import track
from trueprune.observe.activations import pad_right
from trueprune.observe.prefix import Past, can_bridge, can_share, read_on

BATCH_TOKENS = 1024
# A shared beginning shorter than this is not worth a forward of its own.
LEAST_PREFIX = 8
# A cached token weighs this much less than one that is read.
COPIED = 16
# Of a batch that is full, no more than this part is padding: then a further forward costs less.
PADDING = 1 / 16
Scores = list[list[np.ndarray]]
X = TypeVar("X")


@dataclass(frozen=True)
class Ask:
    """A text with what may follow it, as tokens.

    **Arguments:**

    - `stem`: tokens before the continuations; at least one.
    - `continuations`: the tokens of each; at least one each.
    - `hidden`: positions of the stem that no other token attends to.
    """

    stem: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]
    hidden: frozenset[int] = frozenset()

    @property
    def single(self) -> bool:
        """Whether reading the stem is enough."""
        return all(len(tokens) == 1 for tokens in self.continuations)


@torch.no_grad()
def log_likelihoods(
    model: Any,
    asks: Sequence[Ask],
    *,
    batch_tokens: int = BATCH_TOKENS,
    temperatures: Sequence[float] = (1.0,),
    description: str | None = None,
) -> Scores:
    """The log-probability of every token of every continuation, in nats.

    What all stems begin with is read once, and a stem once for all its continuations. Stems that are gone on from are
    batched by similar length where the model bears padding between them and what follows (`can_bridge`), else by equal
    length. A model whose cache cannot be gone on from reads each continuation with its stem.

    **Arguments:**

    - `model`: a causal language model.
    - `asks`: what is asked; the same ask twice is answered once.
    - `batch_tokens`: tokens in a batch, padding included.
    - `temperatures`: T by which logits are divided first.
    - `description`: what the progress bar says; none without.

    **Returns:** for each ask and continuation an array of shape `(K, tokens)`.
    """
    run = _Run(model, batch_tokens, tuple(temperatures), description)
    distinct = list(dict.fromkeys(asks))
    found = run.sharing(distinct) if can_share(model) else run.whole(distinct)
    answers = dict(zip(distinct, found, strict=True))
    return [answers[ask] for ask in asks]


@dataclass(frozen=True, eq=False)
class _Run:
    """One call of `log_likelihoods`, by either way."""

    model: Any
    batch_tokens: int
    temperatures: tuple[float, ...]
    description: str | None

    def whole(self, asks: list[Ask]) -> Scores:
        """Every continuation after its whole stem; what is the same is read once."""
        reads: dict[tuple[tuple[int, ...], frozenset[int]], list[tuple[int, int]]] = {}
        for i, ask in enumerate(asks):
            for place, tokens in enumerate(ask.continuations):
                reads.setdefault(((*ask.stem, *tokens[:-1]), ask.hidden), []).append((i, place))
        answers: list[list[Any]] = [[None] * len(ask.continuations) for ask in asks]
        order = sorted(reads, key=lambda read: (len(read[0]), read[0]))
        for batch in track(list(_chunks(order, lambda read: len(read[0]), self.batch_tokens)), self.description):
            ids_BT, real_BT = _padded([list(ids) for ids, _ in batch])
            wanted = [(row, i, place) for row, read in enumerate(batch) for i, place in reads[read]]
            places, tokens = [], []
            for row, i, place in wanted:
                start = len(asks[i].stem) - 1
                places += [(row, start + offset) for offset in range(len(asks[i].continuations[place]))]
                tokens += asks[i].continuations[place]
            rows_P, positions_P = torch.tensor(places).unbind(1)
            seen_BT = _seen([hidden for _, hidden in batch], 0, real_BT)
            logits_PV, _ = read_on(self.model, ids_BT, (rows_P, positions_P), seen_BT=seen_BT)
            values = iter(self._chosen(logits_PV, list(enumerate(tokens))))
            for _, i, place in wanted:
                answers[i][place] = np.stack([next(values) for _ in asks[i].continuations[place]], axis=1)
        return answers

    def sharing(self, asks: list[Ask]) -> Scores:
        """What all stems begin with once, then every stem once, then the continuations."""
        answers: list[Any] = [None] * len(asks)
        prefix = _shared(asks)
        past = self._read_prefix(asks[0].stem[:prefix]) if prefix else None
        # A short stem is padded to a long one, and then comes what follows the short one.
        longest = max((len(ask.stem) for ask in asks), default=0)
        places = longest + max((len(tokens) for ask in asks for tokens in ask.continuations), default=0)
        bridges = not all(ask.single for ask in asks) and can_bridge(self.model, places)
        for batch in track(list(self._batches(asks, prefix, bridges)), self.description):
            for i, found in zip(batch, self._batch([asks[i] for i in batch], prefix, past), strict=True):
                answers[i] = found
        return answers

    def _batches(self, asks: list[Ask], prefix: int, bridges: bool) -> Iterator[list[int]]:
        """Indices of asks by similar length; those that are gone on from by equal length, if they must be."""

        def kind(i: int) -> tuple[bool, int]:
            return asks[i].single, 0 if asks[i].single or bridges else len(asks[i].stem)

        # Each row holds a copy of the prefix: a long one allows fewer rows.
        least = prefix // COPIED
        order = sorted(range(len(asks)), key=lambda i: (kind(i), len(asks[i].stem), asks[i].stem))
        for _, alike in groupby(order, key=kind):
            yield from _chunks(alike, lambda i: max(len(asks[i].stem) - prefix, least), self.batch_tokens)

    def _read_prefix(self, tokens: tuple[int, ...]) -> Past | None:
        last = (torch.tensor([0]), torch.tensor([len(tokens) - 1]))
        return read_on(self.model, torch.tensor([tokens]), last, keep=True)[1]

    def _batch(self, asks: list[Ask], prefix: int, past: Past | None) -> Scores:
        ids_BT, real_BT = _padded([list(ask.stem[prefix:]) for ask in asks])
        rows_B = torch.arange(len(asks))
        longer = not asks[0].single
        first_BV, stems = read_on(
            self.model,
            ids_BT,
            (rows_B, real_BT.sum(1) - 1),
            past=past,
            rows_B=torch.zeros_like(rows_B),
            seen_BT=_seen([ask.hidden for ask in asks], prefix, real_BT),
            real_BT=real_BT if longer else None,
            keep=longer,
        )
        wanted = [(row, tokens[0]) for row, ask in enumerate(asks) for tokens in ask.continuations]
        firsts = iter(self._chosen(first_BV, wanted))
        found = [[next(firsts)[:, None] for _ in ask.continuations] for ask in asks]
        if stems is not None:
            self._go_on(asks, stems, found)
        return found

    def _go_on(self, asks: list[Ask], stems: Past, found: Scores) -> None:
        """The tokens after the first, of the continuations that have some."""

        def tokens_of(place: tuple[int, int]) -> tuple[int, ...]:
            return asks[place[0]].continuations[place[1]]

        places = [(row, n) for row, ask in enumerate(asks) for n, one in enumerate(ask.continuations) if len(one) > 1]
        places.sort(key=lambda place: len(tokens_of(place)))
        least = stems.length // COPIED
        for batch in _chunks(places, lambda place: max(len(tokens_of(place)), least), self.batch_tokens):
            ids_BT, real_BT = _padded([list(tokens_of(place)[:-1]) for place in batch])
            rows_P, positions_P = real_BT.nonzero().unbind(1)
            rows_B = torch.tensor([row for row, _ in batch])
            logits_PV, _ = read_on(self.model, ids_BT, (rows_P, positions_P), past=stems, rows_B=rows_B)
            following = [token for place in batch for token in tokens_of(place)[1:]]
            values = iter(self._chosen(logits_PV, list(enumerate(following))))
            for row, n in batch:
                rest = np.stack([next(values) for _ in tokens_of((row, n))[1:]], axis=1)
                found[row][n] = np.concatenate([found[row][n], rest], axis=1)

    def _chosen(self, logits_PV: Tensor, wanted: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """For each (row of logits, token) its log-probability at every temperature, of shape `(K,)`."""
        rows, tokens = (torch.tensor(column, device=logits_PV.device) for column in zip(*wanted, strict=True))
        logits_PV = logits_PV.float()
        columns = []
        for temperature in self.temperatures:
            scaled_PV = logits_PV if temperature == 1 else logits_PV / temperature
            columns.append((scaled_PV[rows, tokens] - scaled_PV.logsumexp(1)[rows]).double().cpu())
        return list(torch.stack(columns, dim=1).numpy())


def _shared(asks: Sequence[Ask]) -> int:
    """Tokens that all stems begin with, if it pays to read them once; at least one token is left to each stem."""
    if len(asks) < 2:
        return 0
    low, high = min(ask.stem for ask in asks), max(ask.stem for ask in asks)
    shared = min(common_prefix(low, high), min(len(ask.stem) for ask in asks) - 1)
    shared = min([shared, *(min(ask.hidden) for ask in asks if ask.hidden)])
    return shared if shared >= LEAST_PREFIX else 0


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two sequences have in common at the front."""
    same = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        same += 1
    return same


def _padded(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """`pad_right` with a token of the text as padding: some models warn of padding tokens that no mask hides."""
    ids_BT, real_BT = pad_right(rows)
    ids_BT[~real_BT] = rows[0][0]
    return ids_BT, real_BT


def _seen(hidden: Sequence[frozenset[int]], prefix: int, real_BT: Tensor) -> Tensor | None:
    """Which tokens may be attended to; `None` where all may (padding stands behind, where nothing looks back at it)."""
    if not any(hidden):
        return None
    seen_BT = real_BT.clone()
    for row, places in enumerate(hidden):
        for place in places:
            seen_BT[row, place - prefix] = False
    return seen_BT


def _chunks(items: Iterable[X], size: Callable[[X], int], limit: int) -> Iterator[list[X]]:
    """Lists of items whose number times the greatest size stays under a limit, and without much padding; items come by
    ascending size."""
    batch: list[X] = []
    real = 0
    for item in items:
        padded = size(item) * (len(batch) + 1)
        if batch and (padded > limit or padded - real - size(item) > PADDING * limit):
            yield batch
            batch, real = [], 0
        batch.append(item)
        real += size(item)
    if batch:
        yield batch
