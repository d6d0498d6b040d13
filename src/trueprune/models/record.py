"""`trueprune.json`: what was done to a checkpoint, enough to do it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trueprune._support.errors import ModelError

RECORD = "trueprune.json"
# What a later step keeps of an earlier one.
KEPT = (
    "command",
    "source",
    "source_sha256",
    "method",
    "plan",
    "edit",
    "seed",
    "calibration",
    "scoring",
    "parameters",
    "recalibration",
    "healing",
    "versions",
)


def read_record(folder: str | Path) -> dict[str, Any] | None:
    """The `trueprune.json` of a checkpoint folder, or `None` when there is none.

    **Raises:** `ModelError` if it cannot be read.
    """
    file = Path(folder) / RECORD
    if not file.is_file():
        return None
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{file} is not JSON ({error})", "Restore it from the run that wrote it") from error
    if not isinstance(record, dict):
        raise ModelError(f"{file} holds no JSON object", "Restore it from the run that wrote it")
    return record


def history_of(record: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The earlier steps that a further step's record keeps, oldest first."""
    if record is None:
        return []
    return [*record.get("history", []), {key: record[key] for key in KEPT if key in record}]
