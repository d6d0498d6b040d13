"""What items say and what was answered, kept beside the measurements so that audits joined later can still show it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trueprune._support.files import whole_file
from trueprune._support.parquet import read_rows
from trueprune.reports.item_texts import ItemText, ItemTexts, Said
from trueprune.reports.plain import plain

TEXTS = "texts.parquet"
_SCHEMA = pa.schema(
    [*((name, pa.string()) for name in ("model", "pool", "item", "text", "right")), ("probability", pa.float64())]
)


def write_texts(texts: ItemTexts, folder: Path) -> None:
    """Write `texts.parquet`: a row an item, whose `model` is null, and a row an answer of a model.

    **Arguments:**

    - `texts`: of the items and of what was answered.
    - `folder`: an existing folder.
    """
    rows: list[dict[str, Any]] = []
    for pool, items in texts.items.items():
        rows += [{"pool": pool, "item": item, "text": one.text, "right": one.right} for item, one in items.items()]
    for model, pools in texts.said.items():
        for pool, answers in pools.items():
            rows += [
                {"model": model, "pool": pool, "item": item, "text": said.words, "probability": said.probability}
                for item, said in answers.items()
            ]
    with whole_file(folder / TEXTS) as work:
        # Parquet holds UTF-8 only, a model's own words may be half a character.
        pq.write_table(pa.Table.from_pylist(plain(rows), _SCHEMA), work, compression="zstd")


def read_texts(folder: Path) -> ItemTexts:
    """What `write_texts` wrote; nothing where there is no such file: a report then lists items by name.

    **Raises:** `AuditError` if the file is damaged.
    """
    if not (folder / TEXTS).is_file():
        return ItemTexts()
    items: dict[str, dict[str, ItemText]] = {}
    said: dict[str, dict[str, dict[str, Said]]] = {}
    for row in read_rows(folder / TEXTS, _SCHEMA, "texts"):
        if row["model"] is None:
            items.setdefault(row["pool"], {})[row["item"]] = ItemText(row["text"] or "", row["right"] or "")
        else:
            pools = said.setdefault(row["model"], {})
            pools.setdefault(row["pool"], {})[row["item"]] = Said(row["text"] or "", row["probability"])
    return ItemTexts(items, said)


def joined_texts(texts: Mapping[str, ItemTexts], names: Mapping[str, Mapping[str, str]]) -> ItemTexts:
    """The texts of several audits as those of one.

    **Arguments:**

    - `texts`: by audit.
    - `names`: by audit, what its models are called in the one; a model that is not named is left out.
    """
    items: dict[str, dict[str, ItemText]] = {}
    said: dict[str, Mapping[str, Mapping[str, Said]]] = {}
    for audit, found in texts.items():
        for pool, rows in found.items.items():
            items[pool] = {**rows, **items.get(pool, {})}
        said |= {name: found.said[model] for model, name in names[audit].items() if model in found.said}
    return ItemTexts(items, said)
