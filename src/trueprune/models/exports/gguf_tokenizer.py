"""The tokenizer of a transformers checkpoint in GGUF's terms.

GGUF names how text is split before byte pairs are merged, and llama.cpp knows the rule behind each name. So the rule of
the tokenizer is read from its structure and looked up in a table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from trueprune._support.errors import ModelError
from trueprune.models.load import LoadedModel

REMEDY = (
    "Export with --no-gguf-tokenizer for a file that takes token ids, or with --to nemotron-nas and convert that with "
    "llama.cpp's own converter"
)


class TokenType(IntEnum):
    """GGUF's types of tokens."""

    NORMAL = 1
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5


@dataclass(frozen=True)
class GgufTokenizer:
    """What is written under `tokenizer.` in a GGUF file.

    **Arguments:**

    - `model`, `pre`: how tokens are made, and how text is split before.
    - `tokens`, `types`: one for each row of the embeddings.
    - `merges`: pairs of tokens, in order.
    - `ids`: special tokens by role: `bos`, `eos`, `unk`, `pad`.
    - `add_bos`, `add_eos`: whether a text gets them.
    - `chat_template`: as the tokenizer has it, or `None`.
    - `notes`: what llama.cpp does not do as the tokenizer does.
    """

    model: str
    pre: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    ids: Mapping[str, int]
    add_bos: bool
    add_eos: bool
    chat_template: str | list[dict[str, str]] | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Splitting:
    """A row of the table: how text is split, and whether words that are tokens skip the merges."""

    steps: tuple[tuple[Any, ...], ...]
    ignore_merges: bool = False


_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_START = r"[^\r\n\p{L}\p{N}]?"
BYTES = ("ByteLevel", False, False)
WORDS = ("ByteLevel", False, True)
SPLITTINGS = {
    "gpt-2": Splitting((WORDS,)),
    "smollm": Splitting((("Digits", True), WORDS)),
    "llama-bpe": Splitting(
        (("Split", rf"{_CONTRACTIONS}|{_START}\p{{L}}+|\p{{N}}{{1,3}}{_REST}", "Isolated", False), BYTES), True
    ),
    "qwen2": Splitting((("Split", rf"{_CONTRACTIONS}|{_START}\p{{L}}+|\p{{N}}{_REST}", "Isolated", False), BYTES)),
    "tekken": Splitting(
        (
            (
                "Split",
                rf"{_START}{_UPPER}*{_LOWER}+|{_START}{_UPPER}+{_LOWER}*|\p{{N}}{_REST}".replace(
                    r"[\r\n]*|", r"[\r\n/]*|"
                ),
                "Isolated",
                False,
            ),
            BYTES,
        ),
        True,
    ),
}


def read_gguf_tokenizer(loaded: LoadedModel, vocab: int) -> GgufTokenizer:
    """A byte-level BPE tokenizer in GGUF's terms.

    **Arguments:**

    - `loaded`: whose tokenizer is read.
    - `vocab`: rows of the embeddings; rows without a token become unused ones.

    **Raises:** `ModelError` that names what llama.cpp does not know.
    """
    tokenizer: Any = loaded.tokenizer
    if tokenizer is None:
        raise ModelError(f"{loaded.source} has no tokenizer", "Export with --no-gguf-tokenizer")
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(f"the tokenizer of {loaded.source} has no tokenizer.json", REMEDY)
    data = json.loads(backend.to_str())
    model = data["model"]
    if model["type"] != "BPE" or model.get("byte_fallback") or model.get("dropout"):
        kind = "BPE with byte fallback" if model.get("byte_fallback") else model["type"]
        raise ModelError(f"the tokenizer is no byte-level BPE ({kind})", REMEDY)
    pre = splitting_of(data["pre_tokenizer"], bool(model.get("ignore_merges")))
    notes = _normalizer_notes(data["normalizer"])
    add_bos, add_eos = _additions(tokenizer)
    tokens, types = _tokens(model["vocab"], data["added_tokens"], vocab)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    roles = {role: getattr(tokenizer, f"{role}_token_id", None) for role in ("bos", "eos", "unk", "pad")}
    if roles["eos"] is None:
        raise ModelError("the tokenizer has no end-of-sequence token, for which llama.cpp would take token 11", REMEDY)
    return GgufTokenizer(
        model="gpt2",
        pre=pre,
        tokens=tokens,
        types=types,
        merges=tuple(merges),
        ids={role: int(value) for role, value in roles.items() if value is not None},
        add_bos=add_bos,
        add_eos=add_eos,
        chat_template=_chat_template(tokenizer),
        notes=notes,
    )


def splitting_of(pre_tokenizer: Mapping[str, Any] | None, ignore_merges: bool = False) -> str:
    """The name of a pre-tokenizer in GGUF.

    **Arguments:**

    - `pre_tokenizer`: the entry of tokenizer.json.
    - `ignore_merges`: whether words that are tokens skip the merges.

    **Raises:** `ModelError` for one that is not in the table.
    """
    steps = tuple(_step(step) for step in _flat(pre_tokenizer))
    for name, rule in SPLITTINGS.items():
        if rule == Splitting(steps, ignore_merges):
            return name
    words = ", ".join(str(step[0]) for step in steps) or "none"
    raise ModelError(f"the pre-tokenizer ({words}) is not one of {', '.join(SPLITTINGS)}", REMEDY)


def _flat(step: Mapping[str, Any] | None) -> Sequence[Mapping[str, Any]]:
    if step is None:
        return []
    if step["type"] == "Sequence":
        return [part for inner in step["pretokenizers"] for part in _flat(inner)]
    return [step]


def _step(step: Mapping[str, Any]) -> tuple[Any, ...]:
    """What decides where text is split; offsets do not."""
    kind = step["type"]
    if kind == "ByteLevel":
        return kind, step["add_prefix_space"], step.get("use_regex", True)
    if kind == "Digits":
        return kind, step["individual_digits"]
    if kind == "Split":
        return kind, step["pattern"].get("Regex"), step["behavior"], step["invert"]
    return (kind,)


def _normalizer_notes(normalizer: Mapping[str, Any] | None) -> tuple[str, ...]:
    if normalizer is None:
        return ()
    if normalizer["type"] == "NFC":
        return ("llama.cpp does not compose characters (NFC) as the tokenizer does",)
    raise ModelError(f"the tokenizer changes text before it splits it ({normalizer['type']})", REMEDY)


def _additions(tokenizer: Any) -> tuple[bool, bool]:
    """Whether a text gets the beginning-of-sequence and the end-of-sequence token."""
    text = "a b"
    plain, full = (list(tokenizer(text, add_special_tokens=add)["input_ids"]) for add in (False, True))
    bos, eos = [tokenizer.bos_token_id], [tokenizer.eos_token_id]
    for add_bos in (False, True):
        for add_eos in (False, True):
            if full == bos * add_bos + plain + eos * add_eos:
                return add_bos, add_eos
    raise ModelError("the tokenizer adds other tokens to a text than one at its beginning and end", REMEDY)


def _tokens(
    vocab: Mapping[str, int], added: Sequence[Mapping[str, Any]], rows: int
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    tokens = [f"[PAD{index}]" for index in range(rows)]
    types = [TokenType.UNUSED] * rows
    most = max([*vocab.values(), *(token["id"] for token in added)])
    if most >= rows:
        raise ModelError(f"the tokenizer has a token {most} and the model {rows} embeddings", REMEDY)
    for text, index in vocab.items():
        tokens[index], types[index] = text, TokenType.NORMAL
    for token in added:
        if token["lstrip"] or token["rstrip"] or token["single_word"]:
            raise ModelError(f"the token {token['content']!r} takes spaces with it, which GGUF cannot say", REMEDY)
        tokens[token["id"]] = token["content"]
        types[token["id"]] = TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED
    return tuple(tokens), tuple(int(kind) for kind in types)


def _chat_template(tokenizer: Any) -> str | list[dict[str, str]] | None:
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, dict):
        return [{"name": name, "template": text} for name, text in template.items()]
    return template
