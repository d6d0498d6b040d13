"""Rows with the hub's columns, from the local mirror or the hub: one loader for both."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from trueprune._support.errors import TextError

HUB_ROW_LIMIT = 5000


def data_folder() -> Path | None:
    """The mirror of hub rows named by `TRUEPRUNE_DATA`, or `None`.

    **Raises:** `TextError` if it is set and is no folder.
    """
    name = os.environ.get("TRUEPRUNE_DATA")
    if not name:
        return None
    folder = Path(name)
    if not folder.is_dir():
        raise TextError(f"TRUEPRUNE_DATA is {name!r}, which is no folder", "Correct or unset it")
    return folder


def hub_rows(dataset: str, config: str, split: str, limit: int = HUB_ROW_LIMIT) -> list[dict[str, Any]]:
    """Rows of a hub dataset, from the mirror `TRUEPRUNE_DATA/<org>__<name>/<config>/<split>.jsonl` or else the hub.

    **Arguments:**

    - `dataset`: `"org/name"`.
    - `config`: configuration name.
    - `split`: split name.
    - `limit`: at most so many rows, the first ones.

    **Raises:** `TextError` that says how to get them.
    """
    if (file := mirror_file(dataset, config, split)) is not None:
        return list(read_jsonl(file))[:limit]
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise TextError(
            f"no rows of {dataset} ({config}, {split}): no local mirror holds them and the package datasets is missing",
            "Set TRUEPRUNE_DATA, or pip install 'trueprune[hub]', or use --calibration embedded",
        ) from error
    try:
        stream = datasets.load_dataset(dataset, config, split=split, streaming=True)
        return [dict(row) for row, _ in zip(stream, range(limit), strict=False)]
    except Exception as error:
        raise TextError(
            f"the hub gave no rows of {dataset} ({config}, {split}): {str(error).splitlines()[0][:200]}",
            "Check the network, set TRUEPRUNE_DATA, or use --calibration embedded",
        ) from error


def mirror_file(dataset: str, config: str, split: str) -> Path | None:
    """The mirror's file of a split, or `None` if there is none."""
    folder = data_folder()
    if folder is None:
        return None
    file = folder / dataset.replace("/", "__") / config / f"{split}.jsonl"
    return file if file.is_file() else None


def read_jsonl(file: Path) -> Iterator[dict[str, Any]]:
    """Objects of a JSON-lines file.

    **Raises:** `TextError` that names the line.
    """
    for number, line in enumerate(_read_text(file).split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise TextError(f"{file}, line {number} is not JSON ({error})", "Mend the line") from error
            if not isinstance(row, dict):
                raise TextError(f"{file}, line {number} is no JSON object", 'Write {"text": ...} on each line')
            yield row


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TextError(f"{file} is not UTF-8 text ({error})", "Save it as UTF-8") from error


def read_csv(file: Path, required: tuple[str, ...] = ()) -> list[dict[str, str]]:
    """Rows of a CSV file with a header.

    **Raises:** `TextError` if a required column is missing or the file is not text.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle, restkey="")
            columns = reader.fieldnames or []
            if missing := [name for name in required if name not in columns]:
                raise TextError(
                    f"{file} has no column {missing[0]!r}; its columns are {', '.join(columns) or '(none)'}",
                    "Rename or add the column",
                )
            return list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise TextError(f"{file} is not a UTF-8 CSV file ({error})", "Save it as UTF-8 CSV with a header") from error


def embedded_file(name: str) -> Path:
    """A file that ships inside the package."""
    return Path(str(resources.files("trueprune.texts") / "embedded" / name))


def read_documents(path: Path, column: str = "text") -> list[str]:
    """Texts of a local file: `.txt` (entries separated by blank lines), `.jsonl`, `.parquet` or `.csv` (a column).

    **Raises:** `TextError` for an unknown kind, a missing column or an empty file.
    """
    if not path.is_file():
        raise TextError(f"no text file at {path}", "Check the path")
    if path.suffix == ".txt":
        entries = _read_text(path).split("\n\n")
        documents = [" ".join(line.strip() for line in entry.splitlines() if line.strip()) for entry in entries]
    elif path.suffix in (".jsonl", ".parquet", ".csv"):
        documents = [str(row[column]) for row in _with_column(_tabular(path), path, column)]
    else:
        raise TextError(f"{path} is neither .txt, .jsonl, .csv nor .parquet", "Convert it to one of these")
    documents = [text for text in documents if text.strip()]
    if not documents:
        raise TextError(f"{path} holds no text", "Give a corpus that is not empty")
    return documents


def _tabular(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return list(read_jsonl(path))
    if path.suffix == ".csv":
        return list(read_csv(path))
    import pyarrow.parquet as parquet

    try:
        return parquet.read_table(path).to_pylist()
    except (OSError, ValueError) as error:
        raise TextError(f"{path} is no parquet file ({error})", "Check the file") from error


def _with_column(rows: list[dict[str, Any]], path: Path, column: str) -> list[dict[str, Any]]:
    if rows and column not in rows[0]:
        raise TextError(
            f"{path} has no column {column!r}; its columns are {', '.join(rows[0])}",
            f"Name one as {path.name}:COLUMN, or rename it",
        )
    return [row for row in rows if row.get(column)]
