"""Measurements kept in a file, so that a model is measured once and compared as often as anybody likes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trueprune._support.errors import AuditError
from trueprune._support.files import whole_file
from trueprune.audits.measurement import Measurement
from trueprune.audits.stored_rows import SCHEMA, rows_of, stored_measurements

MEASUREMENTS = "measurements.parquet"
SCHEMA_NUMBER = 1
_KEY = b"trueprune.measurements"


@dataclass(frozen=True, eq=False)
class Stored:
    """What a file of measurements holds.

    **Arguments:**

    - `models`: the measurements of each model, in the order in which they were written.
    - `resamples`, `seed`: of the bootstrap that metrics which are no mean of items were stored for.
    """

    models: Mapping[str, list[Measurement]]
    resamples: int
    seed: int


def write_measurements(measurements: Sequence[Measurement], path: str | Path, *, resamples: int, seed: int) -> None:
    """Keep what was measured on one model: a Parquet table, whole or absent, one row a measurement.

    Numbers are kept to the bit. A metric with a `statistic` is kept by its value and by its R resamples: such a
    metric can later be compared with these `resamples` and this `seed` only.

    **Arguments:**

    - `measurements`: of one model.
    - `path`: the file.
    - `resamples`, `seed`: of the bootstrap that will compare the model.

    **Raises:** `AuditError` for a measurement that has no items; `OutputError` where nothing can be written.
    """
    write_models({"": measurements}, path, resamples=resamples, seed=seed)


def read_measurements(path: str | Path) -> list[Measurement]:
    """What `write_measurements` kept: measurements that give the same estimates and paired changes, to the bit.

    **Raises:** `AuditError` if the file is missing, damaged, from a later version, or of several models.
    """
    models = read_models(path).models
    if len(models) > 1:
        raise AuditError(f"{path} holds the measurements of {len(models)} models", "Read it with read_models")
    return next(iter(models.values()), [])


def write_models(models: Mapping[str, Sequence[Measurement]], path: str | Path, *, resamples: int, seed: int) -> None:
    """Keep what was measured on several models, as `write_measurements` does for one.

    **Arguments:**

    - `models`: by name; the name is the column `model`.
    - `path`, `resamples`, `seed`: as there.
    """
    rows = rows_of(models, resamples, seed)
    how = {"schema": SCHEMA_NUMBER, "resamples": resamples, "seed": seed, "numpy": np.__version__}
    table = pa.Table.from_pylist(rows, SCHEMA.with_metadata({_KEY: json.dumps(how).encode()}))
    with whole_file(Path(path)) as work:
        pq.write_table(table, work, compression="zstd", write_page_checksum=True)


def read_models(path: str | Path) -> Stored:
    """What `write_models` kept.

    **Raises:** `AuditError` if the file is missing, damaged or from a later version.
    """
    path = Path(path)
    try:
        how = json.loads((pq.read_schema(path).metadata or {}).get(_KEY, b"null"))
        if not isinstance(how, dict):
            raise ValueError("another program wrote it")
        if how["schema"] != SCHEMA_NUMBER:
            raise ValueError(f"its schema is {how['schema']}, this version reads {SCHEMA_NUMBER}")
        with path.open("rb") as file:
            table = pq.read_table(file, page_checksum_verification=True)
        if table.schema.names != SCHEMA.names or table.schema.types != SCHEMA.types:
            raise ValueError("its columns are not those of measurements")
        models: dict[str, list[Measurement]] = {}
        for name, measurement in stored_measurements(table, path, how):
            models.setdefault(name, []).append(measurement)
        return Stored(models, int(how["resamples"]), int(how["seed"]))
    except (OSError, ValueError, KeyError, TypeError, IndexError, NotImplementedError) as error:
        said = " ".join(str(error).split())
        raise AuditError(
            f"{path} is no file of measurements ({said or type(error).__name__})",
            "Audit the model again, and give the folder of that audit",
        ) from error
