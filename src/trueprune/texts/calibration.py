"""From named sources to calibration tokens: drawn, packed and cropped, or one text a row.

Legend: N sequences, T tokens a sequence.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from trueprune._support.errors import ModelError, TextError
from trueprune.models.load import LoadedModel
from trueprune.texts.enrich import Variant
from trueprune.texts.selection import Selection
from trueprune.texts.sources import SourceContext, documents
from trueprune.texts.tokens import TokenBatch

Format = Literal["concat", "document", "single"]
PaddingSide = Literal["left", "right"]


@dataclass(frozen=True)
class CalibrationOptions:
    """What a model is calibrated on.

    **Arguments:**

    - `sources`: `embedded`, `c4`, `wikitext2`, `enriched-truthfulqa`, `enriched-embedded`, `statements`, `self`,
        `hf:ORG/NAME/CONFIG:SPLIT:COLUMN`, or a text file; each with an optional weight, `c4=3`.
    - `nsamples`: sequences in all, shared out by weight, in the order of the sources.
    - `seqlen`: tokens a sequence.
    - `seed`: decides what is drawn and cropped.
    - `format`: `"concat"` draws texts with replacement, joins their tokens until there are more than `seqlen` and
        takes a random crop; `"document"` draws until one text alone is long enough (the released C4 loader);
        `"single"` is one text a row, cut at `seqlen`, padded.
    - `padding_side`: of `"single"`. Padding takes no part in any statistic.
    - `enrichment`: variant of the enrichment rule.
    - `statements`: the true/false statements that choose SWL's and TPLO's densities, and that the source `statements`
        draws from: `embedded`, `truth-is-universal`, or the path of a CSV file or folder.
    - `selection`: `leak-free` leaves out the statements that an audit tests on; `paper` does as the paper does.
    """

    sources: tuple[str, ...] = ("embedded",)
    nsamples: int = 16
    seqlen: int = 512
    seed: int = 0
    format: Format = "concat"
    padding_side: PaddingSide = "right"
    enrichment: Variant = "correction"
    statements: str = "embedded"
    selection: Selection = "leak-free"


def calibration_tokens(loaded: LoadedModel, options: CalibrationOptions) -> TokenBatch:
    """Draw calibration tokens.

    **Arguments:**

    - `loaded`: the model, whose tokenizer is used.
    - `options`: see `CalibrationOptions`.

    **Returns:** a `TokenBatch` of shape `(nsamples, seqlen)`.

    **Raises:** `TextError` for too short a corpus or a `seqlen` over the model's limit.
    """
    _check(loaded, options)
    names, counts = _shares(options)
    rows: list[list[int]] = []
    for index, (name, count) in enumerate(zip(names, counts, strict=True)):
        context = SourceContext(
            loaded,
            options.seed,
            count * options.seqlen,
            options.statements,
            options.selection,
            options.enrichment,
        )
        texts = documents(name, context)
        # One stream of random numbers a source: adding a source leaves the others' samples as they were.
        rng = random.Random(f"{options.seed}/{index}")
        rows += _FORMATS[options.format](name, texts, loaded, count, options.seqlen, rng)
    return _batch(rows, options, names, counts)


def _check(loaded: LoadedModel, options: CalibrationOptions) -> None:
    if loaded.tokenizer is None:
        raise ModelError(f"{loaded.source} has no tokenizer", "Save the tokenizer beside the model")
    if options.nsamples < 1 or options.seqlen < 2:
        raise TextError(
            f"nsamples {options.nsamples} x seqlen {options.seqlen} is no calibration set", "Use e.g. 16 x 512"
        )
    if loaded.max_length and options.seqlen > loaded.max_length:
        raise TextError(
            f"seqlen {options.seqlen} is over the model's limit of {loaded.max_length} positions",
            f"Use --seqlen {min(512, loaded.max_length)}",
        )
    if not options.sources:
        raise TextError("no calibration source is given", "Use --calibration embedded")
    for name, value, known in (
        ("format", options.format, tuple(_FORMATS)),
        ("padding side", options.padding_side, ("left", "right")),
    ):
        if value not in known:
            raise TextError(f"unknown {name} {value!r}", f"Use one of {', '.join(known)}")


def _shares(options: CalibrationOptions) -> tuple[list[str], list[int]]:
    """Samples of each source: by weight, remainders to the largest fractions, the earlier source first."""
    names, weights = [], []
    for source in options.sources:
        name, sign, weight = source.rpartition("=")
        try:
            weights.append(float(weight) if sign else 1.0)
            names.append(name if sign else source)
        except ValueError:
            weights.append(1.0)
            names.append(source)
    if not all(0 < weight < float("inf") for weight in weights):
        raise TextError(
            f"a calibration weight in {' '.join(options.sources)} is not a positive number", "Use e.g. c4=3"
        )
    exact = [options.nsamples * weight / sum(weights) for weight in weights]
    counts = [int(value) for value in exact]
    by_fraction = sorted(range(len(exact)), key=lambda i: (counts[i] - exact[i], i))
    for index in by_fraction[: options.nsamples - sum(counts)]:
        counts[index] += 1
    if min(counts) == 0:
        raise TextError(
            f"{options.nsamples} samples are too few for the sources {' '.join(options.sources)}", "Raise --nsamples"
        )
    return names, counts


def _ids(loaded: LoadedModel, text: str) -> list[int]:
    tokenizer: Any = loaded.tokenizer
    return list(tokenizer(text, verbose=False)["input_ids"])


def _concat(
    name: str, texts: Sequence[str], loaded: LoadedModel, count: int, seqlen: int, rng: random.Random
) -> list[list[int]]:
    cache: dict[int, list[int]] = {}

    def ids_of(index: int) -> list[int]:
        if index not in cache:
            cache[index] = _ids(loaded, texts[index])
        return cache[index]

    _check_length(name, (len(ids_of(i)) for i in range(len(texts))), seqlen)
    rows = []
    for _ in range(count):
        packed: list[int] = []
        while len(packed) <= seqlen:
            packed += ids_of(rng.randrange(len(texts)))
        rows.append(_crop(packed, seqlen, rng))
    return rows


def _check_length(name: str, lengths: Any, seqlen: int) -> None:
    """A corpus must hold at least one sequence of its own tokens; drawing one text again and again is no sample."""
    total = 0
    for length in lengths:
        total += length
        if total >= seqlen:
            return
    raise TextError(f"the corpus {name} holds {total} tokens, fewer than seqlen {seqlen}", "Lower --seqlen")


def _document(
    name: str, texts: Sequence[str], loaded: LoadedModel, count: int, seqlen: int, rng: random.Random
) -> list[list[int]]:
    rows = []
    order = list(range(len(texts)))
    for _ in range(count):
        rng.shuffle(order)
        long = next((ids for i in order if len(ids := _ids(loaded, texts[i])) > seqlen), None)
        if long is None:
            raise TextError(
                f"no text of {name} has more than {seqlen} tokens", "Lower --seqlen, or use --calibration-format concat"
            )
        rows.append(_crop(long, seqlen, rng))
    return rows


def _single(
    name: str, texts: Sequence[str], loaded: LoadedModel, count: int, seqlen: int, rng: random.Random
) -> list[list[int]]:
    if count > len(texts):
        raise TextError(f"the corpus {name} has {len(texts)} texts, fewer than {count} samples", "Lower --nsamples")
    rows = [_ids(loaded, texts[i])[:seqlen] for i in rng.sample(range(len(texts)), count)]
    if not all(rows):
        raise TextError(f"a text of {name} has no tokens", "Remove empty texts")
    return rows


def _crop(ids: list[int], seqlen: int, rng: random.Random) -> list[int]:
    start = rng.randrange(len(ids) - seqlen)
    return ids[start : start + seqlen]


_FORMATS = {"concat": _concat, "document": _document, "single": _single}


def _batch(rows: list[list[int]], options: CalibrationOptions, names: list[str], counts: list[int]) -> TokenBatch:
    ids_NT = torch.zeros(len(rows), options.seqlen, dtype=torch.long)
    mask_NT = torch.zeros(len(rows), options.seqlen, dtype=torch.bool)
    for index, ids in enumerate(rows):
        where = slice(0, len(ids)) if options.padding_side == "right" else slice(options.seqlen - len(ids), None)
        ids_NT[index, where] = torch.tensor(ids)
        mask_NT[index, where] = True
    drawn: dict[str, int] = {}
    for name, count in zip(names, counts, strict=True):
        drawn[name] = drawn.get(name, 0) + count
    origin = {**asdict(options), "sources": list(options.sources), "drawn": drawn}
    return TokenBatch(ids_NT, None if bool(mask_NT.all()) else mask_NT, origin)
