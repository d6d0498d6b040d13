"""Parquet tables read back by their schema, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trueprune._support.errors import AuditError


def read_rows(file: str | Path, schema: pa.Schema, what: str) -> list[dict[str, Any]]:
    """The rows of a table that has at least the columns of a schema.

    **Arguments:**

    - `file`: the file.
    - `schema`: its columns and their types.
    - `what`: what it is a table of, e.g. `"predictions"`.

    **Raises:** `AuditError` if it is no such table.
    """
    try:
        table = pq.read_table(file)
        if lacking := [name for name in schema.names if name not in table.column_names]:
            raise ValueError(f"it has no column {lacking[0]!r}")
        return table.select(schema.names).cast(schema).to_pylist()
    # pyarrow has no cast between some types, and says so by the last of these.
    except (OSError, ValueError, NotImplementedError) as error:
        raise AuditError(f"{file} is no table of {what} ({error})", f"Give the {what}.parquet of an audit") from error
