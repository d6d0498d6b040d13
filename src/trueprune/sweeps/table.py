"""The table of a sweep: one row a cell and metric, for whatever reads Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trueprune._support.files import whole_file
from trueprune.reports.audit import Row
from trueprune.sweeps.results import COMPLETE, ModelResults, Result

DENSE = "dense"
SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("source", pa.string()),
        ("name", pa.string()),
        ("method", pa.string()),
        ("pattern", pa.string()),
        ("sparsity", pa.float64()),
        ("repair", pa.string()),
        ("seed", pa.int64()),
        ("cell", pa.string()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("measured_sparsity", pa.float64()),
        ("removed", pa.float64()),
        ("parameters", pa.int64()),
        ("instrument", pa.string()),
        ("metric", pa.string()),
        ("headline", pa.bool_()),
        ("higher_is_better", pa.bool_()),
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("n", pa.int64()),
        ("change", pa.float64()),
        ("change_low", pa.float64()),
        ("change_high", pa.float64()),
        ("p", pa.float64()),
        ("p_adjusted", pa.float64()),
        ("passed", pa.bool_()),
        ("seconds", pa.float64()),
        ("peak_memory_bytes", pa.int64()),
    ]
)
# What differs between two runs of the same cell.
TIMED = ("seconds", "peak_memory_bytes")


def table_rows(models: Sequence[ModelResults]) -> list[dict[str, Any]]:
    """The rows of `sweep.parquet`, in the order of the grid, each dense model before its cells.

    **Arguments:**

    - `models`: what the sweep found.
    """
    return [row for model in models for row in _model_rows(model)]


def _model_rows(model: ModelResults) -> Iterator[dict[str, Any]]:
    blank = dict.fromkeys(SCHEMA.names)
    if model.report is not None:
        about = model.report.models[0].about
        dense = {
            **blank,
            "model": model.name,
            "source": model.source,
            "name": model.name,
            "method": DENSE,
            "status": COMPLETE,
            "measured_sparsity": about.get("measured_sparsity"),
            "removed": about.get("measured_sparsity"),
            "parameters": model.dense.get("parameters"),
            "peak_memory_bytes": model.dense.get("peak_memory_bytes"),
        }
        for row in model.rows(model.name):
            yield {**dense, **_metric(row)}
    for cell in model.cells:
        base = {**blank, **_cell(model, cell)}
        if cell.status != COMPLETE:
            yield base
        for row in model.rows(cell.name):
            yield {**base, **_metric(row)}


def _cell(model: ModelResults, cell: Result) -> dict[str, Any]:
    config, data = cell.config, cell.data
    return {
        "model": model.name,
        "source": model.source,
        "name": cell.name,
        "method": config.method,
        "pattern": config.pattern,
        "sparsity": config.sparsity,
        "repair": config.repair,
        "seed": config.seed,
        "cell": cell.cell or None,
        "status": cell.status,
        "error": cell.error or None,
        "measured_sparsity": data.get("about", {}).get("measured_sparsity"),
        "removed": data.get("removed"),
        "parameters": data.get("parameters"),
        "passed": cell.passed,
        "seconds": data.get("seconds", {}).get("total"),
        "peak_memory_bytes": data.get("peak_memory_bytes"),
    }


def _metric(row: Row) -> dict[str, Any]:
    low, high = row.estimate.interval
    found: dict[str, Any] = {
        "instrument": row.instrument,
        "metric": row.metric,
        "headline": row.headline,
        "higher_is_better": row.higher_is_better,
        "value": row.estimate.value,
        "low": low,
        "high": high,
        "n": row.estimate.n,
    }
    if row.change is not None:
        change_low, change_high = row.change.interval
        found |= {"change": row.change.value, "change_low": change_low, "change_high": change_high}
    if row.test is not None:
        found |= {"p": row.test.p, "p_adjusted": row.test.p_adjusted}
    return found


def write_table(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Write the rows as Parquet, whole or not at all."""
    with whole_file(file) as work:
        pq.write_table(pa.Table.from_pylist(list(rows), SCHEMA), work, compression="zstd")
