"""Where calibration texts come from: a name each, any hub dataset, any local file."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trueprune._support.errors import TextError
from trueprune.models.load import LoadedModel
from trueprune.texts.collections import load_statements
from trueprune.texts.enrich import enrich
from trueprune.texts.rows import embedded_file, hub_rows, mirror_file, read_csv, read_documents
from trueprune.texts.sample import sample_documents
from trueprune.texts.selection import select


@dataclass(frozen=True, eq=False)
class SourceContext:
    """What a source may depend on.

    **Arguments:**

    - `loaded`: the model that is calibrated (the source `self` samples from it).
    - `seed`: for what is drawn.
    - `tokens`: about how many tokens are wanted.
    - `statements`: the statement collection.
    - `selection`: which of its statements may be used, see `trueprune.texts.selection`.
    - `enrichment`: variant of the enrichment rule.
    """

    loaded: LoadedModel
    seed: int
    tokens: int
    statements: str = "embedded"
    selection: Any = "leak-free"
    enrichment: Any = "correction"


def _c4(_: SourceContext) -> list[str]:
    return [row["text"] for row in hub_rows("allenai/c4", "en", "train")]


def _wikitext2(_: SourceContext) -> list[str]:
    name, config = "Salesforce/wikitext", "wikitext-2-raw-v1"
    split = "train"
    if mirror_file(name, config, "train") is None and mirror_file(name, config, "test") is not None:
        split = "test"
        warnings.warn(
            "the mirror has only WikiText-2's test split: calibrating on it spoils perplexity on wikitext2",
            stacklevel=2,
        )
    return [row["text"] for row in hub_rows(name, config, split) if row["text"].strip()]


def _enriched_truthfulqa(context: SourceContext) -> list[str]:
    return enrich(hub_rows("truthfulqa/truthful_qa", "generation", "validation"), context.enrichment)


def _enriched_embedded(context: SourceContext) -> list[str]:
    rows = [
        {"question": row["question"], "best_answer": row["correct"], "incorrect_answers": [row["incorrect"]]}
        for row in read_csv(embedded_file("enrichment.csv"))
    ]
    return enrich(rows, context.enrichment)


def _statements(context: SourceContext) -> list[str]:
    """Statements of the choosing side only: those that test lie detection must not calibrate."""
    texts = select(load_statements(context.statements), "choose", context.selection).texts
    random.Random(context.seed).shuffle(texts)
    return texts


def _embedded(_: SourceContext) -> list[str]:
    return read_documents(embedded_file("calibration.jsonl"))


def _self(context: SourceContext) -> list[str]:
    return sample_documents(context.loaded, context.tokens, context.seed)


SOURCES: dict[str, Callable[[SourceContext], Sequence[str]]] = {
    "embedded": _embedded,
    "c4": _c4,
    "wikitext2": _wikitext2,
    "enriched-truthfulqa": _enriched_truthfulqa,
    "enriched-embedded": _enriched_embedded,
    "statements": _statements,
    "self": _self,
}
# The spellings of the TPLO scripts.
PAPER_NAMES = {"enriched_truth_qa": "enriched-truthfulqa", "truth_is_universal": "statements"}


def documents(name: str, context: SourceContext) -> list[str]:
    """The texts of a source.

    **Arguments:**

    - `name`: a key of `SOURCES`; `hf:ORG/NAME/CONFIG:SPLIT:COLUMN`; or a path to .txt, .jsonl, .csv or .parquet, with
        `:COLUMN` after it if the column is not `text`.
    - `context`: see `SourceContext`.

    **Raises:** `TextError` if the source is unknown, unreachable or empty.
    """
    name = PAPER_NAMES.get(name, name)
    if name in SOURCES:
        found = list(SOURCES[name](context))
    elif name.startswith("hf:"):
        found = hub_column(name)
    else:
        path, _, column = name.partition(":")
        if not Path(path).suffix:
            raise TextError(
                f"unknown calibration source {name!r}",
                f"Use {', '.join(SOURCES)}, hf:ORG/NAME/CONFIG:SPLIT:COLUMN, or the path of a text file",
            )
        found = read_documents(Path(path), column or "text")
    if not found:
        raise TextError(f"the calibration source {name} is empty", "Choose another")
    return found


def hub_column(name: str) -> list[str]:
    """The texts of `hf:ORG/NAME/CONFIG:SPLIT:COLUMN`.

    **Raises:** `TextError`.
    """
    try:
        dataset, split, column = name.removeprefix("hf:").split(":")
        org, short, *config = dataset.split("/")
    except ValueError as error:
        raise TextError(f"cannot read {name!r}", "Write hf:ORG/NAME/CONFIG:SPLIT:COLUMN") from error
    rows = hub_rows(f"{org}/{short}", config[0] if config else "default", split)
    if rows and column not in rows[0]:
        raise TextError(f"{name}: no column {column!r}; there are {', '.join(rows[0])}", "Name one of these")
    return [str(row[column]) for row in rows if row[column]]
