"""What a step of healing sees: windows of text and pairs of answers, the same for every way, seed and resumption.

Legend: B rows of a batch, T tokens.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from trueprune._support.errors import RepairError, TextError
from trueprune._support.hashing import hash_json
from trueprune.models.load import LoadedModel
from trueprune.observe.continuations import common_prefix
from trueprune.texts.calibration import CalibrationOptions, calibration_tokens
from trueprune.texts.encode import encode_texts
from trueprune.texts.qa.contract import JudgedAnswer
from trueprune.texts.tokens import TokenBatch

# No run of so many tokens is both trained on and held out.
RUN = 16
# Of the texts so many batches are held out; of the questions one in so many, but no more than so many batches.
HELD_BATCHES, HELD_SHARE = 2, 5


@dataclass(frozen=True)
class Row:
    """A sequence to be predicted from some token on.

    **Arguments:**

    - `ids`: its tokens.
    - `start`: the first token that counts, at least 1.
    """

    ids: tuple[int, ...]
    start: int = 1


@dataclass(frozen=True)
class Pair:
    """A right and a wrong answer after their question."""

    right: Row
    wrong: Row
    cluster: str


@dataclass(frozen=True)
class Batch:
    """What one step sees.

    **Arguments:**

    - `windows`: of text; may be empty.
    - `pairs`: of answers; may be empty.
    """

    windows: tuple[Row, ...] = ()
    pairs: tuple[Pair, ...] = ()


@dataclass(frozen=True, eq=False)
class HealingData:
    """All that is trained on, and what is set aside.

    **Arguments:**

    - `windows`, `pairs`: to train on.
    - `held_out`: batches to evaluate on; they share no run of 16 tokens with the windows, and no question.
    - `batch`, `pairs_a_step`: how many of each a step takes.
    - `seed`: of the order of the pairs.
    - `origin`: plain data about the texts.
    """

    windows: tuple[Row, ...]
    pairs: tuple[Pair, ...]
    held_out: tuple[Batch, ...]
    batch: int
    pairs_a_step: int
    seed: int = 0
    origin: Mapping[str, Any] | None = None

    @property
    def sha256(self) -> str:
        """Hash of all that is trained on or set aside."""
        return hash_json([asdict(batch) for batch in (Batch(self.windows, self.pairs), *self.held_out)])

    def step(self, number: int) -> Batch:
        """What step `number` sees, whatever came before it."""
        first = number * self.batch
        windows = tuple(self.windows[(first + i) % len(self.windows)] for i in range(self.batch))
        first = number * self.pairs_a_step
        pairs = tuple(self._pair(first + i) for i in range(self.pairs_a_step if self.pairs else 0))
        return Batch(windows, pairs)

    def _pair(self, place: int) -> Pair:
        epoch, index = divmod(place, len(self.pairs))
        order = list(range(len(self.pairs)))
        random.Random(f"{self.seed}/{epoch}").shuffle(order)
        return self.pairs[order[index]]


def healing_data(
    loaded: LoadedModel,
    answers: Sequence[JudgedAnswer],
    calibration: CalibrationOptions,
    *,
    steps: int,
    batch: int,
    window: int,
    pairs: int,
    seed: int,
) -> HealingData:
    """Draw windows and encode answers, and set some of both aside.

    The windows held out are drawn with another seed, and a window to train on that shares a run of 16 tokens with one
    of them is left out: texts are few where nothing is downloaded, and two crops of them overlap.

    **Arguments:**

    - `loaded`: model and tokenizer.
    - `answers`: right and wrong ones to the same questions; may be empty.
    - `calibration`: where the texts come from; its `nsamples` and `seqlen` are not looked at.
    - `steps`, `batch`, `window`, `pairs`, `seed`: see `HealingOptions`.

    **Raises:** `RepairError` for too few texts or questions; `TextError`.
    """
    drawing = replace(calibration, nsamples=steps * batch, seqlen=window)
    drawn, tokens = _windows(loaded, drawing)
    held, _ = _windows(loaded, replace(drawing, nsamples=HELD_BATCHES * batch, seed=calibration.seed + 1))
    seen = {run for row in held for run in _runs(row.ids)}
    windows = tuple(row for row in drawn if seen.isdisjoint(_runs(row.ids)))
    if len(windows) < batch:
        raise RepairError(
            f"{len(windows)} windows are left of {len(drawn)} when {len(held)} are set aside: the texts are too short",
            "Add texts (--calibration), or lower --batch or --window",
        )
    train, aside = _set_aside(encode_pairs(loaded, answers), pairs, seed)
    groups = [aside[i : i + pairs] for i in range(0, len(aside), pairs or 1)]
    held_out = [Batch(windows=tuple(held[i * batch : (i + 1) * batch])) for i in range(HELD_BATCHES)]
    held_out += [Batch(pairs=tuple(group)) for group in groups if len(group) == pairs]
    origin = {**tokens.origin, "sha256": tokens.hash, "windows": len(windows), "held_out": len(held)}
    return HealingData(windows, tuple(train), tuple(held_out), batch, pairs, seed, origin)


def _windows(loaded: LoadedModel, options: CalibrationOptions) -> tuple[list[Row], TokenBatch]:
    """Windows without their padding, which batches put on the right again."""
    try:
        tokens = calibration_tokens(loaded, options)
    except TextError as error:
        # A healing has other names for the shape of what is drawn.
        remedy = error.remedy.replace("--seqlen", "--window").replace("--nsamples", "--steps or --batch")
        raise TextError(error.problem, remedy) from error
    masks = torch.ones_like(tokens.ids_NT, dtype=torch.bool) if tokens.mask_NT is None else tokens.mask_NT
    rows = [tuple(ids[mask].tolist()) for ids, mask in zip(tokens.ids_NT, masks, strict=True)]
    if len(tokens.origin["drawn"]) > 1:
        # They come source by source: the last would be seen late, or never where training stops early.
        random.Random(f"{options.seed}/windows").shuffle(rows)
    return [Row(ids) for ids in rows if len(ids) > 1], tokens


def _runs(ids: tuple[int, ...]) -> Iterable[tuple[int, ...]]:
    return (ids[i : i + RUN] for i in range(max(1, len(ids) - RUN + 1)))


def _set_aside(found: list[Pair], pairs: int, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Pairs to train on and pairs held out, which share no cluster."""
    if not found or not pairs:
        return [], []
    clusters = list(dict.fromkeys(pair.cluster for pair in found))
    random.Random(f"{seed}/aside").shuffle(clusters)
    wanted = min(max(pairs, len(found) // HELD_SHARE), HELD_BATCHES * pairs)
    chosen: set[str] = set()
    for cluster in clusters:
        if sum(pair.cluster in chosen for pair in found) >= wanted:
            break
        chosen.add(cluster)
    train = [pair for pair in found if pair.cluster not in chosen]
    if len(train) < pairs:
        raise RepairError(
            f"{len(found)} questions are too few to train on {pairs} a step and set {wanted} aside",
            "Name more with --qa, raise --qa-items, or lower --pairs",
        )
    return train, [pair for pair in found if pair.cluster in chosen]


def encode_pairs(loaded: LoadedModel, answers: Sequence[JudgedAnswer]) -> list[Pair]:
    """Right and wrong answers to the same question as tokens, in the order of the questions.

    **Raises:** `RepairError` for a question without a right and a wrong answer, or one that the model cannot hold;
    `ModelError` without a tokenizer.
    """
    sides: dict[tuple[str, str], dict[bool, JudgedAnswer]] = {}
    for answer in answers:
        sides.setdefault((answer.id, answer.prompt), {})[answer.hallucinated] = answer
    pairs = []
    for (name, _), side in sides.items():
        if len(side) != 2:
            raise RepairError(f"the question {name} has no right or no wrong answer", "Leave its set out of --qa")
        right, wrong = (_encode(loaded, side[kind]) for kind in (False, True))
        pairs.append(Pair(right, wrong, side[False].cluster or name))
    return pairs


def _encode(loaded: LoadedModel, answer: JudgedAnswer) -> Row:
    """Prompt and answer, tokenized together; a token that merges the two counts as the answer's."""
    alone, whole = encode_texts(loaded, [answer.prompt, answer.prompt + answer.answer], answer.special)
    start = min(common_prefix(alone, whole), len(whole) - 1)
    if start < 1:
        raise RepairError(f"the question {answer.id} leaves no token to go on from", "Give it a longer prompt")
    if loaded.max_length and len(whole) > loaded.max_length:
        raise RepairError(
            f"an answer to {answer.id} ends at token {len(whole)}, over the model's limit of {loaded.max_length}",
            "Leave its set out of --qa, or shorten the primer",
        )
    return Row(tuple(whole), start)


def padded(rows: Sequence[Row], device: torch.device) -> tuple[Tensor, Tensor]:
    """Tokens and which of them count, both of shape `(B, T)`.

    Padding stands on the right, where causal attention keeps it from being seen; it is a token of the text, as some
    models warn of padding tokens that no mask hides.
    """
    width = max(len(row.ids) for row in rows)
    ids_BT = torch.tensor([[*row.ids, *[row.ids[0]] * (width - len(row.ids))] for row in rows])
    counted_BT = torch.tensor([[row.start <= t < len(row.ids) for t in range(width)] for row in rows])
    return ids_BT.to(device), counted_BT.to(device)
